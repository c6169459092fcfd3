"""The level: what a node should have, and what it has (law 1).

The server sends Desired, the agent sends Observed, on connect and then as deltas of the same
shape. Absence means nothing: an attempt that is not mentioned runs on and keeps its spool.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from fleetwire.core import limits
from fleetwire.core.dispatch import AdminState
from fleetwire.core.envelopes import Envelope
from fleetwire.core.happenings import Count, Happening
from fleetwire.core.ids import WHOLE
from fleetwire.core.specs import Spec
from fleetwire.core.stops import StopOrder

NodeWish: TypeAlias = Literal["run", "stop", "forget"]


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything needed to start an attempt, with the server's signature over the envelope.
    `secrets` is sealed for the node (core.secrets.Content); empty where the spec names none.
    """

    spec: Spec
    envelope: Envelope
    key: str
    signature: bytes
    secrets: bytes = b""


class Wanted(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the server wants of one attempt on this node.

    `have` is the server's durable log length: the agent sends from there (law 2). `order` is
    there only while it may still start; `forget` means its folder may go (it is sealed, or
    the server never knew it).

    `stop` is the order of a stop, for nodes whose agent knows `signed-stops`.

    `attempt` becomes the name of a folder on the node, for deletions too, which need no signature:
    so nothing but an id is ever taken from the wire.
    """

    attempt: Annotated[str, msgspec.Meta(pattern=WHOLE)]
    epoch: int
    wish: NodeWish
    have: int = 0
    grace: float | None = None
    order: Order | None = None
    stop: StopOrder | None = None


class Desired(msgspec.Struct, frozen=True):
    """Attempts this node should have. `revision` and `admin` are persisted by the node before
    it confirms them (5.13).
    """

    revision: int
    admin: AdminState
    attempts: tuple[Wanted, ...] = ()


class Observation(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that the node can say of one attempt. `length` is what its spool can read, once it has
    ended. `begins` is where its spool begins, where that matters: once it has ended (nothing of it
    is trimmed from then on), or when the server asked for what was trimmed before. Who knows no
    `begins` is not told where it is 0.
    """

    attempt: Annotated[str, msgspec.Meta(min_length=36, max_length=36)]
    epoch: Count
    happenings: Annotated[
        tuple[Happening, ...], msgspec.Meta(max_length=limits.HAPPENINGS_PER_OBSERVATION)
    ] = ()
    length: Count = 0
    begins: Count = 0


class Observed(msgspec.Struct, frozen=True):
    """Attempts this node has. `complete` is set on the last frame of a full report: only then
    may the server conclude anything from what was not mentioned.
    """

    revision: int
    attempts: tuple[Observation, ...] = ()
    complete: bool = False
