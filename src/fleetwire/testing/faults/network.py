"""Rounds that break the network between agents and server (P5, P9, P20)."""

from __future__ import annotations

from fleetwire.testing.faults import namespace
from fleetwire.testing.faults.proxy import HOW, Trouble
from fleetwire.testing.faults.stage import Act, Stage
from fleetwire.testing.simulation.chance import Chance

_TROUBLES = 6


def network(stage: Stage) -> None:
    """A TCP proxy cuts, tears, refuses, holds back, delays, throttles, or stays half open."""
    with stage.loaded():
        stage.play([troubled(stage, name, stage.times(_TROUBLES)) for name in stage.system.names])


def drop(stage: Stage) -> None:
    """nftables drop the packets of one direction or both, in a network namespace."""
    with stage.loaded(), namespace.Filter() as packets:
        stage.play([_dropped(stage, name, packets) for name in stage.system.names])


def trouble(chance: Chance) -> Trouble:
    """Return a trouble by chance."""
    how = chance.pick(HOW)
    for_s = chance.between(0.1, 2.0) if chance.odds(0.7) else chance.between(2.0, 12.0)
    amount = chance.whole(20, 400)
    if how == "throttled":
        amount = chance.whole(2_000, 200_000)
    elif how == "torn":
        amount = chance.whole(1, 20_000)
    return Trouble(how, for_s, amount)


def troubled(stage: Stage, name: str, times: int) -> Act:
    """So many troubles of a node's network after each other."""
    chance = stage.chance.fork(f"network {name} {len(stage.story)}")
    proxy = stage.system.proxies[name]
    for _ in range(times):
        yield chance.between(0.2, 2.0)
        chosen = trouble(chance)
        stage.did(f"{name} {chosen.how} {chosen.amount} for {chosen.for_s:.2f} s", chosen.how)
        proxy.trouble(chosen)
        yield chosen.for_s
        proxy.peace()


def _dropped(stage: Stage, name: str, packets: namespace.Filter) -> Act:
    chance = stage.chance.fork(f"drop {name}")
    port = stage.system.proxies[name].port
    for _ in range(stage.times(_TROUBLES - 2)):
        yield chance.between(0.2, 3.0)
        way = chance.pick(namespace.WAYS)
        for_s = chance.between(0.2, 3.0) if chance.odds(0.7) else chance.between(3.0, 15.0)
        stage.did(f"drop {way} packets of {name} for {for_s:.2f} s", f"drop-{way}")
        packets.drop(port, way)
        yield for_s
        packets.accept(port)
