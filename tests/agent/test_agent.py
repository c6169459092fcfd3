"""The main job: a script runs to its exact bytes and its exit code, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import random
import resource
import shutil
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from nacl import bindings

from fleetwire.core import limits
from fleetwire.core.absences import Ending
from fleetwire.core.desired import Wanted
from fleetwire.core.envelopes import NewKey, SignedKey, key_bytes
from fleetwire.core.happenings import Declined, Exited, Lost, NeverStarted, Started
from fleetwire.core.specs import Ping, Script, Scripted, Step
from fleetwire.protocol import codec, messages
from fleetwire.testing.fake_server import CLUSTER, KEY_ID, FakeAttempt, new_id
from fleetwire.testing.real_agent import RealAgent as Lab

Play = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]
pytestmark = pytest.mark.slow


def ledger(lab: Lab) -> Path:
    return lab.root / "ledger"


def starts(lab: Lab) -> list[str]:
    return ledger(lab).read_text().splitlines() if ledger(lab).exists() else []


def ledger_line(lab: Lab) -> str:
    return f'echo "$FLEETWIRE_ATTEMPT" >> {ledger(lab)}'


def counting(lab: Lab, count: int = 30, seconds: float = 0.05) -> Script:
    return Script(
        f'echo "$FLEETWIRE_ATTEMPT" >> {ledger(lab)}\n'
        f"for i in $(seq 1 {count}); do echo line $i; sleep {seconds}; done\nexit 7\n"
    )


def lines(count: int) -> bytes:
    return b"".join(b"line %d\n" % i for i in range(1, count + 1))


def test_script_to_the_exact_bytes_and_exit_code(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        attempt = lab.server.want(
            lab.node,
            Script(
                'echo out; echo err >&2; printf "%s|" "$@" $GREETING; pwd; exit 3',
                args=("a b", "c"),
                env={"GREETING": "hi"},
            ),
        )
        await lab.server.wait(lambda: attempt.sealed)
        task = lab.task(attempt.id)
        stdout = f"out\na b|c|hi|{task}\n".encode()
        assert sorted(bytes(attempt.log)) == sorted(stdout + b"err\n")
        assert attempt.streams == {1: len(stdout), 2: 4}
        assert [type(h) for _, h in attempt.story] == [Started, Exited]
        assert attempt.exit is not None
        assert (attempt.exit.cause, attempt.exit.exit_code, attempt.exit.signal) == (
            "exited",
            3,
            None,
        )
        assert attempt.exit.sha256 == hashlib.sha256(attempt.log).hexdigest()
        assert await lab.leave() == 0

    play(scenario)


def test_environment_is_built_from_nothing(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up(env={"SECRET": "of the agent", "FLEETWIRE_ENROLMENT_TOKEN": "t"})
        attempt = lab.server.want(lab.node, Script("env", env={"MINE": "1"}))
        python = lab.server.want(
            lab.node, Script("import os; print(os.environ['PYTHONUNBUFFERED'])", shell="python")
        )
        await lab.server.wait(lambda: attempt.sealed and python.sealed)
        environment = dict(line.split("=", 1) for line in attempt.log.decode().splitlines())
        assert set(environment) - {"_", "SHLVL", "PWD", "OLDPWD"} == {
            *("PATH", "HOME", "USER", "LANG", "MINE"),
            *("FLEETWIRE_ATTEMPT", "FLEETWIRE_RUN", "FLEETWIRE_NODE"),
        }
        assert environment["FLEETWIRE_ATTEMPT"] == attempt.id
        assert environment["FLEETWIRE_NODE"] == "lab"
        assert bytes(python.log) == b"1\n"

    play(scenario)


def test_ping_and_scripted_are_real_processes(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        ping = lab.server.want(lab.node, Ping())
        scripted = lab.server.want(
            lab.node,
            Scripted(
                (
                    Step("ledger", text=str(ledger(lab))),
                    Step("print", text="a", count=3),
                    Step("print", text="b", stream=2),
                    Step("bytes", size=200_000),
                    Step("exit", code=9),
                )
            ),
        )
        await lab.server.wait(lambda: ping.sealed and scripted.sealed)
        assert bytes(ping.log) == b"pong\n"
        assert ping.exit is not None
        assert ping.exit.exit_code == 0
        assert scripted.streams == {1: 6 + 200_000, 2: 2}
        assert scripted.exit is not None
        assert scripted.exit.exit_code == 9
        assert len(starts(lab)) == 1

    play(scenario)


def test_terminal_and_unable(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        tty = lab.server.want(lab.node, Script("test -t 1 && echo $TERM", tty=True))
        none = lab.server.want(lab.node, Script("Get-Date", shell="powershell"))
        await lab.server.wait(lambda: tty.sealed and none.final)
        assert bytes(tty.log) == b"xterm-256color\r\n"
        (declined,) = none.happened(Declined)
        assert isinstance(declined, Declined)
        assert declined.final
        assert "powershell is not installed" in declined.reason

    play(scenario)


def test_megabytes_through_a_small_credit(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        lab.server.manners.credit = 300 * limits.KIB
        await lab.up()
        size = 20 * limits.MIB + 13
        attempt = lab.server.want(lab.node, Scripted((Step("bytes", size=size),)))
        small = lab.server.want(lab.node, Script("echo small"))
        await lab.server.wait(lambda: attempt.sealed and small.sealed)
        expected = b"".join(b"%08d" % number for number in range(size // 8 + 1))[:size]
        assert attempt.log == expected
        # What the server has is trimmed, but for the newest piece.
        pieces = sorted(path.name for path in lab.spool(attempt.id).glob("output.*"))
        assert pieces[0] != "output.00000000000000000000"

    play(scenario)


def test_a_server_that_cannot_decompress(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        lab.server.manners.features = ("from-the-future",)
        await lab.up()
        size = 3 * limits.MIB
        attempt = lab.server.want(lab.node, Scripted((Step("bytes", size=size),)))
        await lab.server.wait(lambda: attempt.sealed)
        assert attempt.log == b"".join(b"%08d" % number for number in range(size // 8))
        assert lab.server.problems == []

    play(scenario)


def test_credit_smaller_than_a_frame(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        lab.server.manners.credit = 1000
        await lab.up()
        attempt = lab.server.want(lab.node, Scripted((Step("bytes", size=20_000),)))
        await lab.server.wait(lambda: attempt.sealed)
        assert attempt.length == 20_000

    play(scenario)


def test_server_that_acknowledges_nothing_holds_back_only_bytes(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        lab.server.manners.acknowledge = False
        lab.server.manners.credit = 512 * limits.KIB
        await lab.up()
        attempt = lab.server.want(lab.node, Scripted((Step("bytes", size=2 * limits.MIB),)))
        # The end is told although its log cannot be sent.
        await lab.server.wait(lambda: attempt.exit)
        assert 0 < attempt.length <= 512 * limits.KIB
        lab.server.manners.acknowledge = True
        await lab.server.drop(lab.node)
        await lab.server.wait(lambda: attempt.sealed)
        assert attempt.length == 2 * limits.MIB

    play(scenario)


def test_agent_killed_in_the_middle(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        attempt = lab.server.want(lab.node, counting(lab))
        await lab.server.wait(lambda: attempt.length > 20)
        lab.kill()
        lab.launch()
        await lab.server.wait(lambda: attempt.sealed)
        assert bytes(attempt.log) == lines(30)
        assert attempt.exit is not None
        assert attempt.exit.exit_code == 7
        assert starts(lab) == [attempt.id]

    play(scenario)


def test_task_ends_while_no_agent_lives(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        attempt = lab.server.want(lab.node, counting(lab, 10, 0.02))
        await lab.server.wait(lambda: attempt.happened(Started))
        lab.kill()
        await lab.eventually((lab.spool(attempt.id) / "exit").exists)
        lab.launch()
        await lab.server.wait(lambda: attempt.sealed)
        assert bytes(attempt.log) == lines(10)
        assert attempt.exit is not None
        assert attempt.exit.exit_code == 7
        assert starts(lab) == [attempt.id]

    play(scenario)


def test_agent_leaves_in_order_and_comes_back(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        attempt = lab.server.want(lab.node, counting(lab))
        await lab.server.wait(lambda: attempt.length > 20)
        assert await lab.leave() == 0
        lab.launch()
        await lab.server.wait(lambda: attempt.sealed)
        assert bytes(attempt.log) == lines(30)
        assert starts(lab) == [attempt.id]

    play(scenario)


def test_server_restarts_in_the_middle(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        attempt = lab.server.want(lab.node, counting(lab))
        await lab.server.wait(lambda: attempt.length > 20)
        await lab.server.stop()
        await lab.server.start()
        await lab.server.wait(lambda: attempt.sealed)
        assert bytes(attempt.log) == lines(30)
        assert starts(lab) == [attempt.id]

    play(scenario)


def test_spawner_killed_in_the_middle(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        attempt = lab.server.want(lab.node, counting(lab))
        await lab.server.wait(lambda: attempt.length > 20)
        first = lab.spawner_pid()
        os.kill(first, signal.SIGKILL)
        other = lab.server.want(lab.node, Script("echo other"))
        await lab.server.wait(lambda: attempt.sealed and other.sealed)
        assert bytes(attempt.log) == lines(30)
        assert bytes(other.log) == b"other\n"
        assert lab.spawner_pid() != first
        assert starts(lab) == [attempt.id]

    play(scenario)


def test_spawner_and_shim_killed(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        attempt = lab.server.want(lab.node, Script("echo before; sleep 60"))
        await lab.server.wait(lambda: attempt.length)
        (shim,) = psutil.Process(lab.spawner_pid()).children()
        os.kill(lab.spawner_pid(), signal.SIGKILL)
        shim.kill()
        await lab.server.wait(lambda: attempt.sealed)
        (lost,) = attempt.happened(Lost)
        assert isinstance(lost, Lost)
        assert lost.reason == "shim died"
        assert bytes(attempt.log) == b"before\n"

    play(scenario)


def test_log_is_sent_again_from_the_start_when_the_server_lost_it(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        lab.server.manners.seal = False
        await lab.up()
        attempt = lab.server.want(lab.node, Script("echo one; echo two"))
        await lab.server.wait(lambda: attempt.exit and attempt.length == 8)
        lab.server.manners.seal = True
        lab.server.reset_log(attempt)
        await lab.server.wait(lambda: attempt.sealed)
        assert bytes(attempt.log) == b"one\ntwo\n"

    play(scenario)


def test_sealed_folders_go_and_living_ones_stay(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up(env={"FLEETWIRE_AGENT_KEEP_SEALED_BYTES": "1"})
        living = lab.server.want(lab.node, Script("sleep 60"))
        await lab.server.wait(lambda: living.happened(Started))
        done: list[FakeAttempt] = []
        for _ in range(3):
            done.append(lab.server.want(lab.node, Script("mkdir d; chmod 0 d; echo x > y")))
            await lab.server.wait(lambda: done[-1].sealed)
        await lab.eventually(lambda: not any(lab.spool(a.id).exists() for a in done))
        assert not any(lab.task(a.id).exists() for a in done)
        lab.server.forget(living)
        other = lab.server.want(lab.node, Script("true"))
        await lab.server.wait(lambda: other.sealed)
        assert lab.spool(living.id).exists()
        lab.server.stop_attempt(living, grace=0)
        await lab.server.wait(lambda: living.exit)

    play(scenario)


def test_what_is_wanted_again_waits_until_its_old_folder_is_gone(play: Play) -> None:
    """Else what began meanwhile would be deleted with that, log and all (P5)."""
    many = "i=0; while [ $i -lt 60 ]; do i=$((i+1)); mkdir -p $i; (cd $i; touch $(seq 1 200)); done"

    async def scenario(lab: Lab) -> None:
        lab.server.manners.seal = False
        await lab.up()
        attempt = lab.server.want(lab.node, Script(many))
        await lab.server.wait(lambda: attempt.exit)
        lab.server.forget(attempt)
        lab.server.reset_log(attempt)
        attempt.story.clear()
        lab.server.want(lab.node, Script(f"{ledger_line(lab)}; echo again"), attempt=attempt.id)
        lab.server.manners.seal = True
        await lab.server.wait(lambda: attempt.sealed)
        assert bytes(attempt.log) == b"again\n"
        assert starts(lab) == [attempt.id]

    play(scenario)


def test_sealed_folders_of_an_earlier_agent_are_cleaned(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        attempt = lab.server.want(lab.node, Script("true"))
        await lab.server.wait(lambda: attempt.sealed)
        await lab.eventually((lab.spool(attempt.id) / "sealed").exists)
        lab.kill()
        lab.launch(env={"FLEETWIRE_AGENT_KEEP_SEALED_S": "0"})
        await lab.eventually(lambda: not lab.spool(attempt.id).exists())

    play(scenario)


def test_restored_server_gets_a_sealed_attempt_again(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        attempt = lab.server.want(lab.node, Script("echo kept"))
        await lab.server.wait(lambda: attempt.sealed)
        await lab.eventually((lab.spool(attempt.id) / "sealed").exists)
        # The database of before the run's end, and a new link to it.
        attempt.sealed = False
        attempt.story.clear()
        attempt.length = 0
        attempt.log.clear()
        await lab.server.drop(lab.node)
        await lab.server.wait(lambda: attempt.sealed)
        assert bytes(attempt.log) == b"kept\n"
        assert [type(h) for _, h in attempt.story] == [Started, Exited]

    play(scenario)


def test_stop(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        attempt = lab.server.want(
            lab.node, Script("trap '' TERM; echo up; while :; do sleep 1; done")
        )
        await lab.server.wait(lambda: attempt.length)
        lab.server.stop_attempt(attempt, grace=60)
        lab.server.stop_attempt(attempt, grace=0.2)  # a shorter grace shortens it
        await lab.server.wait(lambda: attempt.sealed)
        assert attempt.exit is not None
        assert (attempt.exit.cause, attempt.exit.signal) == ("stopped", 9)

    play(scenario)


def test_stop_while_the_agent_is_away(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        attempt = lab.server.want(lab.node, Script("echo up; sleep 60"))
        await lab.server.wait(lambda: attempt.length)
        lab.kill()
        await lab.server.wait(lambda: not lab.server.connected(lab.node))
        lab.server.stop_attempt(attempt)
        lab.launch()
        await lab.server.wait(lambda: attempt.sealed)
        assert attempt.exit is not None
        assert attempt.exit.cause == "stopped"

    play(scenario)


def test_a_stop_right_behind_its_order_ends_nothing_but_the_start(play: Play) -> None:
    """Both are read at once: the start is decided, and not yet prepared, when the stop comes."""

    async def scenario(lab: Lab) -> None:
        await lab.up("--max-concurrent", "50")
        os.kill(lab.agent.pid, signal.SIGSTOP)
        attempts = [lab.server.want(lab.node, counting(lab)) for _ in range(20)]
        for attempt in attempts:
            attempt.order = None  # a stop comes without one
            lab.server.stop_attempt(attempt, grace=0)
        turns = itertools.count()
        await lab.eventually(lambda: next(turns) > 3)  # by then the server has written it all
        os.kill(lab.agent.pid, signal.SIGCONT)
        await lab.server.wait(lambda: all(attempt.final for attempt in attempts))
        assert lab.agent.poll() is None
        never = {attempt.id for attempt in attempts if attempt.happened(NeverStarted)}
        assert never.isdisjoint(starts(lab))

    play(scenario)


def test_an_agent_that_can_write_nothing_lives_and_goes_on_when_it_can(play: Play) -> None:
    """As on a full disk: refusals, stops and a drain wait until they can be made durable (P16)."""

    async def scenario(lab: Lab) -> None:
        await lab.up()
        before = lab.server.want(lab.node, Script("true"))
        await lab.server.wait(lambda: before.sealed)
        nothing, unlimited = (0, resource.RLIM_INFINITY), resource.RLIM_INFINITY
        resource.prlimit(lab.agent.pid, resource.RLIMIT_FSIZE, nothing)
        refused = lab.server.want(lab.node, counting(lab))
        barred = lab.server.want(lab.node, counting(lab))
        lab.server.stop_attempt(barred)
        revision = lab.server.set_admin(lab.node, "draining")
        # Not even its log can be written: that it has seen all this and lives, a new link says.
        await lab.server.drop(lab.node)
        await lab.connected(links=2)
        lab.server.stop_attempt(refused)
        await lab.server.drop(lab.node)
        await lab.connected(links=3)
        assert lab.agent.poll() is None
        assert refused.story == barred.story == []
        assert lab.node.confirmed < revision
        resource.prlimit(lab.agent.pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))
        await lab.server.wait(
            lambda: refused.happened(NeverStarted) and barred.happened(NeverStarted)
        )
        assert starts(lab) == []

    play(scenario)


IN_PARTS = """
import os, sys, time
for n in range(640): os.write(1, b"%07d\\n" % n * 128)
while not os.path.exists(sys.argv[1]): time.sleep(0.01)
os.write(1, b"the end\\n")
"""
PARTS = b"".join(b"%07d\n" % n * 128 for n in range(640)) + b"the end\n"


def small_pieces(quota: int) -> dict[str, str]:
    """A piece of the spool is a quarter of so small a quota."""
    return {"FLEETWIRE_AGENT_SPOOL_QUOTA_BYTES": str(quota)}


@pytest.mark.parametrize("ended", [False, True])
def test_a_server_that_lost_what_was_trimmed_is_told_where_the_spool_begins(
    play: Play, ended: bool
) -> None:
    async def scenario(lab: Lab) -> None:
        lab.server.manners.seal = False
        await lab.up(env=small_pieces(limits.MIB))
        go = lab.root / "go"
        attempt = lab.server.want(lab.node, Script(IN_PARTS, "python", (str(go),)))
        await lab.server.wait(lambda: attempt.length == len(PARTS) - len(b"the end\n"))
        first = lab.spool(attempt.id) / "output.00000000000000000000"
        await lab.eventually(lambda: not first.exists())
        if ended:
            go.touch()
            await lab.server.wait(lambda: attempt.exit and attempt.length == len(PARTS))
            assert attempt.node_begins > 0  # said with the end
        else:
            assert attempt.node_begins == 0  # nobody needs to know
        lab.server.reset_log(attempt)
        await lab.server.wait(lambda: attempt.streams.get(0) == attempt.node_begins > 0)
        go.touch()
        await lab.server.wait(lambda: attempt.exit and attempt.length == len(PARTS))
        assert attempt.log == PARTS[attempt.node_begins :]
        # A link later it is said at once, and no second gap is made of it.
        await lab.server.drop(lab.node)
        await lab.connected(links=2)
        begins = {one.begins for one in lab.node.complete[-1].attempts}
        assert begins == {attempt.node_begins}
        assert attempt.log == PARTS[attempt.node_begins :]

    play(scenario)


def test_once_it_has_ended_nothing_is_trimmed_before_the_seal(play: Play) -> None:
    """So a log whose hash does not fit can be fetched again (5.7)."""

    async def scenario(lab: Lab) -> None:
        lab.server.manners.seal = lab.server.manners.acknowledge = False
        await lab.up(env=small_pieces(limits.MIB))
        go = lab.root / "go"
        go.touch()
        attempt = lab.server.want(lab.node, Script(IN_PARTS, "python", (str(go),)))
        await lab.server.wait(lambda: attempt.exit and attempt.length == len(PARTS))
        lab.server.send(lab.node, messages.Durable(attempt.id, attempt.length))
        lab.server.manners.seal = lab.server.manners.acknowledge = True
        lab.server.reset_log(attempt)
        await lab.server.wait(lambda: attempt.sealed)
        assert attempt.log == PARTS
        assert attempt.node_begins == 0

    play(scenario)


def test_stop_before_the_order_ever_came(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.server.start()
        attempt = lab.server.want(lab.node, counting(lab))
        lab.server.stop_attempt(attempt)
        lab.launch()
        await lab.server.wait(lambda: attempt.happened(NeverStarted))
        # And an order of that epoch that comes late starts nothing.
        attempt.wish = "run"
        attempt.story.clear()
        lab.server.send_desired(lab.node, attempt)
        await lab.server.wait(lambda: attempt.happened(NeverStarted))
        assert not starts(lab)
        # A newer epoch is another matter.
        lab.server.want(lab.node, counting(lab, 1), attempt=attempt.id)
        await lab.server.wait(lambda: attempt.exit)
        assert starts(lab) == [attempt.id]

    play(scenario)


def test_wanting_it_twice_starts_it_once(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        attempt = lab.server.want(lab.node, counting(lab, 5))
        for _ in range(5):
            lab.server.send_desired(lab.node, attempt, attempt)
        await lab.server.wait(lambda: attempt.sealed)
        assert starts(lab) == [attempt.id]

    play(scenario)


def test_newer_epoch_of_what_already_ran_is_refused(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        lab.server.manners.seal = False
        await lab.up()
        attempt = lab.server.want(lab.node, counting(lab, 1))
        await lab.server.wait(lambda: attempt.exit)
        old = attempt.epoch
        lab.server.want(lab.node, counting(lab, 1), attempt=attempt.id)
        attempt.story.clear()
        lab.server.want(lab.node, counting(lab, 1), attempt=attempt.id)
        await lab.server.wait(lambda: attempt.happened(Declined))
        assert starts(lab) == [attempt.id]
        assert {epoch for epoch, h in attempt.story if isinstance(h, Exited)} <= {old}
        assert all(h.final for h in attempt.happened(Declined) if isinstance(h, Declined))

    play(scenario)


@pytest.mark.parametrize("what", ["signature", "key", "expired", "epoch", "node"])
def test_order_that_does_not_hold_is_refused_finally(play: Play, what: str) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        attempt = FakeAttempt(id=new_id(), node=lab.node.id, epoch=2**32 + 900)
        lab.server.attempts[attempt.id] = attempt
        spec = counting(lab)
        order = lab.server.sign(lab.node, attempt, spec)
        expected = {
            "signature": "signature is wrong",
            "key": "does not know",
            "expired": "expired",
            "epoch": "another epoch",
            "node": "another node",
        }[what]
        if what == "signature":
            order = msgspec.structs.replace(order, signature=bytes(64))
        elif what == "key":
            order = msgspec.structs.replace(order, key="other")
        elif what == "expired":
            order = lab.server.sign(lab.node, attempt, spec, expires_in_s=-1)
        elif what == "epoch":
            attempt.epoch += 1
        else:
            order = lab.server.sign(lab.server.enrol(b"x" * 32), attempt, spec)
        attempt.order = order
        lab.server.send_desired(lab.node, attempt)
        await lab.server.wait(lambda: attempt.happened(Declined))
        (declined,) = attempt.happened(Declined)
        assert isinstance(declined, Declined)
        assert declined.final
        assert expected in declined.reason
        assert not starts(lab)

    play(scenario)


def test_expired_lease_refuses_a_start(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        lab.server.manners.lease_s = 0.0
        lab.server.manners.answer_beats = False
        await lab.up()
        attempt = lab.server.want(lab.node, counting(lab))
        await lab.server.wait(lambda: attempt.happened(Declined))
        (declined,) = attempt.happened(Declined)
        assert isinstance(declined, Declined)
        assert not declined.final
        assert "lease" in declined.reason
        assert not starts(lab)

    play(scenario)


def test_full_node_refuses_for_now(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up("--max-concurrent", "1")
        first = lab.server.want(lab.node, Script("sleep 60"))
        second = lab.server.want(lab.node, counting(lab, 1))
        await lab.server.wait(lambda: second.happened(Declined))
        (declined,) = second.happened(Declined)
        assert isinstance(declined, Declined)
        assert not declined.final
        assert "1 of 1 places" in declined.reason
        lab.server.stop_attempt(first)
        await lab.server.wait(lambda: first.final)
        lab.server.want(lab.node, counting(lab, 1), attempt=second.id)
        await lab.server.wait(lambda: second.exit)
        assert starts(lab) == [second.id]

    play(scenario)


def test_drain_is_durable_confirmed_and_survives_a_restart(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        running = lab.server.want(lab.node, counting(lab))
        await lab.server.wait(lambda: running.length > 0)
        revision = lab.server.set_admin(lab.node, "draining")
        await lab.server.wait(lambda: lab.node.confirmed >= revision)
        assert '"draining"' in (lab.state / "level.json").read_text()
        refused = lab.server.want(lab.node, Script("true"))
        await lab.server.wait(lambda: refused.happened(Declined))
        lab.kill()
        lab.launch()
        await lab.connected(2)
        # The first word of the new agent names the revision it drains under.
        assert lab.node.complete[-1].revision >= revision
        lab.server.want(lab.node, Script("true"), attempt=refused.id)
        await lab.server.wait(lambda: len(refused.happened(Declined)) == 2)
        await lab.server.wait(lambda: running.sealed)
        assert bytes(running.log) == lines(30)

    play(scenario)


def test_after_a_drain_is_confirmed_nothing_starts(play: Play) -> None:
    """Orders that are on their way through the agent when it comes start before, or never (P12)."""

    async def scenario(lab: Lab) -> None:
        await lab.up("--max-concurrent", "40")
        for _ in range(5):
            wanted = [lab.server.want(lab.node, counting(lab, 3)) for _ in range(8)]
            revision = lab.server.set_admin(lab.node, "draining")
            await lab.server.wait(lambda revision=revision: lab.node.confirmed >= revision)  # type: ignore[misc]
            at_confirmation = {one.id for one in wanted if (lab.spool(one.id) / "epoch").exists()}
            await lab.server.wait(
                lambda wanted=wanted: all(one.sealed or one.happened(Declined) for one in wanted)  # type: ignore[misc]
            )
            began = {one.id for one in wanted if (lab.spool(one.id) / "epoch").exists()}
            assert began <= at_confirmation
            assert {one.id for one in wanted if one.happened(Declined)}.isdisjoint(starts(lab))
            back = lab.server.set_admin(lab.node, "active")
            await lab.server.wait(lambda back=back: lab.node.confirmed >= back)  # type: ignore[misc]

    play(scenario)


def test_the_hello_tells_how_the_agent_before_it_ended(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        first = lab.node.hellos[-1].life
        assert first is not None
        assert first.before is None
        await lab.server.drop(lab.node)
        await lab.connected(2)
        same = lab.node.hellos[-1].life
        assert same is not None
        assert (same.agent, same.before) == (first.agent, None)
        lab.kill()
        lab.launch()
        await lab.connected(3)
        killed = lab.node.hellos[-1]
        assert killed.life is not None
        assert killed.life.agent != first.agent
        assert killed.life.before == Ending(killed.boot_id, left=False)
        lab.agent.terminate()
        assert lab.agent.wait(30) == 0
        lab.launch()
        await lab.connected(4)
        left = lab.node.hellos[-1].life
        assert left is not None
        assert left.before == Ending(killed.boot_id, left=True)

    play(scenario)


def test_deadline_holds_without_an_agent_and_is_capped(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up(env={"FLEETWIRE_AGENT_MAX_DEADLINE_S": "1"})
        attempt = lab.server.want(lab.node, Script("echo up; sleep 60", timeout=50))
        await lab.server.wait(lambda: attempt.length)
        lab.kill()
        await lab.eventually((lab.spool(attempt.id) / "exit").exists)
        lab.launch()
        await lab.server.wait(lambda: attempt.sealed)
        assert attempt.exit is not None
        assert attempt.exit.cause == "deadline"

    play(scenario)


def test_many_at_once(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up("--max-concurrent", "50")
        attempts = [lab.server.want(lab.node, Script(f"echo {i}; exit {i}")) for i in range(50)]
        await lab.server.wait(lambda: all(a.sealed for a in attempts))
        for number, attempt in enumerate(attempts):
            assert bytes(attempt.log) == b"%d\n" % number
            assert attempt.exit is not None
            assert attempt.exit.exit_code == number

    play(scenario)


def test_one_agent_per_state_directory(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        lab.launch()
        assert await asyncio.to_thread(lab.agent.wait, 10) == 1
        assert "Another agent is using the state directory" in lab.stderr()
        lab.agents.pop()

    play(scenario)


def test_a_folder_deleted_under_a_task_ends_the_task_and_nothing_else(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        pid_file = lab.root / "pid"
        robbed = lab.server.want(lab.node, Script(f"echo $$ > {pid_file}; sleep 600"))
        await lab.server.wait(lambda: robbed.story)
        await lab.eventually(lambda: pid_file.exists() and pid_file.read_text().strip())
        shutil.rmtree(lab.spool(robbed.id))
        await lab.server.wait(lambda: isinstance(robbed.story[-1][1], Lost))
        ((_, started), (epoch, lost)) = robbed.story
        assert isinstance(started, Started)
        assert isinstance(lost, Lost)
        assert epoch == robbed.epoch
        assert "folder was deleted" in lost.reason
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid_file.read_text()), 0)
        other = lab.server.want(lab.node, Script("exit 5"))
        await lab.server.wait(lambda: other.sealed)

    play(scenario)


def test_agent_leaves_when_its_parent_has_gone(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.server.start()
        reader, writer = os.pipe()
        lab.launch("--parent-fd", str(reader), pass_fds=[reader])
        os.close(reader)
        await lab.connected()
        os.close(writer)
        assert await asyncio.to_thread(lab.agent.wait, 3) == 0

    play(scenario)


def test_status_says_what_every_part_is_doing(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        status = lab.state / "agent-status.json"
        await lab.eventually(lambda: status.exists() and "connected to" in status.read_text())
        text = status.read_text()
        assert all(f'"{part}"' in text for part in ("link", "spawner", "attempts", "cleaner"))

    play(scenario)


def test_agent_killed_again_and_again(play: Play) -> None:
    """At whatever point it dies: one start each, every byte once, every exit exact."""

    async def scenario(lab: Lab) -> None:
        chance = random.Random(7)  # noqa: S311 (where to kill it, the same each time)
        await lab.up("--max-concurrent", "20")
        attempts = [lab.server.want(lab.node, counting(lab, 3, 0.2)) for _ in range(12)]
        everything = len(attempts) * len(lines(3))
        for reached in sorted(chance.randrange(everything) for _ in range(6)):
            await lab.server.wait(
                lambda reached=reached: sum(len(a.log) for a in attempts) >= reached, timeout_s=40
            )
            lab.kill()
            lab.launch("--max-concurrent", "20")
        await lab.server.wait(lambda: all(a.sealed for a in attempts), timeout_s=40)
        for attempt in attempts:
            assert bytes(attempt.log) == lines(3)
            assert attempt.exit is not None
            assert attempt.exit.exit_code == 7
        assert sorted(starts(lab)) == sorted(a.id for a in attempts)

    play(scenario)


def test_a_server_double_without_the_signing_key_starts_nothing(play: Play) -> None:
    """It has the address, the certificate, the cluster's id and all that is public."""

    async def scenario(lab: Lab) -> None:
        await lab.up()
        honest = lab.server._secret
        lab.server._secret = bindings.crypto_sign_seed_keypair(bytes(32))[1]
        attempt = lab.server.want(lab.node, counting(lab))
        await lab.server.wait(lambda: attempt.happened(Declined))
        (declined,) = attempt.happened(Declined)
        assert isinstance(declined, Declined)
        assert "signature is wrong" in declined.reason
        assert starts(lab) == []
        # Nor does it talk the node into another key.
        thief = bindings.crypto_sign_seed_keypair(bytes(32))[0]
        word = NewKey(CLUSTER, "k2", thief, KEY_ID, 1)
        forged = bindings.crypto_sign(key_bytes(word), lab.server._secret)[:64]
        frame = codec.encode(messages.NewKeys((SignedKey(word, forged),)))
        lab.server.send_raw(lab.node, frame)
        lab.server._secret = honest
        good = lab.server.want(lab.node, counting(lab))
        await lab.server.wait(lambda: good.sealed)
        assert starts(lab) == [good.id]
        kept = msgspec.json.decode((lab.state / "identity.json").read_bytes())
        assert list(kept["server_keys"]) == [KEY_ID]

    play(scenario)


