"""The second factor of a login: codes of an authenticator app, and recovery codes.

Of the codes of an app the server needs the secret itself to check one, so it stands encrypted with
the master key (`domain.encrypted`), bound to its user; of a recovery code a hash is enough.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from fleetwire.core import totp
from fleetwire.core.errors import FleetwireError
from fleetwire.server.domain.secrets import Sealing
from fleetwire.server.store import Connection, factors
from fleetwire.server.store.engine import Tx

ISSUER: Final = "Fleetwire"
RECOVERY_CODES: Final = 10
_DOMAIN: Final = "fleetwire totp 1"


class NoFactor(FleetwireError):
    """No second factor was begun, or there is one already."""

    code = "no-second-factor"


class BadCode(FleetwireError):
    """A code of a second factor is wrong, old or used."""

    code = "bad-code"


def is_on(connection: Connection, user: str) -> bool:
    """Say whether a login needs a code."""
    return since(connection, user) is not None


def since(connection: Connection, user: str) -> int | None:
    """Return when the second factor that a login needs was confirmed (microseconds since 1970),
    None where it needs none: another number is another factor.
    """
    return factors.confirmed_at(connection, user)


def begin(tx: Tx, user: str, *, name: str, secret: bytes, sealing: Sealing) -> str:
    """Begin a second factor with this secret; return what the app reads. It counts once `confirm`
    was given a code of it. Raises NoFactor where one counts already.
    """
    if is_on(tx.connection, user):
        raise NoFactor("There is a second factor already.", hint="End it first, with a code of it.")
    factors.put_totp(tx.connection, user, sealing.seal(secret, context(user)), tx.now)
    return totp.uri(secret, account=name, issuer=ISSUER)


def confirm(tx: Tx, user: str, code: str, *, recovery: Sequence[str], sealing: Sealing) -> None:
    """Make it count: the person has it. `recovery` are new recovery codes. Raises NoFactor,
    BadCode.
    """
    row = factors.totp(tx.connection, user)
    if row is None or row.confirmed_at is not None:
        raise NoFactor("No second factor waits to be confirmed.", hint="Begin one first.")
    step = totp.accept(sealing.unseal(row.box, context(user)), code, tx.now, row.last_step)
    if step is None:
        raise bad_code()
    factors.change_totp(tx.connection, user, confirmed_at=tx.now, last_step=step)
    factors.put_recovery(tx.connection, user, [digest(one) for one in recovery])


def left(connection: Connection, user: str) -> int:
    """Return how many recovery codes a user has left."""
    return factors.count_recovery(connection, user)


def use(tx: Tx, user: str, code: str, *, sealing: Sealing) -> bool:
    """Use a code of the app, or a recovery code; say whether it was good. None is good twice."""
    row = factors.totp(tx.connection, user)
    if row is None or row.confirmed_at is None:
        return False
    step = totp.accept(sealing.unseal(row.box, context(user)), code, tx.now, row.last_step)
    if step is not None:
        factors.change_totp(tx.connection, user, last_step=step)
        return True
    return factors.use_recovery(tx.connection, user, digest(code))


def end(tx: Tx, user: str) -> None:
    """Forget the second factor: of one who gave a code, or for one who has lost it."""
    factors.forget_totp(tx.connection, user)


def digest(code: str) -> str:
    """Return what is stored of a recovery code; of its 80 random bits nothing can be guessed."""
    told = "".join(char for char in code.lower() if char.isalnum())
    return hashlib.sha256(b"fleetwire recovery " + told.encode("utf-8", "replace")).hexdigest()


def context(user: str) -> bytes:
    """Return what a second factor's secret is bound to: it is nobody else's."""
    return msgspec.json.encode([_DOMAIN, user])


def bad_code() -> BadCode:
    """Return the error of a code that is not good."""
    return BadCode(
        "The code is wrong, too old, or was used already.",
        hint="Wait for the next one, and look at the clock of the device that shows it.",
        field="code",
    )
