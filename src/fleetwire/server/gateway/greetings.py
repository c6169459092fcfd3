"""Hellos taken together. When a server comes back, its whole fleet greets at once: alone, a hello
costs a read, two commits and a signature; a hundred together cost little more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

import structlog
from nacl.exceptions import CryptoError
from nacl.signing import SigningKey, VerifyKey

from fleetwire.core.errors import FleetwireError
from fleetwire.core.sparing import Sparing
from fleetwire.protocol import versions
from fleetwire.protocol.conversation import VerifyNeeded
from fleetwire.protocol.versions import FEATURES
from fleetwire.server.domain import audit, desired, nodes
from fleetwire.server.domain.audit import Hello as Refused
from fleetwire.server.domain.desired import Asked, Level
from fleetwire.server.domain.nodes import Accepted, Greeting, NodeRefused, NodeWaiting
from fleetwire.server.log import log_failure
from fleetwire.server.store import Connection
from fleetwire.server.store.engine import Database, DatabaseFailed, Tx

TOGETHER: Final = 128
REFUSALS_PER_HOUR: Final = 3
"""Refused hellos of one node that the audit is told of."""

NOBODY: Final = bytes(SigningKey(bytes(32)).verify_key)
"""A key to verify by where there is none."""

_log = structlog.get_logger()


class Unverified(Exception):
    """Unknown, wrong key and wrong signature look alike."""


class Welcomed(NamedTuple):
    """An accepted hello: the terms, and the whole level of its node, its orders offered."""

    accepted: Accepted
    level: Level


class _Hello(NamedTuple):
    node: str
    needed: VerifyNeeded
    address: str | None
    away_s: float | None
    holds: bool
    answer: asyncio.Future[Welcomed]


class Greetings:
    """Takes the hellos of all links, as many as there are, in one use case after another.

    `key` is the id of the server's key, with which orders are signed; `signs`: stops are, too.
    """

    def __init__(
        self,
        database: Database,
        *,
        key: str,
        signs: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._monotonic = monotonic
        self._refusals = Sparing(
            REFUSALS_PER_HOUR, within_s=3600.0, most_of_all=100 * REFUSALS_PER_HOUR
        )
        self._key = key
        self._signs = signs
        self._queue: list[_Hello] = []
        self._some = asyncio.Event()

    async def take(
        self,
        node: str,
        needed: VerifyNeeded,
        address: str | None,
        away_s: float | None = None,
        *,
        holds: bool = False,
    ) -> Welcomed:
        """Check who it is and take it; returns after the commit. `away_s` is how long the node was
        silent here, None where it was never heard; `holds` as of `Asked`. Raises Unverified,
        NodeRefused and what the database raises.
        """
        answer: asyncio.Future[Welcomed] = asyncio.get_running_loop().create_future()
        self._queue.append(_Hello(node, needed, address, away_s, holds, answer))
        self._some.set()
        return await answer

    async def run(self) -> None:
        """Take hellos until cancelled."""
        while True:
            await self._some.wait()
            batch: dict[str, _Hello] = {}
            rest: list[_Hello] = []
            for hello in self._queue:
                if hello.answer.done():
                    continue  # it has gone meanwhile
                if len(batch) < TOGETHER and hello.node not in batch:
                    batch[hello.node] = hello
                else:
                    rest.append(hello)
            self._queue = rest
            if not rest:
                self._some.clear()
            await self._take(list(batch.values()))

    async def _take(self, batch: Sequence[_Hello]) -> None:
        if not batch:
            return
        try:
            known = await self._database.read(partial(_verify, batch=batch))
            greeted = [hello for hello in batch if hello.node in known]
            answers = await self._database.write(partial(self._accept, batch=greeted))
        except DatabaseFailed as error:
            for hello in batch:
                _fail(hello, error)
            raise
        except Exception as error:  # noqa: BLE001 - it goes to the links it belongs to
            await self._take_apart(batch, error)
            return
        refused = []
        for hello in batch:
            answer = answers.get(hello.node, Unverified())
            if isinstance(answer, Exception):
                refused += self._refused(hello, answer)
                _fail(hello, answer)
            elif not hello.answer.done():
                hello.answer.set_result(answer)
        if refused:
            await self._note(refused)

    def _refused(self, hello: _Hello, error: Exception) -> list[Refused]:
        """Return what the audit is to be told of a hello that was refused: now and then, because
        who is refused comes again.
        """
        left_out = None
        if not isinstance(error, NodeWaiting):
            left_out = self._refusals.take(hello.node, self._monotonic())
        if left_out is None:
            return []
        is_verified = isinstance(error, NodeRefused)
        code = "locked-out" if is_verified else "wrong-key"
        return [Refused(hello.node, hello.address or "", code, is_verified, left_out)]

    async def _note(self, refused: list[Refused]) -> None:
        try:
            await self._database.write(partial(audit.note_hellos, refused=refused), grows=True)
        except DatabaseFailed:
            raise
        except Exception as error:  # noqa: BLE001 - logged; who was refused is told so all the same
            log_failure(_log, "refused hellos were not audited", error)

    async def _take_apart(self, batch: Sequence[_Hello], error: Exception) -> None:
        """One hello must not fail its neighbours: find out whose fault it is."""
        if len(batch) > 1 and not isinstance(error, FleetwireError):
            for hello in batch:
                await self._take([hello])
            return
        for hello in batch:
            _fail(hello, error)

    def _accept(self, tx: Tx, batch: Sequence[_Hello]) -> dict[str, Welcomed | NodeRefused]:
        greetings = {hello.node: _greeting(hello) for hello in batch}
        accepted = nodes.accept_hellos(tx, greetings)
        holds = {hello.node: hello.holds for hello in batch}
        features = {hello.node: hello.needed.hello.features for hello in batch}
        asked = {
            node: Asked(
                one.link_epoch,
                full=True,
                holds=holds[node],
                confines=versions.CONFINE in features[node],
                signs=self._signs and versions.SIGNED_STOPS in features[node],
            )
            for node, one in accepted.items()
            if isinstance(one, Accepted)
        }
        levels = desired.desired(tx, asked, key=self._key) if asked else {}
        return {
            node: Welcomed(one, levels[node]) if isinstance(one, Accepted) else one
            for node, one in accepted.items()
        }


def _verify(connection: Connection, batch: Sequence[_Hello]) -> set[str]:
    """Return the nodes whose signature is theirs (on a reader thread: it costs 60 us each, and
    the interpreter's lock is free meanwhile).
    """
    known = nodes.keys_of(connection, [hello.node for hello in batch])
    found = set()
    for hello in batch:
        node = known.get(hello.node)
        # Who is unknown costs as much as who is known and has the wrong key.
        is_theirs = _is_theirs(NOBODY if node is None else node.key, hello.needed)
        if node is not None and is_theirs:
            found.add(hello.node)
    return found


def _is_theirs(key: bytes, needed: VerifyNeeded) -> bool:
    try:
        VerifyKey(key).verify(needed.signed, needed.signature)
    except (CryptoError, ValueError):
        return False
    return True


def _greeting(hello: _Hello) -> Greeting:
    said = hello.needed.hello
    return Greeting(
        incarnation=said.incarnation,
        boot_id=said.boot_id,
        agent_version=said.agent_version,
        generation=said.generation,
        clock=said.clock,
        address=hello.address,
        life=said.life,
        away_s=hello.away_s,
        step=said.step,
        is_bound=versions.BOUND in said.features,
        # Bounded by what we know, whatever it lists.
        features=frozenset(FEATURES).intersection(said.features),
    )


def _fail(hello: _Hello, error: Exception) -> None:
    if not hello.answer.done():
        hello.answer.set_exception(error)
