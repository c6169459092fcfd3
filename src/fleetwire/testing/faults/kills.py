"""Rounds that kill or stop processes at random instants (P2, P4 to P8, P13)."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable

import psutil

from fleetwire.testing.faults.stage import Act, Stage


def agent_kill(stage: Stage) -> None:
    """kill -9 of the agents, each by itself, again and again."""
    acts = [_agent(stage, name, 8) for name in stage.system.names]
    _under_load(stage, acts)


def server_kill(stage: Stage) -> None:
    """kill -9 of the server, at times while it starts."""
    _under_load(stage, [_server(stage, 16)])


def spawner_kill(stage: Stage) -> None:
    """kill -9 of the spawners."""
    _under_load(stage, [_spawner(stage, name, 8) for name in stage.system.names])


def shim_kill(stage: Stage) -> None:
    """kill -9 of shims, at times together with their spawner."""
    _under_load(stage, [_shim(stage, name, 8) for name in stage.system.names])


def all_kill(stage: Stage) -> None:
    """kill -9 of everything at random, at times of a whole node or of all at once."""
    acts = [_server(stage, 16), _everything(stage, 4)]
    for name in stage.system.names:
        acts += [_agent(stage, name, 9), _spawner(stage, name, 5), _shim(stage, name, 3)]
    _under_load(stage, acts)


def pause(stage: Stage) -> None:
    """SIGSTOP and SIGCONT of servers, agents, spawners, shims."""
    acts = [_pauses(stage, "server", _targets(stage, "")["server"], 4)]
    for name in stage.system.names:
        targets = _targets(stage, name)
        acts += [
            _pauses(stage, f"agent {name}", targets["agent"], 4),
            _pauses(stage, f"spawner {name}", targets["spawner"], 3),
            _pauses(stage, f"shim {name}", targets["shim"], 4),
        ]
    _under_load(stage, acts)


def paused(stage: Stage, name: str) -> Act:
    """One pause of the server, or of something of a node."""
    chance = stage.chance.fork(f"paused {len(stage.story)}")
    what = chance.pick(("server", "agent", "spawner", "shim"))
    yield from _pauses(stage, f"{what} {name}", _targets(stage, name)[what], 1)


def killed(stage: Stage, name: str) -> Act:
    """One kill of the server, or of something of a node."""
    chance = stage.chance.fork(f"killed {len(stage.story)}")
    act = chance.pick((_agent, _spawner, _shim))
    yield from _server(stage, 1) if chance.odds(0.1) else act(stage, name, 1)


def _targets(stage: Stage, name: str) -> dict[str, Callable[[], list[int]]]:
    """Return how to find the pids of what can be stopped."""
    system = stage.system

    def spawner() -> list[int]:
        with contextlib.suppress(LookupError):
            return [system.lab.spawner(name).pid]
        return []

    return {
        "server": lambda: [system.server.pid],
        "agent": lambda: [system.lab.agents[name].pid],
        "spawner": spawner,
        "shim": lambda: list(system.shims(name).values()),
    }


def _under_load(stage: Stage, acts: list[Act]) -> None:
    with stage.loaded():
        stage.play(acts)


def _server(stage: Stage, kills: int) -> Act:
    system, chance = stage.system, stage.chance.fork(f"server {len(stage.story)}")
    for _ in range(stage.times(kills)):
        if chance.odds(0.45):
            yield chance.between(0.0, 2.5)  # most likely it is not up yet
        else:
            while not stage.server_serves():
                yield 0.1
                system.revive_server()
            yield chance.between(0.0, 1.5)
        stage.did("kill server")
        system.kill_server()
        yield chance.between(0.0, 0.3)
        system.revive_server()


def _agent(stage: Stage, name: str, kills: int) -> Act:
    system, chance = stage.system, stage.chance.fork(f"{name} {len(stage.story)}")
    for _ in range(stage.times(kills)):
        # Within the first half second it is not up yet.
        yield chance.between(0.0, 1.0) if chance.odds(0.3) else chance.between(0.5, 4.0)
        stage.did(f"kill agent {name}")
        system.kill_agent(name)
        yield chance.between(0.0, 0.3)
        system.revive_agent(name)


def _spawner(stage: Stage, name: str, kills: int) -> Act:
    chance = stage.chance.fork(f"spawner {name} {len(stage.story)}")
    for _ in range(stage.times(kills)):
        yield chance.between(0.1, 2.5)
        stage.did(f"kill spawner {name}")
        stage.system.kill_spawner(name)


def _shim(stage: Stage, name: str, kills: int) -> Act:
    system, chance = stage.system, stage.chance.fork(f"shim {name} {len(stage.story)}")
    for _ in range(stage.times(kills)):
        yield chance.between(0.1, 2.0)
        living = sorted(system.shims(name))
        if not living:
            continue
        if chance.odds(0.2):
            stage.did(f"kill spawner {name}")
            system.kill_spawner(name)
        attempt = chance.pick(living)
        stage.did(f"kill shim {name} {attempt}")
        system.kill_shim(name, attempt)


def _everything(stage: Stage, times: int) -> Act:
    system, chance = stage.system, stage.chance.fork("everything")
    for _ in range(stage.times(times)):
        yield chance.between(1.0, 6.0)
        names = system.names if chance.odds(0.5) else [chance.pick(system.names)]
        with_server = chance.odds(0.5)
        stage.did(f"kill all of {', '.join(names)}{' and the server' if with_server else ''}")
        if with_server:
            system.kill_server()
        for name in names:
            system.kill_agent(name)
            system.kill_spawner(name)
            for attempt in sorted(system.shims(name)):
                system.kill_shim(name, attempt)
        yield chance.between(0.0, 1.0)
        if with_server:
            system.revive_server()
        for name in names:
            system.revive_agent(name)


def _pauses(stage: Stage, what: str, pids: Callable[[], list[int]], times: int) -> Act:
    chance = stage.chance.fork(f"pause {what}")
    for _ in range(stage.times(times)):
        yield chance.between(0.1, 4.0)
        found = pids()
        if not found:
            continue
        chosen = _process(chance.pick(sorted(found)))
        if chosen is None:
            continue
        for_s = chance.between(0.05, 1.0) if chance.odds(0.6) else chance.between(1.0, 8.0)
        stage.did(f"pause {what} for {for_s:.2f} s", f"pause-{what.partition(' ')[0]}")
        with contextlib.suppress(psutil.NoSuchProcess):
            chosen.send_signal(signal.SIGSTOP)
        yield for_s
        with contextlib.suppress(psutil.NoSuchProcess):
            chosen.send_signal(signal.SIGCONT)


def _process(pid: int) -> psutil.Process | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid)
    return None
