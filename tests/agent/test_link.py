"""The link: how it is refused, broken, silent, switched, and how it comes back."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from fleetwire.core.specs import Script
from fleetwire.protocol import messages
from fleetwire.testing.fake_server import FakeServer, new_id
from fleetwire.testing.real_agent import RealAgent as Lab

Play = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]
pytestmark = pytest.mark.slow


def test_first_words(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        lab.server.manners.heartbeat_s = 0.1
        await lab.up()
        await lab.server.wait(lambda: lab.node.beats >= 3 and lab.node.inventory)
        assert lab.server.frames[:2] == ["hello", "observed"]
        hello = lab.node.hellos[0]
        assert hello.server_name == f"127.0.0.1:{lab.server.port}"
        assert hello.generation == 0
        assert lab.node.complete[0].complete
        facts = lab.node.inventory
        assert facts["os"] == "linux"
        for name in ("hostname", "arch", "addresses", "cpu", "memory", "disks", "load"):
            assert facts[name], name
        # The highest generation seen is in the hello from then on.
        attempt = lab.server.want(lab.node, Script("true"), generation=3)
        await lab.server.wait(lambda: attempt.sealed)
        await lab.server.drop(lab.node)
        await lab.connected(2)
        assert lab.node.hellos[-1].generation == 3

    play(scenario)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (messages.CLOSE_UNAUTHENTICATED, "does not accept this node's identity"),
        (messages.CLOSE_FORBIDDEN, "does not let this node in"),
        (messages.CLOSE_NEWER_LINK, "another agent with this node's identity"),
    ],
)
def test_refusal_is_said_clearly_and_tried_again_slowly(play: Play, code: int, said: str) -> None:
    async def scenario(lab: Lab) -> None:
        lab.server.manners.refuse = (code, "because")
        await lab.server.start()
        lab.launch()
        await lab.eventually(lambda: said in lab.stderr())
        assert f"close code {code}" in lab.stderr()
        assert "trying again in 0" not in lab.stderr()
        assert lab.server.frames == ["hello"]
        assert await lab.leave() == 0  # also while it waits

    play(scenario)


def test_later_means_later(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        lab.server.manners.refuse = (messages.CLOSE_LATER, "full; retry_after=0.5")
        await lab.server.start()
        lab.launch()
        await lab.server.wait(lambda: lab.server.frames == ["hello"] * 3)
        lab.server.manners.refuse = None
        await lab.connected()

    play(scenario)


def test_backup_server_is_tried_in_turn(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        away = FakeServer()
        await away.start()
        await away.stop()
        await lab.server.start()
        lab.launch("--server", away.url, "--backup-server", lab.server.url)
        await lab.connected()
        # The backup goes, the first one comes.
        away.nodes[lab.node.id] = lab.node
        await lab.server.stop()
        await away.start()
        await away.wait(lambda: away.connected(lab.node))
        await away.stop()

    play(scenario)


def test_silent_server_is_left(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        lab.server.manners.heartbeat_s = 0.2
        lab.server.manners.answer_beats = False
        await lab.up()
        await lab.connected(2)
        assert "fell silent" in lab.stderr()

    play(scenario)


def test_server_is_away_at_first(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.server.start()
        await lab.server.stop()
        lab.launch()
        await lab.eventually(lambda: lab.stderr().count("no link to") >= 2)
        await lab.server.start()
        await lab.connected()

    play(scenario)


def test_frame_over_the_limit_ends_the_link_and_nothing_else(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        attempt = lab.server.want(lab.node, Script("echo a; sleep 1; echo b"))
        await lab.server.wait(lambda: attempt.length)
        lab.server.send_raw(lab.node, "x" * (2 * 2**20))
        await lab.connected(2)
        lab.server.send_raw(lab.node, "{}")
        await lab.connected(3)
        lab.server.send_raw(lab.node, b"binary")
        await lab.connected(4)
        await lab.server.wait(lambda: attempt.sealed)
        assert bytes(attempt.log) == b"a\nb\n"

    play(scenario)


def test_other_cluster_is_refused_by_the_agent(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        path = lab.state / "identity.json"
        path.write_text(path.read_text().replace("test-cluster", "other-cluster"))
        await lab.server.start()
        lab.launch()
        await lab.eventually(lambda: "of another cluster" in lab.stderr())
        assert "hello" not in lab.server.frames

    play(scenario)


def test_what_is_no_server_of_ours(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            writer.close()

        other = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = other.sockets[0].getsockname()[1]
        lab.launch("--server", f"http://127.0.0.1:{port}")
        await lab.eventually(lambda: "HTTP 403" in lab.stderr())
        assert await lab.leave() == 0
        other.close()

    play(scenario)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_mean_leaving(play: Play, number: signal.Signals) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        lab.agent.send_signal(number)
        assert await asyncio.to_thread(lab.agent.wait, 5) == 0
        assert "left" in (lab.state / "agent-status.json").read_text()

    play(scenario)


def test_settings_that_are_wrong_end_it_with_a_sentence(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        lab.launch("--server", "ftp://x")
        assert await asyncio.to_thread(lab.agent.wait, 10) == 2
        assert "must look like http://HOST:PORT" in lab.stderr()

    play(scenario)


def test_nothing_but_an_id_becomes_a_folder(play: Play) -> None:
    """Stops and deletions need no signature: who speaks for the server must not be able to make
    or delete a folder elsewhere by them.
    """

    async def scenario(lab: Lab) -> None:
        await lab.up(
            env={
                "FLEETWIRE_AGENT_BACKOFF_INITIAL_S": "0.01",
                "FLEETWIRE_AGENT_BACKOFF_MAX_S": "0.05",
            }
        )
        outside = lab.root / "outside"
        outside.mkdir()
        (outside / "kept").touch()
        for name in ("../../outside", f"{'../' * 9}{outside}", "", "x" * 36, f"{new_id()}\n"):
            links = len(lab.node.complete)
            for wish in ("stop", "forget"):
                frame = {
                    "t": "desired", "revision": 1, "admin": "active",
                    "attempts": [{"attempt": name, "epoch": 7, "wish": wish}],
                }  # fmt: skip
                lab.server.send_raw(lab.node, json.dumps(frame))
            await lab.connected(links + 1)  # it left the link that said so, and came again
        assert [path.name for path in outside.iterdir()] == ["kept"]
        assert sorted(path.name for path in (lab.state / "spool").iterdir()) == []
        assert await lab.leave() == 0

    play(scenario)
