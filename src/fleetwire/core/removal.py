"""When a node may be deleted: the record must not forget a machine that is at work."""

from __future__ import annotations

from fleetwire.core.dispatch import LinkState


def objection(name: str, link: LinkState, live: int, *, force: bool) -> str | None:
    """Say why a node must not be deleted now, or None. `live` counts its assigned and running
    attempts: what a node that is gone still had is lost with it, for that reason.
    """
    if force or link == "offline":
        return None
    busy = f" and has {live} attempt{'' if live == 1 else 's'} at work" if live else ""
    return f"Node {name} is {link}{busy}."
