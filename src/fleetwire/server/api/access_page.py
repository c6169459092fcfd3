"""docs/access.md: which role passes which door, written from the doors and `core.access` itself."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from fleetwire.core import access
from fleetwire.core.access import Rights
from fleetwire.server.api.doors import OPEN, Door

_HERE: Final = "p"
EVERYBODY: Final[dict[str, Rights]] = {
    "nobody": Rights(),
    **{role: Rights(roles={_HERE: frozenset({role})}) for role in access.ROLES},
    "system admin": Rights(is_system_admin=True),
}
"""Somebody with each role, and nothing else; `nobody` is a user without any."""

_ABOUT: Final = """# Who may do what

Written by `./dev openapi` from the code (`core/access.py`, the doors of `server/api`); a test
fails when this page is stale.

Anything that does not stand here is denied. A permission is had in a project by a role or a grant
there, and nowhere else; a system admin needs a role like everyone. What belongs to a project in
which somebody has no role does not exist for them (404); where they have a role that does not give
the permission, they are told so (403). The column *nobody* is a user without any role.

- **Nobody raises their own rights**, a system admin neither: that takes another person. Who makes a
  project is its founder, with every role and grant in it; the first user is a system admin and the
  founder of `default`.
- A project admin gives (and takes) no role that gives more than they have themselves; a system
  admin all of them, to others.
- An API token may at most what its owner may; narrowed to a project or to permissions it may less,
  and makes no token that is wider or lasts longer. No token may change its owner's account
  (password, second factor, logins).
- Who reads the audit: in a project its auditors; of the whole system, and of projects that are no
  more, system admins, or a token of theirs that is narrowed to `read-system-audit`. Nobody changes
  it.
- Disabled users, ended logins, deleted tokens and changed roles take effect at once in the process
  that is asked and within 5 s in every other one, for what is open (streams, downloads) too.
"""


def text(doors: Iterable[Door], open_routes: Iterable[str]) -> str:
    """Return the page."""
    parts = [_ABOUT, _permissions(), _doors(doors), _open(open_routes)]
    return "\n".join(parts)


def passes(rights: Rights, permission: str) -> bool:
    """Say whether somebody passes a door for something in the one project of `EVERYBODY`."""
    project = _HERE if permission in access.IN_PROJECT else None
    return permission == OPEN or access.allowed(rights, permission, project)


def _permissions() -> str:
    names = [*sorted(access.IN_PROJECT), *sorted(access.OF_SYSTEM), *sorted(access.OWN)]
    rows = [f"| `{one}` | {_of(one)} |{_marks(one)}" for one in names]
    return "\n".join(["## Permissions", "", *_head("permission", "of"), *rows, ""])


def _doors(doors: Iterable[Door]) -> str:
    rows = [
        f"| `{one.method} {one.path}` | `{one.permission}` |{_marks(one.permission)}"
        for one in sorted(doors, key=lambda one: (one.path, one.method))
        if one.permission != OPEN
    ]
    return "\n".join(["## Routes", "", *_head("route", "permission"), *rows, ""])


def _open(open_routes: Iterable[str]) -> str:
    rows = [f"- `{one}`" for one in sorted(open_routes)]
    return "\n".join(
        ["## Open routes", "", "All that answers somebody whom nobody knows:", "", *rows, ""]
    )


def _head(first: str, second: str) -> list[str]:
    names = [first, second, *EVERYBODY]
    return [f"| {' | '.join(names)} |", "|" + " --- |" * len(names)]


def _marks(permission: str) -> str:
    marks = ("yes" if passes(one, permission) else " " for one in EVERYBODY.values())
    return "".join(f" {mark} |" for mark in marks)


def _of(permission: str) -> str:
    if permission in access.IN_PROJECT:
        return "a project"
    return "the system" if permission in access.OF_SYSTEM else "oneself"


def main(arguments: Sequence[str]) -> int:
    """Write the page to a file, or to stdout."""
    from fleetwire.server.api.asgi import OPEN_ROUTES  # noqa: PLC0415 - it imports all doors
    from fleetwire.server.api.routes import DOORS  # noqa: PLC0415 - as above

    made = text(DOORS, OPEN_ROUTES)
    if arguments:
        Path(arguments[0]).write_text(made, encoding="utf-8")
    else:
        sys.stdout.write(made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
