"""What happened to nodes, told where it was noticed (law 9)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fleetwire.core.absences import Known, Life, classify
from fleetwire.server.store import Connection, decisions
from fleetwire.server.store.decisions import Decision, Happened
from fleetwire.server.store.engine import Tx
from fleetwire.server.store.nodes import Greeted

__all__ = ["Happened", "events", "read_life", "return_of", "say", "say_all", "write_life"]

_encode = msgspec.json.Encoder().encode
_life = msgspec.json.Decoder(Life)


def say(tx: Tx, node: str, text: str) -> None:
    """Record what happened to a node."""
    say_all(tx, [(node, text)])


def say_all(tx: Tx, told: Iterable[tuple[str, str]]) -> None:
    """Record what happened to nodes, in order."""
    lines = [Decision(tx.now, None, None, node, None, text) for node, text in told]
    decisions.record(tx.connection, lines)


def events(connection: Connection, node: str, *, before: int | None, limit: int) -> list[Happened]:
    """Return what happened to a node, newest first, from below the id `before`."""
    return decisions.of_node(connection, node, before=before, limit=limit)


def read_life(stored: str | None) -> Life | None:
    """Return the stored word of an agent on itself."""
    return None if stored is None else _life.decode(stored)


def write_life(life: Life | None) -> str | None:
    """Return it as it is stored."""
    return None if life is None else _encode(life).decode()


def return_of(was: Greeted, boot_id: str, life: Life | None, away_s: float | None) -> str | None:
    """Say that a node is back, after how long and why it was away, or None where that is no news:
    it comes for the first time, or only because this server was away, or it flaps, which is told
    once and counted. `away_s` is None where this process has not heard it before.
    """
    if was.boot_id is None:
        return None
    here = away_s is not None
    before, now = Known(was.boot_id, read_life(was.life)), Known(boot_id, life)
    absence = classify(before, now, heard_here=here)
    if absence.cause == "server" or (was.reconnects and absence.cause in {"network", "unknown"}):
        return None
    after = "" if away_s is None else f" after {away_s:.0f} s"
    return f"is back{after}: {absence.text}"
