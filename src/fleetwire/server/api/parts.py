"""What the API works with, put together once by `server.app`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import Request

from fleetwire.core import limits
from fleetwire.core.envelopes import SignedKey
from fleetwire.core.sparing import Sparing
from fleetwire.server.api.auth import Authenticator
from fleetwire.server.api.oidc import Provider
from fleetwire.server.api.passwords import Passwords
from fleetwire.server.api.throttle import LoginThrottle
from fleetwire.server.domain.audit import Key
from fleetwire.server.domain.secrets import Sealing
from fleetwire.server.domain.submissions import Submissions
from fleetwire.server.logs.base import LogStore
from fleetwire.server.nudges.base import Nudges
from fleetwire.server.store.engine import Database

STREAMS_PER_USER: Final = limits.STREAMS_PER_USER


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of one server process, as routes need them.

    `ids` makes an id, `secret` a random text of 256 bits, `clock` is wall time in microseconds
    since 1970. `readiness` says, by name, what does not work now (empty: all is well);
    `warnings` what works and is yet not as promised. `leaving` is set when the server
    is about to stop: streams end then. `monotonic` is seconds; `refusals` says which refusals are
    audited, where there are many. `ca_fingerprint` is of the CA that agents pin, None where
    there is none; `rotations` says which signing key followed which. `oidc` is where people
    can log in besides here.
    """

    database: Database
    submissions: Submissions
    sealing: Sealing
    audit_key: Key
    logs: LogStore
    nudges: Nudges
    auth: Authenticator
    passwords: Passwords
    throttle: LoginThrottle
    ids: Callable[[], str]
    secret: Callable[[], str]
    clock: Callable[[], int]
    monotonic: Callable[[], float]
    readiness: Callable[[], Awaitable[Mapping[str, str]]]
    warnings: Callable[[], Mapping[str, str]]
    leaving: asyncio.Event
    ca_fingerprint: Callable[[], str | None] = lambda: None
    oidc: Provider | None = None
    rotations: tuple[SignedKey, ...] = ()
    refusals: Sparing = field(
        default_factory=lambda: Sparing(
            limits.AUDIT_REFUSALS_PER_MIN,
            within_s=60.0,
            most_of_all=10 * limits.AUDIT_REFUSALS_PER_MIN,
        )
    )
    streams: dict[str, int] = field(default_factory=dict)
    """Open streams of each user, by id."""


def parts_of(request: Request) -> Parts:
    """Return the parts of the server that got this request."""
    parts: Parts = request.app.state.parts
    return parts
