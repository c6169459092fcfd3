"""Files of results: one JSON line for each round or batch, appended as soon as it is done, so that
a long run can be ended at any time and goes on by count.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, TypeVar

import msgspec

T = TypeVar("T")
_TAIL: Final = 1 << 20


def append(path: Path, result: msgspec.Struct) -> None:
    """Add one result to a file; what was cut when an earlier run was killed is taken out."""
    with path.open("a+b") as file:
        end = file.tell()
        file.seek(max(0, end - _TAIL))
        tail = file.read()
        file.truncate(end - (len(tail) - tail.rfind(b"\n") - 1))
        file.write(msgspec.json.encode(result) + b"\n")


def read(path: Path, kind: type[T]) -> list[T]:
    """Return the results of a file, in order; [] when there is none. A last line that was cut
    does not count.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [msgspec.json.decode(line, type=kind) for line in lines if line.endswith(b"\n")]


def say(line: str) -> None:
    """Print one line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
