"""The policy's file: read with its line numbers, trusted or not, and what a node does by it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.agent import policy_text
from fleetwire.agent.drivers import Unable
from fleetwire.agent.policy import LocalPolicy
from fleetwire.agent.policy_text import BadPolicy
from fleetwire.core import limits
from fleetwire.core.happenings import Declined, Started
from fleetwire.core.policy import Ask, Policy
from fleetwire.core.secrets import SecretUse
from fleetwire.core.specs import Script
from fleetwire.testing.real_agent import RealAgent as Lab

EXEC = Ask(actions=("exec",), user=("root", "0"), timeout=1.0)
Play = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]


def write(path: Path, text: str, mode: int = 0o644) -> LocalPolicy:
    path.write_text(text)
    path.chmod(mode)
    return LocalPolicy(str(path))


def said(local: LocalPolicy, ask: Ask = EXEC) -> str:
    """The refusal, or "" where there is none."""
    try:
        local.check(ask)
    except Unable as error:
        return str(error)
    return ""


def test_every_key_with_its_line() -> None:
    policy = policy_text.read(
        b"exec: allow\ncontainers: deny\nusers:\n  allow:\n  - a\n  - b\n  deny: [root]\n"
        b"max_concurrent: 4\nmax_output: 100M\nmax_timeout: 2h\n"
    )
    assert policy.actions["containers"].line == 2
    assert not policy.actions["containers"].allowed
    users = policy.lists["users"]
    assert [(one.text, one.line) for one in users.allow or ()] == [("a", 5), ("b", 6)]
    assert [(one.text, one.line) for one in users.deny] == [("root", 7)]
    assert policy.max_concurrent is not None
    assert (policy.max_concurrent.value, policy.max_concurrent.line) == (4, 8)
    assert policy.max_output is not None
    assert policy.max_output.value == 100 << 20
    assert policy.max_timeout is not None
    assert policy.max_timeout.value == 7200


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("exec: allow\nexce: deny\n", 2, "Did you mean exec"),
        ("exec: perhaps\n", 1, "allow or deny"),
        ("exec: allow\nexec: deny\n", 2, "twice"),
        ("users: [root]\n", 1, "is needed here"),
        ("users:\n  permit: [root]\n", 2, "Known are allow, deny"),
        ("users:\n  allow: root\n", 2, "a list is needed"),
        ("users:\n  allow: [[root]]\n", 2, "a name is needed"),
        ("paths:\n  allow: [/srv/../etc]\n", 2, "no plain absolute path"),
        ("environment:\n  allow: [A*B]\n", 2, "before its end"),
        ("max_concurrent: 0\n", 1, "max_concurrent"),
        ("max_concurrent: 1K\n", 1, "max_concurrent"),
        ("max_timeout: -1\n", 1, "max_timeout"),
        ("a: &x [1]\nb: *x\n", 1, "aliases"),
        ("exec: !!python/object:os.system x\n", 1, "tags"),
        ("- exec\n", 1, "a mapping"),
        ("exec: [\n", 2, ""),
        ("", 0, "it is empty"),
        ("# nothing\n", 0, "it is empty"),
        ("exec: \x07\n", 0, "character"),
        ("{exec: " + "[" * 100, 1, "too deep"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(BadPolicy) as caught:
        policy_text.read(text.encode())
    assert caught.value.line == line, caught.value
    assert words in str(caught.value)


@pytest.mark.limit("policy_bytes")
def test_the_size_limit_and_one_above() -> None:
    start = b"exec: allow\n#"
    fits = start + b"x" * (limits.POLICY_BYTES - len(start))
    assert policy_text.read(fits).actions["exec"].allowed
    with pytest.raises(BadPolicy, match="more than 65536"):
        policy_text.read(fits + b"x")


@pytest.mark.limit("policy_depth")
def test_the_depth_limit_and_one_above() -> None:
    for depth, why in (
        (limits.POLICY_DEPTH, "a name is needed"),
        (limits.POLICY_DEPTH + 1, "deep"),
    ):
        nested = "[" * (depth - 2) + "]" * (depth - 2)
        with pytest.raises(BadPolicy, match=why):
            policy_text.read(f"users: {{deny: {nested}}}".encode())


@pytest.mark.limit("policy_output_bytes")
def test_the_output_limit_and_one_above() -> None:
    policy = policy_text.read(b"max_output: 1024T\n")
    assert policy.max_output is not None
    assert policy.max_output.value == limits.POLICY_OUTPUT_BYTES
    with pytest.raises(BadPolicy, match="max_output"):
        policy_text.read(f"max_output: {limits.POLICY_OUTPUT_BYTES + 1}\n".encode())


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_policy_or_a_refusal(data: bytes) -> None:
    try:
        found = policy_text.read(data)
    except BadPolicy:
        return
    assert isinstance(found, Policy)


def test_a_refusal_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    local = write(path, "# mine\nexec: deny\n")
    assert said(local).startswith(f"refused by {path} line 2: exec is denied.")


def test_it_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    local = write(path, "exec: deny\n")
    assert local.standing.state == "in force"  # before anybody has asked
    assert said(local)
    path.write_text("exec: allow\n")
    assert not said(local)
    path.write_text("exec: deny # as it was\n")
    assert said(local)


def test_an_absent_file_allows_and_a_named_one_that_is_absent_denies(tmp_path: Path) -> None:
    local = LocalPolicy(str(tmp_path / "none.yaml"))
    assert "is not there" in said(local)
    assert local.facts()["state"] == "refused"
    local._named = False  # as the default path is
    local._mark = None
    assert not said(local)


@pytest.mark.parametrize("text", ["exec: [", "exce: deny\n", ""])
def test_a_file_that_cannot_be_understood_denies_everything(tmp_path: Path, text: str) -> None:
    local = write(tmp_path / "policy.yaml", text)
    assert "everything is denied" in said(local)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_may_write_denies_everything(tmp_path: Path, mode: int) -> None:
    local = write(tmp_path / "policy.yaml", "exec: allow\n", mode)
    assert "can be written by others" in said(local)


def test_a_folder_that_others_may_write_denies_everything(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    local = write(folder / "policy.yaml", "exec: allow\n")
    assert not said(local)
    folder.chmod(0o777)
    assert "can be written by others" in said(local)


def test_symbolic_links_deny_everything(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    write(real / "policy.yaml", "exec: allow\n")
    (tmp_path / "link.yaml").symlink_to(real / "policy.yaml")
    (tmp_path / "folder").symlink_to(real)
    for path in (tmp_path / "link.yaml", tmp_path / "folder/policy.yaml"):
        assert "symbolic link" in said(LocalPolicy(str(path)))


def test_no_regular_file_denies_everything_and_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "policy.yaml", 0o600)
    assert "no regular file" in said(LocalPolicy(str(tmp_path / "policy.yaml")))


def test_another_users_file_denies_everything(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("not run: only root can give a file away")
    local = write(tmp_path / "policy.yaml", "exec: allow\n")
    os.chown(tmp_path / "policy.yaml", 65534, 65534)
    assert "is owned by user 65534" in said(local)


def test_the_inventory_shows_it(tmp_path: Path) -> None:
    local = write(
        tmp_path / "policy.yaml", "users: {deny: [root]}\nmax_concurrent: 2\nexec: allow\n"
    )
    facts = local.facts()
    assert facts["state"] == "in force"
    assert facts["users"] == {"deny": ["root"]}
    assert local.capacity(5) == 2
    assert local.capacity(1) == 1


@pytest.mark.slow
def test_a_node_refuses_what_its_policy_denies_and_takes_it_once_allowed(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        path = lab.root / "policy.yaml"
        path.write_text("environment:\n  deny: [LD_*]\n")
        path.chmod(0o644)
        await lab.up("--policy", str(path))
        secret = SecretUse("library", "env", "LD_PRELOAD")
        for denied in (
            lab.server.want(lab.node, Script("echo hi", env={"LD_PRELOAD": "/tmp/x.so"})),
            lab.server.want(
                lab.node, Script("echo hi", secrets=(secret,)), secrets={"library": b"/tmp/x.so"}
            ),
        ):
            await lab.server.wait(lambda denied=denied: denied.happened(Declined))
            reason = denied.happened(Declined)[0]
            assert isinstance(reason, Declined)
            assert reason.final
            assert reason.reason.startswith(
                f"refused by {path} line 2: environment name 'LD_PRELOAD'"
            )
        await asyncio.to_thread(path.write_text, "max_output: 1000\n")
        much = lab.server.want(lab.node, Script("while :; do echo much; done", env={"A": "b"}))
        await lab.server.wait(lambda: much.sealed)
        assert much.exit is not None
        assert much.exit.cause == "quota"
        assert "1000 bytes that the node's policy allows" in (much.exit.error or "")
        assert await lab.leave() == 0

    play(scenario)


@pytest.mark.slow
def test_its_places_hold_from_the_first_level_on_and_change_with_it(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        path = lab.root / "policy.yaml"
        path.write_text("max_concurrent: 1\n")
        path.chmod(0o644)
        await lab.server.start()
        sleep = Script("exec sleep 60")
        first = [lab.server.want(lab.node, sleep) for _ in range(3)]
        lab.launch("--policy", str(path))
        await lab.server.wait(
            lambda: all(one.happened(Started) or one.happened(Declined) for one in first)
        )
        assert sum(bool(one.happened(Started)) for one in first) == 1
        await asyncio.to_thread(path.write_text, "max_concurrent: 2\n")
        another = lab.server.want(lab.node, sleep)
        await lab.server.wait(lambda: another.happened(Started) or another.happened(Declined))
        assert another.happened(Started)
        assert await lab.leave() == 0

    play(scenario)
