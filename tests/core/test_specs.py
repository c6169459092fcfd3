from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from fleetwire.core import limits
from fleetwire.core.envelopes import spec_sha256
from fleetwire.core.errors import BadSpec, FleetwireError, LimitExceeded
from fleetwire.core.specs import (
    Ping,
    Resources,
    RunRequest,
    Script,
    Scripted,
    Spec,
    Step,
    check,
    check_request,
    is_confined,
    kind_of,
    quota_policy,
)

TRUE = Script("true")


@pytest.mark.parametrize(
    "spec",
    [TRUE, Ping(), Scripted(()), Scripted((Step("exit", code=3),)), Script("x", grace=0)],
)
def test_a_plain_spec_is_accepted_and_survives_its_json(spec: Spec) -> None:
    check(spec)
    assert msgspec.json.decode(msgspec.json.encode(spec), type=Spec) == spec
    assert msgspec.to_builtins(spec)["kind"] == kind_of(spec)


@pytest.mark.parametrize("plain", [TRUE, Scripted(())])
def test_the_default_policy_is_not_said(plain: Script | Scripted) -> None:
    """One form and so one hash: an agent of 0.1.0 has no such field."""
    said = msgspec.structs.replace(plain, on_quota="block")
    assert plain == said
    assert b"on_quota" not in msgspec.json.encode(said)
    assert quota_policy(said) == quota_policy(Ping()) == "block"
    drop = msgspec.structs.replace(plain, on_quota="drop")
    assert quota_policy(drop) == "drop"
    assert spec_sha256(drop) != spec_sha256(plain)


def test_an_agent_that_does_not_know_the_policy_refuses_the_order() -> None:
    """It must not run a task that it cannot run as asked: the hash is of more than it knows."""

    class Before(msgspec.Struct, tag="script", tag_field="kind"):
        script: str
        shell: str
        args: tuple[str, ...]
        env: dict[str, str]
        tty: bool
        timeout: float
        grace: float

    drop = Script("true", on_quota="drop")
    read = msgspec.json.decode(msgspec.json.encode(drop), type=Before)
    again = msgspec.json.decode(msgspec.json.encode(read), type=Script)
    assert spec_sha256(again) == spec_sha256(Script("true")) != spec_sha256(drop)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"script": "  \n"}, "spec.script"),
        ({"script": "a\0b"}, "spec.script"),
        ({"script": "\ud800"}, "spec.script"),
        ({"timeout": 0}, "spec.timeout"),
        ({"timeout": -1}, "spec.timeout"),
        ({"timeout": math.nan}, "spec.timeout"),
        ({"timeout": math.inf}, "spec.timeout"),
        ({"grace": -0.1}, "spec.grace"),
        ({"args": ("a", "b\0")}, "spec.args[1]"),
        ({"env": {"1A": "x"}}, "spec.env"),
        ({"env": {"A=B": "x"}}, "spec.env"),
        ({"env": {"A": "x\0"}}, "spec.env.A"),
        ({"env": {"FLEETWIRE_ATTEMPT": "x"}}, "spec.env.FLEETWIRE_ATTEMPT"),
    ],
)
def test_a_bad_field_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(BadSpec) as raised:
        check(msgspec.structs.replace(TRUE, **change))
    assert raised.value.field == field
    assert raised.value.hint


LIMITS: list[tuple[str, Spec, Spec]] = [
    (
        "script_bytes",
        Script("x" * limits.SCRIPT_BYTES),
        Script("x" * (limits.SCRIPT_BYTES + 1)),
    ),
    ("args", Script("x", args=("",) * limits.ARGS), Script("x", args=("",) * (limits.ARGS + 1))),
    (
        "arg_bytes",
        Script("x", args=("y" * limits.ARG_BYTES,)),
        Script("x", args=("y" * (limits.ARG_BYTES + 1),)),
    ),
    (
        "env_entries",
        Script("x", env={f"K{n}": "" for n in range(limits.ENV_ENTRIES)}),
        Script("x", env={f"K{n}": "" for n in range(limits.ENV_ENTRIES + 1)}),
    ),
    (
        "env_key_chars",
        Script("x", env={"K" * limits.ENV_KEY_CHARS: ""}),
        Script("x", env={"K" * (limits.ENV_KEY_CHARS + 1): ""}),
    ),
    (
        "env_bytes",
        Script("x", env={"K": "v" * (limits.ENV_BYTES - 1)}),
        Script("x", env={"K": "v" * limits.ENV_BYTES}),
    ),
    ("timeout_s", Ping(timeout=limits.TIMEOUT_S), Ping(timeout=limits.TIMEOUT_S + 1)),
    ("grace_s", Ping(grace=limits.GRACE_S), Ping(grace=limits.GRACE_S + 1)),
    (
        "scripted_steps",
        Scripted((Step("exit"),) * limits.SCRIPTED_STEPS),
        Scripted((Step("exit"),) * (limits.SCRIPTED_STEPS + 1)),
    ),
]


@pytest.mark.parametrize(
    ("most", "above"),
    [pytest.param(m, a, id=name, marks=pytest.mark.limit(name)) for name, m, a in LIMITS],
)
def test_limits_of_a_spec(most: Spec, above: Spec) -> None:
    check(most)
    with pytest.raises((LimitExceeded, BadSpec)):
        check(above)


