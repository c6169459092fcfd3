"""Secrets: set, never read. Their values leave the record only sealed for a node, within the order
of an attempt that names them.

What encrypts is given (`Sealing`): the record's transaction holds no key, and neither does the
gateway. A value is bound to its project, name and version, so that no row can be put in another's
place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple

import msgspec

from fleetwire.core.errors import BadSpec
from fleetwire.core.secrets import (
    Box,
    Content,
    Given,
    SecretUse,
    check_name,
    check_total,
    check_value,
    write_content,
)
from fleetwire.server.domain.errors import NotFound
from fleetwire.server.store import Connection
from fleetwire.server.store import secrets as rows
from fleetwire.server.store.engine import Tx
from fleetwire.server.store.secrets import SecretRow as SecretRow  # noqa: PLC0414 - what this room shows
from fleetwire.server.store.secrets import ValueRow

_DOMAIN: Final = "fleetwire secret 1"
_encode = msgspec.json.Encoder().encode


class Sealing(NamedTuple):
    """How values are encrypted for the record (value, context), decrypted (box, context), and
    sealed for a node (its X25519 key, content).
    """

    seal: Callable[[bytes, bytes], Box]
    unseal: Callable[[Box, bytes], bytes]
    for_node: Callable[[bytes, bytes], bytes]


def put(  # each argument is one thing that is recorded
    tx: Tx, project: str, name: str, value: bytes, *, by: str, sealing: Sealing
) -> tuple[SecretRow, bool]:
    """Set a secret of a project; `by` is a user's id. Return it as it is shown, and whether it is
    new. Raises BadSpec, LimitExceeded.
    """
    check_name(name, "name")
    check_value(value)
    before = rows.one(tx.connection, project, name)
    version = 1 if before is None else before.version + 1
    box = sealing.seal(value, context(project, name, version))
    columns = {
        "version": version,
        "key_id": box.key_id,
        "nonce": box.nonce,
        "data": box.data,
        "updated_at": tx.now,
        "updated_by": by,
    }
    if before is None:
        rows.insert_secret(
            tx.connection,
            {"project_id": project, "name": name, "created_at": tx.now, **columns},
        )
    else:
        rows.change(tx.connection, project, name, **columns)
    after = rows.one(tx.connection, project, name)
    if after is None:
        raise AssertionError("what was just stored is there")
    return after, before is None


def page(
    connection: Connection, within: Collection[str], *, after: str | None, limit: int
) -> list[SecretRow]:
    """Return the secrets of these projects by name, without their values, from after the one whose
    `place` is given.
    """
    name, _, project = (after or "").partition("/")
    return rows.page(connection, within, after=(name, project) if after else None, limit=limit)


def place(row: SecretRow) -> str:
    """Return where a secret stands in a list: no name has a slash."""
    return f"{row.name}/{row.project_id}"


def delete(tx: Tx, project: str, name: str) -> None:
    """Delete a secret, or raise NotFound. What has its order already keeps its value."""
    if not rows.remove(tx.connection, project, name):
        raise NotFound(f"There is no secret {name}.", hint="fleetwire secrets lists them.")


def check_known(connection: Connection, project: str, uses: Sequence[SecretUse]) -> None:
    """Raise BadSpec for the first that does not exist."""
    known = rows.values(connection, project, {use.name for use in uses})
    for number, use in enumerate(uses):
        if use.name not in known:
            raise _unknown(use.name, f"spec.secrets[{number}].name")


class Sealer:
    """Seals the secrets of the attempts of one round of dispatch; each value is read once."""

    def __init__(self, tx: Tx, sealing: Sealing) -> None:
        self._tx = tx
        self._sealing = sealing
        self._values: dict[tuple[str, str], bytes] = {}
        self._sealed: dict[str, tuple[int, bytes]] = {}

    def take(  # each argument is one thing that it is sealed for
        self, project: str, uses: Sequence[SecretUse], *, attempt: str, epoch: int, key: bytes
    ) -> bytes:
        """Return what one attempt is given, sealed for its node, and keep it for `store`. Raises
        FleetwireError: a secret was deleted meanwhile, or cannot be decrypted.
        """
        self._read(project, {use.name for use in uses})
        given = []
        for use in uses:
            value = self._values.get((project, use.name))
            if value is None:
                raise _unknown(use.name, "spec.secrets")
            given.append(Given(use.name, use.as_, use.to, value))
        check_total(given)
        content = write_content(Content(attempt, epoch, tuple(given)))
        sealed = self._sealing.for_node(key, content)
        self._sealed[attempt] = epoch, sealed
        return sealed

    def store(self) -> None:
        """Store what was sealed, and when its secrets were used."""
        rows.put_sealed(self._tx.connection, self._sealed)
        for project, name in self._values if self._sealed else ():
            rows.change(self._tx.connection, project, name, last_used_at=self._tx.now)

    def _read(self, project: str, names: Collection[str]) -> None:
        missing = [name for name in names if (project, name) not in self._values]
        if missing:
            for name, row in rows.values(self._tx.connection, project, missing).items():
                self._values[project, name] = self._sealing.unseal(row.box, _context_of(row))


def encrypt_anew(tx: Tx, *, before: Sealing, after: Sealing) -> int:
    """Decrypt every secret and encrypt it again; return how many."""
    found = rows.all_values(tx.connection)
    for row in found:
        bound = _context_of(row)
        box = after.seal(before.unseal(row.box, bound), bound)
        rows.change(
            tx.connection,
            row.project,
            row.name,
            key_id=box.key_id,
            nonce=box.nonce,
            data=box.data,
        )
    return len(found)


def forget_all(tx: Tx) -> int:
    """Delete every secret: the key is lost. Return how many there were."""
    return rows.remove_all(tx.connection)


def key_ids(connection: Connection) -> frozenset[str]:
    """Return the ids of the master keys that the values are encrypted with."""
    return rows.key_ids(connection)


def spent(connection: Connection) -> tuple[list[tuple[str, int]], bool]:
    """Return what was sealed and is not needed any more, as attempt and epoch, and whether
    anything is sealed.
    """
    return rows.spent(connection)


def drop(tx: Tx, found: Sequence[tuple[str, int]]) -> None:
    """Forget what `spent` has found: nothing that was sealed for the same attempts since."""
    rows.drop_sealed(tx.connection, found)


def context(project: str, name: str, version: int) -> bytes:
    """Return what a value is bound to."""
    return _encode([_DOMAIN, project, name, version])


def _context_of(row: ValueRow) -> bytes:
    return context(row.project, row.name, row.version)


def _unknown(name: str, field: str) -> BadSpec:
    return BadSpec(
        f"There is no secret {name!r}.",
        hint=f"Set it first: fleetwire secrets set {name}",
        field=field,
    )
