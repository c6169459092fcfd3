"""Who somebody is here, whom an OpenID provider has told us of."""

from __future__ import annotations

from collections.abc import Callable

from fleetwire.core.errors import FleetwireError
from fleetwire.core.names import is_name
from fleetwire.server.domain import people, users
from fleetwire.server.domain.errors import NameTaken
from fleetwire.server.domain.people import Account
from fleetwire.server.store import factors
from fleetwire.server.store.engine import Tx


class NotKnownHere(FleetwireError):
    """The provider vouches for somebody who is no user here, or no longer."""

    code = "not-known-here"


def enter(
    tx: Tx,
    *,
    issuer: str,
    subject: str,
    name: str | None,
    creates: bool,
    ids: Callable[[], str],
) -> Account:
    """Return the user that a verified (issuer, subject) is.

    One who is new becomes a user named as the provider says, who may nothing yet, where the
    server `creates` users; but never somebody who is there already: a name proves nothing. Raises
    NotKnownHere.
    """
    user = factors.user_of(tx.connection, issuer, subject)
    if user is None:
        if not creates:
            raise NotKnownHere(
                "You are no user of this server yet.", hint="Ask a system admin to make you one."
            )
        if name is None or not is_name(name) or people.account(tx.connection, name) is not None:
            raise NotKnownHere(
                "The name that your provider gives you cannot be used here, or is somebody's.",
                hint="Ask a system admin to make you a user and to link it.",
            )
        user = users.create(
            tx, name, password_hash=users.NO_PASSWORD, is_system_admin=False, ids=ids
        ).id
        factors.put_identity(tx.connection, issuer=issuer, subject=subject, user=user, now=tx.now)
    found = people.account_now(tx, user)
    check_enabled(tx, found)
    return found


def check_enabled(_: Tx, account: Account) -> None:
    """Raise NotKnownHere for somebody who may not log in any more."""
    if account.disabled:
        raise NotKnownHere("You are no user of this server any more.", hint="Ask a system admin.")


def link(tx: Tx, user: str, *, issuer: str, subject: str) -> None:
    """Say that this user (by id) is that (issuer, subject). Raises NameTaken."""
    if factors.user_of(tx.connection, issuer, subject) is not None:
        raise NameTaken(
            "This identity belongs to a user already.",
            hint="Look at the others.",
            field="oidc_subject",
        )
    factors.put_identity(tx.connection, issuer=issuer, subject=subject, user=user, now=tx.now)
