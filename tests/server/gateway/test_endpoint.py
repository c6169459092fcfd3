"""The door: who may not come in, what closes a link, and that nothing of it is a traceback."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterator

import msgspec
import pytest
from nacl.signing import SigningKey
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fleetwire.core import limits
from fleetwire.protocol import codec, messages
from fleetwire.protocol.conversation import AgentConversation
from fleetwire.protocol.versions import SUBPROTOCOL
from fleetwire.server.domain import nodes
from fleetwire.testing.fake_node import Behaviour, FakeNode
from fleetwire.testing.heart import Heart, Serve, new_id


@pytest.fixture(autouse=True)
def _no_errors(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """Bad input is no error of ours: nothing above a warning, and never a traceback."""
    yield
    shown = capsys.readouterr()
    assert "Traceback" not in shown.out + shown.err
    assert "[error" not in shown.out
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


async def closed(socket: ClientConnection) -> tuple[int, str]:
    """Wait for the close; return its code and reason."""
    async with asyncio.timeout(10):
        try:
            while True:
                await socket.recv()
        except ConnectionClosed:
            return socket.close_code or 0, socket.close_reason or ""


def dial(one: Heart, node: str, **options: object) -> connect:
    options = {"subprotocols": [SUBPROTOCOL], **options}
    return connect(
        f"{one.url}/ws/agent/{node}", compression=None, proxy=None, max_size=None, **options
    )


async def test_whoever_says_nothing_is_closed(serve: Serve) -> None:
    async with serve(loops=False, hello_within_s=0.5) as one, dial(one, new_id()) as socket:
        code, reason = await closed(socket)
        assert code == messages.CLOSE_TOO_SLOW
        assert "hello" in reason


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "not json",
        "[]",
        "{}",
        '{"t":"hello"}',
        '{"t":"unheard of"}',
        '{"t":"heartbeat","sequence":1,"clock":1}',
        '{"t":"observed","revision":0}',
        "[" * 100_000,
        b"",
        b"\x01",
        bytes(5000),
    ],
)
async def test_bad_frames_before_the_hello(serve: Serve, frame: str | bytes) -> None:
    async with serve(loops=False) as one, dial(one, new_id()) as socket:
        await socket.send(frame)
        code, reason = await closed(socket)
        assert code == messages.CLOSE_BAD_FRAME
        assert reason


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ("not json", messages.CLOSE_BAD_FRAME),
        ('{"t":"observed","revision":-1}', messages.CLOSE_BAD_FRAME),
        ('{"t":"observed","revision":0,"attempts":[{"attempt":5}]}', messages.CLOSE_BAD_FRAME),
        ('{"t":"welcome"}', messages.CLOSE_BAD_FRAME),
        (b"short", messages.CLOSE_BAD_FRAME),
        (codec.HEADER.pack(9, 0, 0, 1, 0, bytes(16)), messages.CLOSE_BAD_FRAME),
        (codec.HEADER.pack(1, 1, 0, 1, 1 << 63, bytes(16)), messages.CLOSE_BAD_FRAME),
        ("x" * (limits.CONTROL_FRAME_BYTES + 1), messages.CLOSE_TOO_LARGE),
    ],
)
async def test_bad_frames_on_an_open_link(serve: Serve, frame: str | bytes, expected: int) -> None:
    async with serve(loops=False) as one:
        node = await one.node("a")
        async with node.connected():
            await node.raw(frame)
            await node.wait(lambda: node.closed is not None)
            assert node.closed is not None
            assert node.closed[0] == expected
        async with node.connected():
            node.heartbeat()
            await node.wait(lambda: node.beats == 1)


@pytest.mark.limit("CONTROL_FRAME_BYTES")
async def test_a_control_frame_at_its_limit_is_taken(serve: Serve) -> None:
    async with serve(loops=False) as one:
        node = await one.node("a")
        async with node.connected():
            frame = '{"t":"heartbeat","sequence":1,"clock":1,"padding":""}'
            padding = "x" * (limits.CONTROL_FRAME_BYTES - len(frame))
            await node.raw(frame.replace('""', f'"{padding}"'))
            await node.wait(lambda: node.beats == 1)


@pytest.mark.parametrize("flags", [0, 1])
async def test_a_chunk_that_is_no_chunk_closes_the_link_and_stores_nothing(
    serve: Serve, flags: int
) -> None:
    async with serve() as one:
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            run_id = await one.submit(spec=None)
            await one.wait_run(run_id, lambda run: run.state == "running")
            (held,) = node.spool.values()
            await node.wait(lambda: any(isinstance(e, messages.Durable) for e in node.received))
            before = len(held.log)
            await node.raw(
                codec.encode_log(held.attempt, before, 100, b"garbage" * 9, zstd=bool(flags))
            )
            await node.wait(lambda: node.closed is not None)
            assert node.closed is not None
            assert node.closed[0] == messages.CLOSE_BAD_FRAME
        run = await one.run(run_id)
        segment = one.logs.segment_now()
        assert await one.logs.lengths([(segment, held.attempt)]) == {held.attempt: before}
        assert run.state == "running"


async def test_wrong_keys_unknown_nodes_and_foreign_paths_look_alike(serve: Serve) -> None:
    async with serve(loops=False) as one:
        identity = await one.identity("a")
        said = set()
        for stranger in (
            identity._replace(key=SigningKey.generate()),
            identity._replace(node=new_id()),
        ):
            node = one.fake(stranger)
            await node.run_once()
            assert node.closed is not None
            said.add(node.closed)
        assert len(said) == 1
        assert said.pop()[0] == messages.CLOSE_UNAUTHENTICATED
        node = await one.node("b")
        view = await one.database.read(lambda c: nodes.keys_of(c, [node.identity.node]))
        assert list(view) == [node.identity.node]
        async with dial(one, "not-an-id") as socket:
            await socket.send(
                msgspec.json.encode(
                    messages.Hello(
                        version=1, node="n" * 36, incarnation="i", boot_id="b", agent_version="1",
                        nonce="n" * 32, server_name="s", generation=0, clock=0, signature=b"x" * 64,
                    )
                ).decode()
            )  # fmt: skip
            assert (await closed(socket))[0] == messages.CLOSE_BAD_FRAME


async def test_a_signature_is_good_for_one_connection(serve: Serve) -> None:
    async with serve(loops=False) as one:
        node = await one.node("a")
        sent: list[str] = []
        async with node.connected():
            pass
        async with dial(one, node.identity.node) as first:
            challenge = codec.decode_from_server(str(await first.recv()))
            fake = one.fake(node.identity)
            hello = _hello(fake, challenge)
            sent.append(hello)
        async with dial(one, node.identity.node) as second:
            await second.recv()
            await second.send(sent[0])  # of the first connection's challenge
            assert (await closed(second))[0] == messages.CLOSE_UNAUTHENTICATED


def _hello(fake: FakeNode, challenge: messages.FromServer) -> str:
    conversation = AgentConversation(
        node=fake.identity.node, cluster=fake.identity.cluster, server_name="localhost",
        incarnation=fake.identity.incarnation, boot_id="b", agent_version="1", generation=0,
        nonce=secrets.token_hex(16),
    )  # fmt: skip
    conversation.receive(codec.encode(challenge))
    (event,) = conversation.events_received()
    conversation.greet(fake.identity.key.sign(event.signed).signature, clock=0)
    (frame,) = conversation.data_to_send()
    return str(frame)


async def test_another_cluster_is_noticed_by_the_node(serve: Serve) -> None:
    async with serve(loops=False) as one:
        identity = await one.identity("a")
        node = one.fake(identity._replace(cluster=new_id()))
        await node.run_once()
        assert node.closed is not None
        assert node.closed[0] == messages.CLOSE_UNAUTHENTICATED


async def test_a_disabled_node_may_not_connect(serve: Serve) -> None:
    async with serve(loops=False) as one:
        node = await one.node("a")
        await one.database.write(lambda tx: nodes.set_admin(tx, node.identity.node, "disabled"))
        await node.run_once()
        assert node.closed is not None
        assert node.closed[0] == messages.CLOSE_FORBIDDEN


async def test_a_disabled_node_loses_its_link(serve: Serve) -> None:
    async with serve(loops=False) as one:
        node = await one.node("a")
        async with node.connected():
            await one.database.write(lambda tx: nodes.set_admin(tx, node.identity.node, "disabled"))
            await node.wait(lambda: node.closed is not None)
            assert node.closed is not None
            assert node.closed[0] == messages.CLOSE_FORBIDDEN


async def test_browsers_and_other_protocols_stay_outside(serve: Serve) -> None:
    async with serve(loops=False) as one:
        with pytest.raises(InvalidStatus) as caught:
            async with dial(one, new_id(), origin="http://localhost"):
                pass
        assert caught.value.response.status_code == 403
        async with dial(one, new_id(), subprotocols=["other.1"]) as socket:
            assert (await closed(socket))[0] == messages.CLOSE_VERSION
