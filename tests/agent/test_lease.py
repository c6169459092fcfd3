from __future__ import annotations

from fleetwire.agent.lease import Lease


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds

    def wall(self) -> int:
        return 5


def test_counts_from_when_it_was_asked_for() -> None:
    clock = Clock()
    lease = Lease(clock, clock.wall)
    assert not lease.holds()
    lease.grant(sent_at=99.0, lease_s=60.0, server_clock=1_000_000)
    clock.seconds = 158.9
    assert lease.holds()
    clock.seconds = 159.0
    assert not lease.holds()
    lease.renew(sent_at=158.0, server_clock=60_000_000)
    assert lease.holds()


def test_an_old_answer_shortens_nothing() -> None:
    clock = Clock()
    lease = Lease(clock, clock.wall)
    lease.grant(sent_at=100.0, lease_s=60.0, server_clock=0)
    lease.renew(sent_at=90.0, server_clock=0)
    clock.seconds = 155.0
    assert lease.holds()


def test_the_servers_clock_goes_on() -> None:
    clock = Clock()
    lease = Lease(clock, clock.wall)
    assert lease.server_now() == 5
    lease.grant(sent_at=100.0, lease_s=60.0, server_clock=1_000_000)
    clock.seconds = 102.5
    assert lease.server_now() == 3_500_000
