"""The composition root of a swarm: it reads clock and chance, enrols whom it lacks, and runs."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - a composition root takes chance
import resource
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import uvloop

from fleetwire.client import Client
from fleetwire.swarm.behaviour import Behaviour
from fleetwire.swarm.enrolling import Nature, enrol
from fleetwire.swarm.errors import SwarmError
from fleetwire.swarm.fleet import Chances, Counts, Fleet
from fleetwire.swarm.identities import Identity, Registry

SPARE_FILES: Final = 64


class Asked(NamedTuple):
    """What a swarm is asked to be. `lasting_s`: how long, None until a signal; `spread_s`: the
    time over which the agents dial first; `every_s`: how often `show` is called.
    """

    state: Path
    agents: int
    labels: dict[str, str]
    capacity: int
    behaviour: Behaviour
    spread_s: float = 0.0
    lasting_s: float | None = None
    every_s: float = 0.5


class Shown(NamedTuple):
    """One look at the swarm, for people and programs. `elapsed_s` counts from the start."""

    phase: str
    counts: Counts
    elapsed_s: float


def run(asked: Asked, connect: Callable[[], Client], show: Callable[[Shown], None]) -> Counts:
    """Enrol the agents that are missing, let all live, and return what happened.

    Ends in order on SIGINT and SIGTERM. `show` is called now and then. Raises SwarmError, and
    what the client raises.
    """
    room_for(asked.agents)
    with Registry(asked.state) as registry:
        began = time.monotonic()
        _enrol_missing(asked, connect, registry, lambda done: show(_enrolling(done, began)))
        if registry.header is None:
            raise AssertionError("a swarm with agents has a header")
        with connect() as client:
            url = client.url
        agents = registry.agents[: asked.agents]
        return uvloop.run(_live(asked, url, registry.header.cluster, agents, show))


def room_for(agents: int) -> None:
    """Raise this process's limit of open files, or raise SwarmError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = agents + SPARE_FILES
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise SwarmError(
            f"{agents} agents need {needed} open files; this machine allows a process {hard}.",
            hint="Raise the limit (ulimit -n), or run several smaller swarms.",
        )
    if soft != resource.RLIM_INFINITY and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _enrol_missing(
    asked: Asked,
    connect: Callable[[], Client],
    registry: Registry,
    tell: Callable[[int], None],
) -> None:
    missing = asked.agents - len(registry.agents)
    if missing <= 0:
        return
    nature = Nature(registry.prefix, asked.labels, asked.capacity)
    after = max((one.number for one in registry.agents), default=0)
    for one in enrol(connect, nature, missing, after=after):
        registry.found(one.cluster)
        registry.add(one.identity)
        tell(len(registry.agents))


def _enrolling(done: int, began: float) -> Shown:
    return Shown("enrolling", Counts(agents=done), time.monotonic() - began)


async def _live(
    asked: Asked,
    url: str,
    cluster: str,
    agents: list[Identity],
    show: Callable[[Shown], None],
) -> Counts:
    leaving = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, leaving.set)
    if asked.lasting_s is not None:
        loop.call_later(asked.lasting_s, leaving.set)
    chances = Chances(
        wall=lambda: time.time_ns() // 1000,
        chance=random.SystemRandom().random,
        nonce=lambda: secrets.token_hex(16),
    )
    fleet = Fleet(url, cluster, agents, asked.behaviour, chances)
    began = time.monotonic()
    unread: list[BrokenPipeError] = []

    async def tell() -> None:
        while not unread:
            try:
                show(Shown("running", fleet.counts, time.monotonic() - began))
            except BrokenPipeError as error:  # nobody listens any more
                unread.append(error)
                leaving.set()
            await asyncio.sleep(asked.every_s)

    async with asyncio.TaskGroup() as group:
        telling = group.create_task(tell())
        await fleet.run(leaving, spread_s=asked.spread_s)
        telling.cancel()
    if unread:
        raise unread[0]
    show(Shown("left", fleet.counts, time.monotonic() - began))
    return fleet.counts