@pytest.mark.limit("spec_bytes")
def test_a_spec_fits_into_one_control_frame_whatever_it_holds() -> None:
    overhead = len(msgspec.json.encode(Script("", args=("",) * 100)))
    whole, rest = divmod(limits.SPEC_BYTES - overhead, 100)
    args = ["y" * whole] * 100
    args[0] += "y" * (rest - 1)
    most = Script("x", args=tuple(args))
    assert len(msgspec.json.encode(most)) == limits.SPEC_BYTES
    check(most)
    with pytest.raises(LimitExceeded, match="as JSON"):
        check(msgspec.structs.replace(most, script="xx"))
    # A control character takes six bytes in JSON: small as text, too large as a frame.
    with pytest.raises(LimitExceeded, match="as JSON"):
        check(Script("\x01" * limits.SCRIPT_BYTES))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"selector": None}, "selector"),
        ({"nodes": ("a",)}, "selector"),
        ({"selector": None, "nodes": ()}, "nodes"),
        ({"any": 0}, "any"),
        ({"any": limits.NODES_PER_RUN + 1}, "any"),
        ({"name": "a\nb"}, "name"),
        ({"queue_timeout": 0}, "queue_timeout"),
        ({"queue_timeout": limits.QUEUE_TIMEOUT_S + 1}, "queue_timeout"),
        ({"spec": Script("")}, "spec.script"),
    ],
)
def test_a_bad_request_is_named(change: dict[str, Any], field: str) -> None:
    good = RunRequest(TRUE, selector="os=linux", any=limits.NODES_PER_RUN, name="nightly")
    check_request(good)
    with pytest.raises(FleetwireError) as raised:
        check_request(msgspec.structs.replace(good, **change))
    assert raised.value.field == field


@pytest.mark.limit("queue_timeout_s")
def test_a_run_waits_at_most_thirty_days() -> None:
    check_request(RunRequest(TRUE, selector="a", queue_timeout=limits.QUEUE_TIMEOUT_S))
    with pytest.raises(BadSpec, match="queue_timeout"):
        check_request(RunRequest(TRUE, selector="a", queue_timeout=limits.QUEUE_TIMEOUT_S + 1))


@pytest.mark.limit("nodes_per_run")
def test_a_request_names_at_most_10000_nodes() -> None:
    check_request(RunRequest(TRUE, nodes=("n",) * limits.NODES_PER_RUN))
    with pytest.raises(LimitExceeded):
        check_request(RunRequest(TRUE, nodes=("n",) * (limits.NODES_PER_RUN + 1)))


@pytest.mark.limit("name_chars")
def test_a_run_name_has_at_most_128_characters() -> None:
    check_request(RunRequest(TRUE, selector="a", name="n" * limits.NAME_CHARS))
    with pytest.raises(BadSpec):
        check_request(RunRequest(TRUE, selector="a", name="n" * (limits.NAME_CHARS + 1)))


def test_names_and_selectors_are_text() -> None:
    for wrong in (
        RunRequest(Script("true"), selector="a=\udcff"),
        RunRequest(Script("true"), nodes=("a", "\udcff")),
    ):
        with pytest.raises(BadSpec, match="is not valid Unicode"):
            check_request(wrong)


@pytest.mark.limit("memory_least_bytes")
@pytest.mark.limit("memory_bytes")
@pytest.mark.limit("cpus_least")
@pytest.mark.limit("cpus")
@pytest.mark.limit("processes")
@pytest.mark.limit("files_least")
@pytest.mark.limit("files")
@pytest.mark.limit("file_bytes")
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("memory", limits.MEMORY_LEAST_BYTES, limits.MEMORY_BYTES),
        ("cpus", limits.CPUS_LEAST, limits.CPUS),
        ("cpu_time", 1, int(limits.TIMEOUT_S)),
        ("processes", 1, limits.PROCESSES),
        ("files", limits.FILES_LEAST, limits.FILES),
        ("file_size", 0, limits.FILE_BYTES),
        ("core", 0, limits.FILE_BYTES),
    ],
)
def test_resources_at_their_limits_and_one_above(name: str, least: float, most: float) -> None:
    step = 0.001 if name == "cpus" else 1
    for value in (least, most):
        check(Script("true", resources=msgspec.convert({name: value}, Resources)))
    for value in (least - step, most + step):
        with pytest.raises(BadSpec, match=name):
            check(Script("true", resources=msgspec.convert({name: value}, Resources)))


@pytest.mark.limit("run_as_chars")
def test_user_names_at_their_limit_and_one_above() -> None:
    check(Script("true", run_as="u" * limits.RUN_AS_CHARS))
    for bad in ("u" * (limits.RUN_AS_CHARS + 1), "0", "-u", "a b", "../a", "root\n", "a:b"):
        with pytest.raises(BadSpec, match="not the name of a user"):
            check(Script("true", run_as=bad))


def test_what_is_not_asked_stands_in_no_spec_and_changes_no_hash() -> None:
    plain = Script("true")
    assert Script("true", run_as="", resources=Resources()) == plain
    assert b"run_as" not in msgspec.json.encode(plain)
    assert b"resources" not in msgspec.json.encode(plain)
    assert not is_confined(plain)


def test_the_hash_that_is_signed_covers_user_and_limits() -> None:
    specs = [
        Script("true"),
        Script("true", run_as="nobody"),
        Script("true", resources=Resources(memory=1 << 30)),
        Script("true", resources=Resources(memory=1 << 31)),
    ]
    assert len({spec_sha256(spec) for spec in specs}) == len(specs)
    again = msgspec.json.decode(msgspec.json.encode(specs[2]), type=Script)
    assert spec_sha256(again) == spec_sha256(specs[2])
