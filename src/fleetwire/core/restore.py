"""After a restore the record is older than the world (promise P26): what it shows as waiting may
have run since, and must not run again. Pure rules; `server.domain.restore` carries them out.

An attempt *in doubt* is one that the restored record has and does not know to have begun. It is
held until every node that could have been given it since has said what it has. What a node says
it began is taken as it is, under the epoch it began with; what no node says anything of is lost,
because nodes forget what was sealed: that nobody speaks of it does not prove that it never ran.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from fleetwire.core.leases import EPOCH_MAX, generation_of

US: Final = 1_000_000
FIRST_HOUR: Final = 1_767_225_600 // 3600
"""2026-01-01, in hours since 1970."""
NAMED: Final = 3
LOST_IN_DOUBT: Final = (
    "start unknown: the record was restored from a backup, and no node says what became of it since"
)


class Doubt(msgspec.Struct, frozen=True):
    """A restore that is not settled yet. `before`: ids below it are in doubt. `nodes`: the name,
    by id, of those that have not yet said all they have.
    """

    before: str
    nodes: Mapping[str, str]


def held(doubt: Doubt | None, attempt: str, target: str | None) -> str | None:
    """Say why a waiting attempt must not be given to a node, or None. `target` is the node that
    it is bound to.
    """
    if doubt is None or attempt >= doubt.before:
        return None
    if target is not None:
        if target not in doubt.nodes:
            return None
        names = doubt.nodes[target]
    else:
        names = ", ".join(sorted(doubt.nodes.values())[:NAMED])
        if len(doubt.nodes) > NAMED:
            names += f" and {len(doubt.nodes) - NAMED} more"
    return f"the record was restored: held until {names} has said whether it ran since the backup"


def is_foreign(epoch: int, generation: int) -> bool:
    """Say whether an epoch that this record never gave may come from a later life of it: of a
    generation before ours, because a restore goes past all of them.
    """
    return epoch > 0 and generation_of(epoch) < generation


def generation_to_begin(stored: int, *, is_used: bool, now: int) -> int:
    """Return the generation of a server process that begins; `is_used`: epochs of the stored one
    were given.

    It is never below the hours since 2026, so that a record put back without a word still begins
    above what was given since its copy was made, unless that was within the same hour.
    """
    hours = now // US // 3600 - FIRST_HOUR
    most = generation_of(EPOCH_MAX)
    return min(max(stored + is_used, hours), max(most, stored))