def test_a_recorded_exchange_that_is_played_again_starts_nothing(play: Play) -> None:
    """Also when its folder has gone meanwhile, and after the agent has ended."""

    async def scenario(lab: Lab) -> None:
        few = {"FLEETWIRE_AGENT_KEEP_SEALED_BYTES": "1"}
        await lab.up(env=few)
        attempt = lab.server.want(lab.node, counting(lab))
        order, epoch = attempt.order, attempt.epoch
        await lab.server.wait(lambda: attempt.sealed)
        await lab.eventually(lambda: not lab.spool(attempt.id).exists())
        lab.server.manners.seal = False
        for links in (2, 3):
            wanted = Wanted(attempt.id, epoch, "run", order=order)
            recorded = messages.DesiredFrame(lab.node.revision, "active", (wanted,))
            attempt.story.clear()
            lab.server.send_raw(lab.node, codec.encode(recorded))
            await lab.server.wait(lambda: attempt.happened(Declined))
            assert starts(lab) == [attempt.id]
            lab.kill()
            lab.launch(env=few)
            await lab.connected(links)
        # What comes under a new epoch is another matter.
        other = lab.server.want(lab.node, counting(lab))
        await lab.server.wait(lambda: other.exit)
        assert starts(lab) == [attempt.id, other.id]

    play(scenario)


