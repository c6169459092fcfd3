from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fleetwire.core.access import allowed
from fleetwire.core.envelopes import (
    Envelope,
    HelloClaim,
    hello_bytes,
    objection,
    order_bytes,
    spec_sha256,
)
from fleetwire.core.specs import Ping, Script, Scripted, Spec, Step

SPEC = Script("true", env={"B": "2", "A": "1"})
ENVELOPE = Envelope(
    cluster="c",
    node="n",
    run="r",
    attempt="a",
    epoch=7,
    kind="script",
    spec_sha256=spec_sha256(SPEC),
    issued_at=1,
    expires_at=100,
)
CLAIM = HelloClaim("c", "n", "s" * 32, "a" * 32, "host:1", "i", "b", 3, 1)


def test_canonical_bytes_are_frozen() -> None:
    assert order_bytes(ENVELOPE) == (
        b"fleetwire order 1\n"
        b'{"attempt":"a","cluster":"c","epoch":7,"expires_at":100,"issued_at":1,'
        b'"kind":"script","node":"n","run":"r",'
        b'"spec_sha256":"%s"}' % ENVELOPE.spec_sha256.encode()
    )
    assert hello_bytes(CLAIM) == (
        b"fleetwire hello 1\n"
        b'{"agent_nonce":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","boot_id":"b","cluster":"c",'
        b'"generation":3,"incarnation":"i","node":"n","server_name":"host:1",'
        b'"server_nonce":"ssssssssssssssssssssssssssssssss","version":1}'
    )


def test_the_order_of_an_environment_does_not_matter() -> None:
    assert spec_sha256(SPEC) == spec_sha256(Script("true", env={"A": "1", "B": "2"}))
    assert spec_sha256(SPEC) != spec_sha256(Script("true", env={"A": "2", "B": "1"}))


@pytest.mark.parametrize(
    "spec",
    [
        Script("true"),
        Script("true", timeout=5, grace=1),
        Ping(timeout=3),
        Scripted((Step("sleep", seconds=1),), timeout=9),
    ],
)
def test_a_spec_has_one_hash_wherever_it_was_made(spec: Spec) -> None:
    decoded = msgspec.json.decode(msgspec.json.encode(spec), type=Spec)
    assert spec_sha256(decoded) == spec_sha256(spec)


@pytest.mark.parametrize("field", [f.name for f in msgspec.structs.fields(Envelope)])
def test_every_field_of_an_envelope_is_signed(field: str) -> None:
    value = getattr(ENVELOPE, field)
    other = value + 1 if isinstance(value, int) else value + "x"
    assert order_bytes(msgspec.structs.replace(ENVELOPE, **{field: other})) != order_bytes(ENVELOPE)


@pytest.mark.parametrize("field", [f.name for f in msgspec.structs.fields(HelloClaim)])
def test_every_field_of_a_hello_is_signed(field: str) -> None:
    value = getattr(CLAIM, field)
    other = value + 1 if isinstance(value, int) else value + "x"
    assert hello_bytes(msgspec.structs.replace(CLAIM, **{field: other})) != hello_bytes(CLAIM)


HERE: dict[str, Any] = {"cluster": "c", "node": "n", "attempt": "a", "epoch": 7, "now": 100}


def test_a_fitting_envelope_has_no_objection() -> None:
    assert objection(ENVELOPE, SPEC, **HERE) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cluster": "d"}, "another cluster"),
        ({"node": "m"}, "another node"),
        ({"attempt": "b"}, "another attempt"),
        ({"epoch": 8}, "another epoch"),
        ({"now": 101}, "expired"),
    ],
)
def test_a_foreign_or_expired_envelope_is_refused(change: dict[str, Any], said: str) -> None:
    assert said in str(objection(ENVELOPE, SPEC, **(HERE | change)))


def test_another_spec_is_refused() -> None:
    assert objection(ENVELOPE, Script("rm"), **HERE) == "the order is signed for another spec"


def test_access_is_denied_by_default() -> None:
    assert allowed("admin", "run")
    assert not allowed("admin", "fly")
    assert not allowed("nobody", "read")
