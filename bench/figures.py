"""A figure: what was measured, what the bare machine does in the same run, what is asked."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Figure:
    """`value` and `bare` are in `unit`; `must` and `aim` are limits on `value`."""

    group: str
    what: str
    unit: str
    value: float
    better: Literal["lower", "higher"]
    must: float | None = None
    aim: float | None = None
    bare: float | None = None
    bare_what: str = ""
    note: str = ""

    @property
    def verdict(self) -> str:
        """Say which column is reached."""
        if self.must is None:
            return ""
        if self.aim is not None and self._reaches(self.aim):
            return "aim"
        return "must" if self._reaches(self.must) else "SHORT"

    @property
    def ratio(self) -> float | None:
        """Value against the bare machine, 1.0 = as fast or as small as it."""
        if not self.bare or not self.value:
            return None
        return self.value / self.bare if self.better == "higher" else self.bare / self.value

    def _reaches(self, target: float) -> bool:
        return self.value <= target if self.better == "lower" else self.value >= target

    def as_json(self) -> dict[str, Any]:
        """Return everything, with verdict and ratio."""
        return {**asdict(self), "verdict": self.verdict, "ratio": self.ratio}


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which that share of the values lies."""
    if len(values) < 2:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]
