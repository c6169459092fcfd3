"""The result of a round, as it stands in a file of results."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Verdict: TypeAlias = Literal["passed", "violated", "not run"]


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What one round came to; one line of the file.

    `faults`: how many of each sort; `outcomes`: of the attempts, with the `bytes` of their logs;
    `story`: what was done and after how many seconds; `broken`: the promises, a sentence each.
    """

    kind: str
    seed: int
    commit: str
    database: str
    seconds: float
    verdict: Verdict
    faults: dict[str, int] = {}
    outcomes: dict[str, int] = {}
    measures: dict[str, float] = {}
    broken: tuple[str, ...] = ()
    story: tuple[str, ...] = ()
    why: str = ""
