"""Secrets on a node: from the sealed order to the task, and not one byte beside it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.agent import keys
from fleetwire.agent.vault import Vault
from fleetwire.core.errors import FleetwireError
from fleetwire.core.happenings import Declined, Exited, Lost, NeverStarted
from fleetwire.core.leases import next_epoch
from fleetwire.core.secrets import (
    Content,
    Given,
    SecretUse,
    is_maskable,
    read_content,
    write_content,
)
from fleetwire.core.specs import Script
from fleetwire.shim import spool
from fleetwire.shim.delivery import Secret
from fleetwire.shim.variants import patterns
from fleetwire.testing.fake_server import FakeAttempt, new_id
from fleetwire.testing.real_agent import RealAgent as Lab

Play = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]
CANARY = b"canary-9b1d-77-hush-hush"
TOKEN = SecretUse("token")
PASSWORD = SecretUse("token", "env", "PASSWORD")


def script(text: str, *uses: SecretUse, **more: Any) -> Script:
    return Script(text, secrets=uses, **more)


def on_disk(root: Path) -> list[Path]:
    """Files below `root` that hold the canary, in clear or as the delivery holds it."""
    found = []
    for path in root.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and b"canary-9b1d" in path.read_bytes():
                found.append(path)
    return found


def in_process_lists() -> list[int]:
    """Processes that show the canary in their arguments or environment."""
    found = []
    for process in psutil.process_iter():
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                if b"canary-9b1d" in Path(f"/proc/{process.pid}/{name}").read_bytes():
                    found.append(process.pid)
    return found


def vault(lab: Lab) -> Path:
    return Path(Vault(str(lab.state)).path)


@pytest.mark.slow
def test_a_task_gets_its_secret_and_nothing_else_does(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up("--log-level", "debug")
        go = lab.root / "go"
        attempt = lab.server.want(
            lab.node,
            script(
                'wc -c < "$FLEETWIRE_SECRETS/token"; cat "$FLEETWIRE_SECRETS/token"; echo\n'
                f"echo ready; until [ -e {go} ]; do sleep 0.05; done\n",
                TOKEN,
            ),
            secrets={"token": CANARY},
        )
        await lab.server.wait(lambda: b"ready" in attempt.log)
        assert in_process_lists() == []
        assert on_disk(lab.root) == []
        assert [path.name for path in vault(lab).rglob("*") if path.is_file()] == ["token"]
        # A shim of an older spawner, which knows no secrets, finds nothing to execute.
        order = spool.read_record(str(lab.spool(attempt.id)), "order") or {}
        assert {"argv", "secrets"}.isdisjoint(order)
        assert order["strict"]["secrets"] == str(vault(lab) / attempt.id)
        go.touch()
        await lab.server.wait(lambda: attempt.exit)
        assert bytes(attempt.log) == f"{len(CANARY)}\n***\nready\n".encode()
        assert on_disk(lab.root) == []
        assert list(vault(lab).iterdir()) == []
        assert "canary" not in lab.stderr()

    play(scenario)


@pytest.mark.slow
def test_a_secret_as_environment_is_in_the_tasks_own_and_in_no_other(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        attempt = lab.server.want(
            lab.node,
            script('echo "$PASSWORD"; echo $$; exec sleep 60', PASSWORD),
            secrets={"token": CANARY},
        )
        await lab.server.wait(lambda: attempt.log.count(b"\n") == 2)
        task = int(attempt.log.split(b"\n")[1])
        assert in_process_lists() == [task]
        assert on_disk(lab.root) == []
        lab.server.stop_attempt(attempt, grace=0)
        await lab.server.wait(lambda: attempt.exit)

    play(scenario)


@pytest.mark.slow
def test_secrets_of_another_order_are_refused_and_nothing_starts(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        ran = lab.root / "ran"
        spec = script(f"touch {ran}", TOKEN)
        own = lab.node.sealing_key
        # Sealed for another node.
        lab.node.sealing_key = keys.make_sealing_key().public
        foreign = lab.server.want(lab.node, spec, secrets={"token": CANARY})
        lab.node.sealing_key = own
        await lab.server.wait(lambda: foreign.happened(Declined))
        assert "sealed for another key" in foreign.happened(Declined)[0].reason
        # Taken away or exchanged on the way: the signature is of others.
        for number, (said, sealed) in enumerate(
            {"other secrets": b"", "for other secrets": b"x" * 80}.items(), 1000
        ):
            attempt = FakeAttempt(id=new_id(), node=lab.node.id, epoch=next_epoch(1, number))
            lab.server.attempts[attempt.id] = attempt
            good = lab.server.seal(lab.node, attempt, spec, {"token": CANARY})
            order = lab.server.sign(lab.node, attempt, spec, sealed=good)
            attempt.order = msgspec.structs.replace(order, secrets=sealed)
            lab.server.send_desired(lab.node, attempt)
            await lab.server.wait(lambda attempt=attempt: attempt.happened(Declined))
            assert said in attempt.happened(Declined)[0].reason
        assert not ran.exists()

    play(scenario)


def test_what_was_sealed_is_for_one_start_and_what_the_spec_names() -> None:
    content = Content("a" * 36, 7, (Given("token", "file", "token", CANARY),))
    data = write_content(content)
    assert read_content(data, [TOKEN], attempt="a" * 36, epoch=7) == content
    for uses, attempt, epoch in (
        ([TOKEN], "b" * 36, 7),
        ([TOKEN], "a" * 36, 8),
        ([PASSWORD], "a" * 36, 7),
        ([], "a" * 36, 7),
    ):
        with pytest.raises(FleetwireError) as caught:
            read_content(data, uses, attempt=attempt, epoch=epoch)
        assert "canary" not in str(caught.value)
    with pytest.raises(FleetwireError):
        read_content(b"{}", [TOKEN], attempt="a" * 36, epoch=7)


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["agent", "shim", "all"])
def test_kill_9_at_any_moment_leaves_no_secret(play: Play, killed: str) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        attempt = lab.server.want(
            lab.node,
            script("echo ready; exec sleep 60", TOKEN, PASSWORD),
            secrets={"token": CANARY},
        )
        await lab.server.wait(lambda: b"ready" in attempt.log)
        record = lab.spool(attempt.id) / "started"
        await lab.eventually(record.exists)
        started = msgspec.json.decode(record.read_bytes())
        if killed in {"agent", "all"}:
            lab.kill()
        if killed == "all":
            os.kill(lab.spawner_pid(), signal.SIGKILL)
        if killed in {"shim", "all"}:
            os.kill(started["shim"], signal.SIGKILL)
        if killed in {"agent", "all"}:
            lab.launch()
            await lab.connected(2)
        if killed == "agent":
            assert (vault(lab) / attempt.id / "token").read_bytes() == CANARY
            lab.server.stop_attempt(attempt, grace=0)
        await lab.server.wait(lambda: attempt.happened(Lost) or attempt.happened(Exited))
        assert list(vault(lab).iterdir()) == []
        assert on_disk(lab.root) == []

    play(scenario)


@pytest.mark.slow
def test_a_stop_before_the_start_takes_the_delivery_back(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        many = []
        for number in range(12):
            attempt = lab.server.want(
                lab.node, script("exec sleep 60", TOKEN), secrets={"token": CANARY}
            )
            many.append(attempt)
            if number % 2:
                lab.server.stop_attempt(attempt, grace=0)
        for attempt in many:
            lab.server.stop_attempt(attempt, grace=0)
        await lab.server.wait(lambda: all(attempt.final for attempt in many))
        assert all(
            attempt.happened(Exited) or attempt.happened(NeverStarted) or attempt.happened(Declined)
            for attempt in many
        )
        await lab.eventually(lambda: not list(vault(lab).iterdir()))

    play(scenario)


def test_an_agent_that_starts_removes_what_belongs_to_nothing_alive(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    state = tmp_path / "state"
    state.mkdir()
    before = Vault(str(state), [str(memory)])
    assert before.is_in_memory
    assert not list(memory.iterdir())  # to ask makes nothing
    before.deliver("dead", [Secret("t", "file", "t", CANARY)])
    before.deliver("alive", [Secret("t", "file", "t", CANARY)])
    after = Vault(str(state), [str(memory)])
    after.sweep(lambda attempt: attempt == "alive")
    assert [path.name for path in Path(after.path).iterdir()] == ["alive"]


def test_a_folder_that_somebody_else_put_there_is_not_used(tmp_path: Path) -> None:
    memory, state = tmp_path / "memory", tmp_path / "state"
    memory.mkdir()
    state.mkdir()
    ours = Path(Vault(str(state), [str(memory)]).path)
    ours.rmdir()
    ours.mkdir()
    ours.chmod(0o755)  # anybody may look in
    assert Vault(str(state), [str(memory)]).path == str(state / "secrets")
    assert not Vault(str(state), [str(memory)]).is_in_memory
    ours.rmdir()
    ours.symlink_to(tmp_path)
    assert Vault(str(state), [str(memory)]).path == str(state / "secrets")
    assert (state / "secrets").stat().st_mode & 0o777 == 0o700


@given(st.binary(max_size=80) | st.lists(st.binary(max_size=12)).map(b"\n".join))
def test_server_and_shim_agree_on_what_can_be_masked(value: bytes) -> None:
    assert not is_maskable(value) or patterns([value])


def test_the_sealing_key_unseals_what_was_sealed_to_it() -> None:
    from nacl import bindings  # noqa: PLC0415 (as the agent does)

    pair, other = keys.make_sealing_key(), keys.make_sealing_key()
    sealed = bindings.crypto_box_seal(CANARY, pair.public)
    assert keys.unseal(pair, sealed) == CANARY
    assert keys.unseal(other, sealed) is None
    assert keys.unseal(pair, b"") is None
