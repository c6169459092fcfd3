"""Who was heard when, in a fleet whose nodes come and go."""

from __future__ import annotations

from fleetwire.server.gateway.links import Links


class Quiet:
    """A link of which only its node is of interest."""

    def __init__(self, node: str, link_epoch: int) -> None:
        self.node = node
        self.link_epoch = link_epoch

    def close(self, code: int, reason: str) -> None:
        """End it."""


def test_who_is_gone_is_forgotten_and_who_is_here_is_not() -> None:
    links = Links[Quiet](monotonic=lambda: 100.0, clock=lambda: 10**15)
    made = {node: Quiet(node, 1) for node in ("stays", "gone", "new")}
    for link in made.values():
        links.add(link)
        links.add(Quiet(link.node, 2))
        links.skewed(link.node, 5)
    for node in ("stays", "gone"):
        links.remove(links.get(node) or made[node])
    links.keep({"stays"})  # `new` has enrolled since that was read
    for known in (links._heard, links._returns, links._skews):
        assert set(known) == {"stays", "new"}
    assert links.away_s("gone") is None
    assert links.away_s("stays") == 0.0
