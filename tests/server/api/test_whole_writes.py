"""What is written in one turn of the event loop leaves together, and a close ends."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop

from fleetwire.server.api import http
from fleetwire.server.api.http import TOGETHER_BYTES, _Whole


async def opened() -> tuple[_Whole, asyncio.Transport, socket.socket]:
    """A transport to a peer that reads only when the test does."""
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    theirs.settimeout(10)
    return _Whole(transport, loop), transport, theirs


async def test_head_and_body_are_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, transport, theirs = await opened()
    written: list[list[bytes]] = []
    monkeypatch.setattr(whole, "_transport", _Spy(transport, written))
    with theirs:
        whole.write(b"head ")
        whole.write(b"body")
        assert written == []
        assert await asyncio.to_thread(theirs.recv, 100) == b"head body"
        assert written == [[b"head ", b"body"]]
        whole.write(b"x" * TOGETHER_BYTES)
        assert len(written) == 2  # it does not pile up
        whole.write(b"last")
        whole.close()
        got = b""
        while data := await asyncio.to_thread(theirs.recv, 1 << 20):
            got += data
        assert got == b"x" * TOGETHER_BYTES + b"last"


async def test_a_peer_that_reads_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CLOSE_WITHIN_S", 0.05)
    whole, transport, theirs = await opened()
    with theirs:
        whole.write(b"x" * (64 << 20))
        whole.close()
        async with asyncio.timeout(10):
            while transport.get_write_buffer_size():
                await asyncio.to_thread(theirs.getsockname)  # anything but reading
        got = 0
        while data := await asyncio.to_thread(theirs.recv, 1 << 20):
            got += len(data)
        assert got < 64 << 20


async def turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_what_is_held_for_a_client_that_has_gone_is_dropped() -> None:
    complaints: list[dict[str, object]] = []

    async def lose() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, said: complaints.append(said)
        )
        whole, transport, theirs = await opened()
        with theirs:
            transport.abort()  # as when the client's reset has just been read
            await turns()
            whole.write(b"an answer")
            await turns()
            whole.write(b"another")
            whole.close()

    # The server's own loop: asyncio's transports are more patient.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(lose())
    assert complaints == []


class _Spy:
    def __init__(self, transport: asyncio.Transport, written: list[list[bytes]]) -> None:
        self._transport = transport
        self._written = written

    def writelines(self, data: list[bytes]) -> None:
        self._written.append(data)
        self._transport.writelines(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)
