"""Rounds in which a node loses power: its processes are gone, and its spools are cut or damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psutil

from fleetwire.shim.spool import pieces
from fleetwire.testing.faults.stage import Act, Stage
from fleetwire.testing.faults.tasks import Kind
from fleetwire.testing.lab import wait_until
from fleetwire.testing.simulation.chance import Chance

_KINDS: Final[tuple[Kind, ...]] = ("short", "failing", "streaming", "streaming", "big", "both")
_HARMS: Final = ("cut", "cut", "flipped", "zeroed", "piece gone", "record cut", "none")


def spool(stage: Stage) -> None:
    """All of a node is killed, its spools are cut and corrupted, and it comes back."""
    system, chance = stage.system, stage.chance.fork("spool")
    with stage.loaded(kinds=_KINDS, most=10) as load:
        stage.play([_pause(chance.between(1.0, 3.0))])
        load.hold()
        stage.did("kill server", "power")
        system.kill_server()
        # Tasks go on, and what they write stays in the spools.
        stage.play([_pause(chance.between(0.2, 2.0))])
        for name in system.names:
            _cut_power(stage, name)
            for folder in system.spools(name):
                harm = chance.pick(_HARMS)
                if harm == "none" or not _do_harm(folder, harm, chance):
                    continue
                stage.powerless.add(folder.name)
                stage.did(f"{harm}: {folder.name}", harm)


def _pause(seconds: float) -> Act:
    yield seconds


def _cut_power(stage: Stage, name: str) -> None:
    system = stage.system
    system.kill_agent(name)
    system.kill_spawner(name)
    attempts = set(system.shims(name))
    for attempt in attempts:
        system.kill_shim(name, attempt)
    for process in psutil.process_iter():
        try:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
            if any(f"FLEETWIRE_ATTEMPT={one}".encode() in environment for one in attempts):
                process.kill()
        except (OSError, psutil.Error):
            continue  # it has just ended
    wait_until(lambda: not system.alive(attempts), "the end of the node's tasks")


def _do_harm(folder: Path, harm: str, chance: Chance) -> bool:
    """Harm what stands in a spool folder; False where there is nothing to be harmed."""
    if harm == "record cut":
        records = [folder / name for name in ("exit", "epoch", "started", "lost")]
        there = [path for path in records if path.exists()]
        if there:
            _cut(chance.pick(there), chance)
        return bool(there)
    offsets = pieces(str(folder))
    if not offsets:
        return False
    path = folder / f"output.{offsets[-1]:020d}"
    size = path.stat().st_size
    if harm == "piece gone":
        path.unlink()
        return True
    if not size:
        return False
    if harm == "cut":
        _cut(path, chance)
        return True
    with path.open("r+b") as file:
        at = chance.whole(0, size - 1)
        file.seek(at)
        if harm == "flipped":
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ (1 << chance.whole(0, 7))]))
        else:
            file.write(bytes(size - at))
    return True


def _cut(path: Path, chance: Chance) -> None:
    with path.open("r+b") as file:
        file.truncate(chance.whole(0, path.stat().st_size))
