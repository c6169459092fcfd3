"""How simulated agents enrol: a token through the API, and the agents' own door, like a machine.

Blocking, in a few threads: the server commits what comes together in one go.
"""

from __future__ import annotations

import http.client
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit

import msgspec

import fleetwire
from fleetwire.agent import keys
from fleetwire.client import Client
from fleetwire.swarm.errors import SwarmError
from fleetwire.swarm.identities import Identity

PATH: Final = "/api/agents/register/"
AT_ONCE: Final = 16
_TIMEOUT_S: Final = 60.0
_NAME_TAKEN: Final = 409
_ANSWER_BYTES: Final = 64 * 1024


class Nature(NamedTuple):
    """What all agents of a swarm say of themselves when they enrol."""

    prefix: str
    labels: Mapping[str, str]
    capacity: int


class Enrolled(NamedTuple):
    """A new agent, and the cluster that took it in."""

    identity: Identity
    cluster: str


class _Answer(msgspec.Struct, frozen=True):
    node: str
    name: str
    cluster: str


class _Problem(msgspec.Struct, frozen=True):
    detail: str = ""
    hint: str = ""


class _Numbers:
    """Gives each number once, to several threads."""

    def __init__(self, after: int) -> None:
        self._next = after + 1
        self._lock = threading.Lock()

    def take(self) -> int:
        with self._lock:
            number = self._next
            self._next += 1
            return number


def enrol(
    connect: Callable[[], Client], nature: Nature, count: int, *, after: int
) -> Iterator[Enrolled]:
    """Enrol `count` agents with numbers above `after`; yield each when the server has it.

    `connect` makes a client of the API for one thread. Raises what the client raises, and
    SwarmError where the agents' door refuses.
    """
    numbers = _Numbers(after)
    threads = min(AT_ONCE, count)
    shares = [count // threads + (n < count % threads) for n in range(threads)]
    stopped = threading.Event()

    def work(share: int) -> list[Enrolled]:
        with connect() as client, _Door(client.url) as door:
            done = []
            for _ in range(share):
                if stopped.is_set():
                    break
                done.append(_enrol_one(client, door, nature, numbers))
            return done

    # Short shares, so that what has enrolled is kept soon, and shown.
    with ThreadPoolExecutor(threads, thread_name_prefix="enrol") as pool:
        try:
            for batch in pool.map(work, list(_split(shares))):
                yield from batch
        finally:
            stopped.set()


def _split(shares: list[int], most: int = 50) -> Iterator[int]:
    for share in shares:
        for begin in range(0, share, most):
            yield min(most, share - begin)


def _enrol_one(client: Client, door: _Door, nature: Nature, numbers: _Numbers) -> Enrolled:
    signing, sealing = keys.make_signing_key(), keys.make_sealing_key()
    while True:
        number = numbers.take()
        name = f"{nature.prefix}-{number:05}"
        body = {
            "token": client.create_enrolment_token(labels=nature.labels).token,
            "name": name,
            "signing_key": signing.public,
            "sealing_key": sealing.public,
            "incarnation": secrets.token_hex(16),
            "labels": dict(nature.labels),
            "agent_version": fleetwire.__version__,
            "capacity": nature.capacity,
        }
        answer = door.register(msgspec.json.encode(body))
        if answer is not None:
            identity = Identity(number, name, answer.node, signing.private)
            return Enrolled(identity, answer.cluster)


class _Door:
    """A connection to where machines enrol."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        make = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._connection = make(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
        self._path = parts.path.rstrip("/") + PATH

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def register(self, body: bytes) -> _Answer | None:
        """Show a token; None where an agent of an earlier start has this name."""
        try:
            self._connection.request("POST", self._path, body, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            answer = response.read(_ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise SwarmError(
                f"The server went away while agents enrolled: {error}.",
                hint="Start the swarm again: it goes on with those it has.",
            ) from error
        if response.status == _NAME_TAKEN:
            return None
        if response.status != 201:
            problem = _problem(answer)
            raise SwarmError(
                f"The server refused to enrol an agent ({response.status}): {problem.detail}",
                hint=problem.hint,
            )
        return msgspec.json.decode(answer, type=_Answer)


def _problem(answer: bytes) -> _Problem:
    try:
        return msgspec.json.decode(answer, type=_Problem)
    except msgspec.DecodeError:
        return _Problem("it gave no reason")