def test_a_new_signing_key_is_taken_on_the_word_of_the_old_one(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        old = lab.server._secret
        epochs = itertools.count(2**33)
        chain = []
        for number in (1, 2):
            public, secret = bindings.crypto_sign_seed_keypair(bytes([number]) * 32)
            before = KEY_ID if number == 1 else "k1"
            word = NewKey(CLUSTER, f"k{number}", public, before, number)
            signature = bindings.crypto_sign(key_bytes(word), lab.server._secret)[:64]
            chain.append(SignedKey(word, signature))
            lab.server.send_raw(lab.node, codec.encode(messages.NewKeys(tuple(chain))))
            for key, id_, good in (
                (secret, word.id, True),
                (old, KEY_ID, number == 1),  # both count until the next rotation
            ):
                lab.server._secret = key
                attempt = FakeAttempt(id=new_id(), node=lab.node.id, epoch=next(epochs))
                lab.server.attempts[attempt.id] = attempt
                order = lab.server.sign(lab.node, attempt, counting(lab))
                attempt.order = msgspec.structs.replace(order, key=id_)
                lab.server.send_desired(lab.node, attempt)
                await lab.server.wait(lambda a=attempt: a.exit or a.happened(Declined))
                assert bool(attempt.exit) is good
            lab.server._secret = secret
        lab.kill()
        lab.launch()
        await lab.connected(2)
        kept = msgspec.json.decode((lab.state / "identity.json").read_bytes())
        assert list(kept["server_keys"]) == ["k1", "k2"]

    play(scenario)
