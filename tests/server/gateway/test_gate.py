"""Who may greet now: appointments for a crowd, and fair shares where one takes all places."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from fleetwire.core.limits import HELLOS_AT_ONCE
from fleetwire.protocol import messages
from fleetwire.protocol.versions import SUBPROTOCOL
from fleetwire.server.gateway.gate import LATER_S, LATEST_S, TAKEN_PER_S, Gate, Place
from fleetwire.testing.heart import Heart, Serve, new_id


@pytest.mark.limit("hellos_at_once")
def test_the_gate_lets_so_many_in_and_gives_the_others_their_turn() -> None:
    now = 100.0
    gate = Gate(monotonic=lambda: now)
    places = [gate.enter("192.0.2.1") for _ in range(HELLOS_AT_ONCE)]
    assert None not in places
    assert gate.enter("192.0.2.1") is None
    turns = [gate.later() for _ in range(1000)]
    assert turns == sorted(turns)
    assert turns[0] >= LATER_S
    assert abs((turns[-1] - turns[0]) - 999 / TAKEN_PER_S) < 1e-6
    assert isinstance(places[0], Place)
    gate.passed(places[0])
    gate.passed(places[0])
    assert gate.enter("192.0.2.1") is not None
    assert gate.enter("192.0.2.1") is None
    for _ in range(100_000):
        latest = gate.later()
    assert latest == LATEST_S
    now += 10_000.0
    assert gate.later() < LATER_S + 0.01


async def test_an_address_that_is_alone_may_have_all_places_and_shares_them_when_others_come() -> (
    None
):
    gate = Gate(monotonic=lambda: 0.0, at_once=10)
    silent = [gate.enter("2001:db8::1") for _ in range(5)]
    silent += [gate.enter("2001:db8::2") for _ in range(5)]
    assert gate.enter("2001:db8::3") is None  # all are one /64
    others = [gate.enter("192.0.2.1") for _ in range(5)]
    assert None not in others
    assert [place.gave_way for place in silent if place] == [True] * 5 + [False] * 5
    assert gate.enter("192.0.2.1") is None
    third = [gate.enter("192.0.2.2") for _ in range(3)]
    assert None not in third
    assert gate.enter("192.0.2.2") is None


async def test_whose_hello_is_there_keeps_its_place() -> None:
    gate = Gate(monotonic=lambda: 0.0, at_once=4)
    places = [gate.enter("192.0.2.1") for _ in range(4)]
    for place in places[:3]:
        assert place is not None
        gate.heard(place)
    assert gate.enter("192.0.2.2") is None  # one silent place is no more than its own would be
    assert not any(place.gave_way for place in places if place)


async def closed(socket: ClientConnection) -> tuple[int, str]:
    async with asyncio.timeout(10):
        try:
            while True:
                await socket.recv()
        except ConnectionClosed:
            return socket.close_code or 0, socket.close_reason or ""


def silent(one: Heart, source: str) -> connect:
    """A connection that says nothing, from this address of the loopback network."""
    return connect(
        f"{one.url}/ws/agent/{new_id()}",
        subprotocols=[SUBPROTOCOL],
        compression=None,
        proxy=None,
        local_addr=(source, 0),
    )


async def test_one_address_cannot_keep_the_others_out(serve: Serve) -> None:
    """It holds every place and says nothing; agents of another address come in at once, and the
    one behind its address too, as soon as a place is free.
    """
    async with serve(hellos_at_once=8) as one, AsyncExitStack() as stack:
        held = [await stack.enter_async_context(silent(one, "127.0.0.2")) for _ in range(8)]
        for socket in held:
            await socket.recv()  # the challenge
        refused = await stack.enter_async_context(silent(one, "127.0.0.2"))
        code, reason = await closed(refused)
        assert (code, reason.startswith("retry_after=")) == (messages.CLOSE_LATER, True)
        nodes = [await one.node(f"n-{number}") for number in range(3)]
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(node.run_once()) for node in nodes]
            for node in nodes:
                await node.wait(node.opened.is_set)
            code, reason = await closed(held[0])  # the oldest
            assert (code, reason.startswith("retry_after=")) == (messages.CLOSE_LATER, True)
            for task in running:
                task.cancel()
        # What they gave up is free again, for whoever comes.
        again = await stack.enter_async_context(silent(one, "127.0.0.2"))
        await again.recv()
