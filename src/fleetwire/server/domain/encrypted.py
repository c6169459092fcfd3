"""All that the record holds encrypted with the master key: the values of secrets, and the secrets
of second factors.
"""

from __future__ import annotations

import msgspec

from fleetwire.core import totp
from fleetwire.server.domain import factors, secrets
from fleetwire.server.domain.secrets import Sealing
from fleetwire.server.store import Connection
from fleetwire.server.store import factors as factor_rows
from fleetwire.server.store.engine import Tx


class Counted(msgspec.Struct, frozen=True):
    """How many of each were encrypted anew, or deleted."""

    secrets: int
    second_factors: int


def key_ids(connection: Connection) -> frozenset[str]:
    """Return the ids of the master keys that anything is encrypted with."""
    return secrets.key_ids(connection) | factor_rows.key_ids(connection)


def encrypt_readable(tx: Tx, sealing: Sealing) -> int:
    """Encrypt the secrets of second factors that an older server left readable; return how many.
    Cut short, or done again, it is the same.
    """
    found = factor_rows.readable(tx.connection)
    for user, text in found.items():
        box = sealing.seal(totp.from_text(text), factors.context(user))
        factor_rows.put_box(tx.connection, user, box)
    return len(found)


def encrypt_anew(tx: Tx, *, before: Sealing, after: Sealing) -> Counted:
    """Decrypt everything and encrypt it again. Raises BadMasterKey."""
    found = factor_rows.boxes(tx.connection)
    for user, box in found.items():
        bound = factors.context(user)
        again = after.seal(before.unseal(box, bound), bound)
        factor_rows.put_box(tx.connection, user, again)
    count = len(found) + encrypt_readable(tx, after)
    return Counted(secrets.encrypt_anew(tx, before=before, after=after), count)


def forget_all(tx: Tx) -> Counted:
    """Delete it all: the key is lost. People log in by their password alone then."""
    return Counted(secrets.forget_all(tx), factor_rows.forget_all(tx.connection))
