"""The agent's composition root: the only place here that reads the clock and takes chance.

main(config)  enrol if need be, then `run` on asyncio's own loop
leaving       SIGTERM, SIGINT, or the parent's end: the link is closed, attempts live on
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import secrets
import select
import signal
import sys
import time
from typing import Final

import fleetwire
from fleetwire.agent import enrol, logs, platforms, protection, trust
from fleetwire.agent.cleaner import Cleaner
from fleetwire.agent.config import AgentConfig
from fleetwire.agent.errors import AlreadyRunning
from fleetwire.agent.folders import Places
from fleetwire.agent.identity import Identity
from fleetwire.agent.lease import Lease
from fleetwire.agent.life import LifeBook
from fleetwire.agent.link import Link, Parts
from fleetwire.agent.policy import LocalPolicy
from fleetwire.agent.reserve import Reserve
from fleetwire.agent.roster import Roster
from fleetwire.agent.spawner import SpawnerLine
from fleetwire.agent.starter import Starter
from fleetwire.agent.status import Status
from fleetwire.agent.steps import StepBook
from fleetwire.agent.stops import Stops
from fleetwire.agent.vault import Vault
from fleetwire.agent.watch import open_watch
from fleetwire.core.errors import FleetwireError
from fleetwire.core.visible import visible_text
from fleetwire.shim.spool import is_locked

LOCK: Final = "agent.lock"
_log = logging.getLogger(__name__)


class _Leaving(Exception):
    """Ends the agent's task group; attempts live on."""


def main(config: AgentConfig) -> int:
    """Run the agent until it is asked to leave. Returns the exit code: 0 left, 1 cannot run
    (said on stderr and in the log).
    """
    try:
        places = Places(config.state)
        places.make()
        lock = platforms.lock_file(os.path.join(config.state, LOCK))
        if lock is None:
            raise AlreadyRunning(
                f"Another agent is using the state directory {config.state}.",
                hint="Stop it first, or give this one a directory of its own with --state.",
            )
    except OSError as error:
        print(  # noqa: T201 (there is no log yet)
            f"fleetwire agent: the state directory {config.state} cannot be used: "
            f"{error.strerror}. Give another one with --state, or mend its rights.",
            file=sys.stderr,
        )
        return 1
    except FleetwireError as error:
        print(f"fleetwire agent: {visible_text(str(error))}", file=sys.stderr)  # noqa: T201 (as above)
        return 1
    try:
        logs.configure(
            config.log_dir,
            level=config.log_level,
            style=config.log_format,
            max_bytes=config.log_max_bytes,
            max_files=config.log_max_files,
        )
        for notice in config.notices:
            _log.warning("%s", notice)

        def pause(seconds: float) -> None:
            _pause(seconds, config.parent_fd)

        known = trust.settle(config, pause=pause)
        policy = LocalPolicy(config.policy)
        identity = enrol.ensure_identity(
            config,
            capacity=policy.capacity(config.max_concurrent),
            pause=pause,
            ask_token=enrol.ask_person if enrol.can_ask() else None,
            trust=known,
        )
        return asyncio.run(run(config, identity, places, known, policy))
    except FleetwireError as error:
        _log.error("%s", error)
        return 1
    except (KeyboardInterrupt, _Leaving):
        return 0
    finally:
        os.close(lock)


async def run(
    config: AgentConfig,
    identity: Identity,
    places: Places,
    known: trust.Trust,
    policy: LocalPolicy,
) -> int:
    """Run an enrolled agent that holds the lock on its state directory."""
    clock, wall = platforms.clock, wall_us
    status = Status(config.state, version=fleetwire.__version__, wall=wall)
    status.introduce(identity.node, identity.name)
    lease = Lease(clock, wall)
    cleaner = Cleaner(
        places,
        keep_s=config.keep_sealed_s,
        keep_bytes=config.keep_sealed_bytes,
        clock=clock,
        wall=wall,
        status=status,
    )
    reserve = Reserve(config.state)
    vault = Vault(config.state)
    spawner = SpawnerLine(config.state, status)
    around = protection.look()._replace(secrets_in_memory=vault.is_in_memory)
    status.say("protection", around.sentence())
    _log.info("around tasks: %s", around.sentence())
    roster = Roster(
        places,
        capacity=config.max_concurrent,
        starter=Starter(
            config,
            identity,
            places,
            lease.server_now,
            boot_id=platforms.boot_id(),
            vault=vault,
            policy=policy,
            around=around,
        ),
        stops=Stops(identity),
        policy=policy,
        spawner=spawner,
        cleaner=cleaner,
        lease=lease,
        status=status,
        wall=wall,
        reserve=reserve,
    )
    chance = random.SystemRandom().random
    book = LifeBook(
        config.state,
        agent=secrets.token_hex(16),
        boot_id=platforms.boot_id(),
        slept=platforms.slept_s,
        wall=wall,
        monotonic=time.monotonic,
    )
    marks = StepBook(config.state, lambda: secrets.token_hex(16))
    link = Link(
        Parts(
            config,
            identity,
            roster,
            lease,
            status,
            book,
            policy,
            around,
            clock,
            wall,
            chance,
            known,
            marks,
        )
    )
    watch = open_watch(roster.written)
    roster.watch_add, roster.watch_remove = watch.add, watch.remove
    roster.scan()
    vault.sweep(lambda attempt: is_locked(places.spool(attempt)))
    leaving = asyncio.Event()
    _listen_for_leave(leaving, config.parent_fd)
    _log.info("agent %s of node %s", fleetwire.__version__, identity.name)
    try:
        async with asyncio.TaskGroup() as group:
            roster.begin(group)
            group.create_task(link.run(), name="link")
            group.create_task(spawner.run(), name="spawner")
            group.create_task(cleaner.run(), name="cleaner")
            group.create_task(_leave(leaving, link), name="leave")
            # What stands now stays: the collector needs not look at it ever again.
            gc.collect()
            gc.freeze()
    except* _Leaving:
        _log.info("left; %d attempts live on", roster.busy)
        book.leave()
    finally:
        spawner.close()
        watch.close()
        reserve.close()
        status.say("agent", "left; attempts live on")
        status.write()
    return 0


def wall_us() -> int:
    """Return microseconds since 1970."""
    return time.time_ns() // 1000


async def _leave(leaving: asyncio.Event, link: Link) -> None:
    await leaving.wait()
    await link.leave()
    raise _Leaving


def _listen_for_leave(leaving: asyncio.Event, parent_fd: int | None) -> None:
    loop = asyncio.get_running_loop()
    for number in platforms.LEAVE_SIGNALS:
        # Under nohup, or in the background of a shell, it is to be ignored and stays so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, leaving.set)
    if parent_fd is not None:
        loop.add_reader(parent_fd, _read_parent, leaving, parent_fd)


def _read_parent(leaving: asyncio.Event, parent_fd: int) -> None:
    try:
        data = os.read(parent_fd, 4096)
    except BlockingIOError:
        return
    if not data:
        asyncio.get_running_loop().remove_reader(parent_fd)
        leaving.set()


def _pause(seconds: float, parent_fd: int | None) -> None:
    """Wait before the next try to enrol; leave when the parent has gone."""
    if parent_fd is None:
        time.sleep(seconds)
        return
    readable, _, _ = select.select([parent_fd], [], [], seconds)
    if readable and not os.read(parent_fd, 4096):
        raise _Leaving
