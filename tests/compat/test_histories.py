"""What released versions said to each other, kept (`record.py` made it), is understood for ever."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import zstandard
from nacl.signing import VerifyKey

from fleetwire.core import chunks
from fleetwire.core.desired import Desired, Observed
from fleetwire.core.envelopes import order_bytes
from fleetwire.core.happenings import Exited
from fleetwire.protocol import codec, messages
from fleetwire.protocol.codec import LogFrame
from fleetwire.protocol.conversation import (
    AgentConversation,
    Opened,
    Phase,
    ServerConversation,
    SignatureNeeded,
    VerifyNeeded,
)

FILES = sorted(Path(__file__).parent.glob("histories/*.jsonl"))


class History(NamedTuple):
    """One file: who the node was, and the frames of each of its links, in order."""

    identity: dict[str, Any]
    links: list[list[tuple[str, str | bytes]]]


def read(file: Path) -> History:
    header, *lines = map(json.loads, file.read_text().splitlines())
    links = [
        [(one["from"], one.get("text") or bytes.fromhex(one["hex"])) for one in said]
        for _, said in groupby(lines, key=lambda one: one["link"])
    ]
    return History(header["identity"], links)


def said(link: list[tuple[str, str | bytes]], who: str) -> Iterator[str | bytes]:
    return (frame for speaker, frame in link if speaker == who)


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def history(request: pytest.FixtureRequest) -> History:
    return read(request.param)


def test_this_server_understands_what_its_agents_said(history: History) -> None:
    key = VerifyKey(base64.b64decode(history.identity["signing_key"]))
    ends: dict[str, Exited] = {}
    logs: dict[str, bytearray] = {}
    for link in history.links:
        challenge = codec.decode_from_server(str(next(said(link, "server"))))
        assert isinstance(challenge, messages.Challenge)
        conversation = ServerConversation(
            cluster=challenge.cluster,
            node=history.identity["node"],
            nonce=challenge.nonce,
            clock=challenge.clock,
        )
        for frame in said(link, "agent"):
            conversation.receive(frame)
            for event in conversation.events_received():
                if isinstance(event, VerifyNeeded):
                    key.verify(event.signed, event.signature)  # the same bytes are signed
                    conversation.welcome(messages.Welcome(1, 10.0, 60.0, 1, 1))
                elif isinstance(event, Observed):
                    for one in event.attempts:
                        for happening in one.happenings:
                            if isinstance(happening, Exited):
                                ends[one.attempt] = happening
                elif isinstance(event, LogFrame):
                    log = logs.setdefault(event.attempt, bytearray())
                    _, payload = chunks.decode(zstandard.decompress(event.body))
                    if event.offset == len(log):
                        log += payload
        assert conversation.phase is Phase.OPEN
    assert [(end.exit_code, end.signal) for end in ends.values()] == [
        (3, None), (0, None), (None, 9), (0, None),
    ]  # fmt: skip
    assert list(map(bytes, logs.values())) == [
        b"out\nerr\n", b"x" * 300_000, b"up\n", b"".join(b"%d\n" % n for n in range(1, 9)),
    ]  # fmt: skip


def test_this_agent_understands_what_its_servers_said(history: History) -> None:
    keys = {id_: base64.b64decode(key) for id_, key in history.identity["server_keys"].items()}
    orders = 0
    for link in history.links:
        hello = codec.decode_from_agent(str(next(said(link, "agent"))))
        assert isinstance(hello, messages.Hello)
        conversation = AgentConversation(
            node=hello.node,
            cluster=history.identity["cluster"],
            server_name=hello.server_name,
            incarnation=hello.incarnation,
            boot_id=hello.boot_id,
            agent_version=hello.agent_version,
            generation=hello.generation,
            nonce=hello.nonce,
        )
        opened = False
        for frame in said(link, "server"):
            conversation.receive(frame)
            for event in conversation.events_received():
                opened |= isinstance(event, Opened)
                if isinstance(event, SignatureNeeded):
                    conversation.greet(hello.signature, clock=hello.clock)
                elif isinstance(event, Desired):
                    for wanted in event.attempts:
                        if (order := wanted.order) is not None:
                            signed = order_bytes(order.envelope)
                            VerifyKey(keys[order.key]).verify(signed, order.signature)
                            orders += 1
        assert opened
        assert conversation.phase is Phase.OPEN
    assert orders >= 4
