"""The figures as a picture: how many times better than its must each one is.

One row a figure that has a must, on a logarithmic axis: 1 is the must, the ring is the aim, and
what lies left of 1 is short. Plain SVG that reads well on light and dark pages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Final

from bench.figures import Figure

ROW: Final = 24
LEFT: Final = 430
WIDTH: Final = 960
RIGHT: Final = 130
TOP: Final = 44
MOST: Final = 300.0
COLOURS: Final = {"aim": "#0e9f6e", "must": "#5850ec", "SHORT": "#e02424"}
STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#6b7280}.value{font-weight:600}"
    ".grid{stroke:#9ca3af;stroke-opacity:.35}.one{stroke:#6b7280}"
)


def as_svg(figures: Sequence[Figure]) -> str:
    """Return the picture. Figures without a must have no place in it."""
    rows = [(figure, _times(figure, figure.value)) for figure in figures if figure.must]
    aims = [_times(figure, figure.aim) for figure, _ in rows if figure.aim]
    most = max([10.0, *(times for _, times in rows), *aims])
    least = min([1.0, *(times for _, times in rows)])
    scale = _Scale(least, most)
    height = TOP + ROW * len(rows) + 12
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            f'aria-label="How many times better than its must each figure is">'
        ),
        f"<style>{STYLE}</style>",
        (
            f'<text x="{LEFT}" y="16">times better than the must '
            "(ring: the aim; green: aim reached; red: short)</text>"
        ),
    ]
    for power in range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1):
        x = scale.x(10.0**power)
        kind = "one" if power == 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{x:.1f}" y1="28" x2="{x:.1f}" y2="{height - 8}"/>')
        parts.append(f'<text x="{x + 3:.1f}" y="36">{10.0**power:g}</text>')
    for number, (figure, times) in enumerate(rows):
        parts += _row(figure, times, scale, TOP + ROW * number)
    return "\n".join([*parts, "</svg>", ""])


class _Scale:
    """From "times better" to a place on the picture."""

    def __init__(self, least: float, most: float) -> None:
        self._low = math.log10(least)
        self._per = (WIDTH - LEFT - RIGHT) / max(math.log10(most) - self._low, 0.1)

    def x(self, times: float) -> float:
        return LEFT + (math.log10(times) - self._low) * self._per


def _row(figure: Figure, times: float, scale: _Scale, y: int) -> list[str]:
    one, end = scale.x(1.0), scale.x(times)
    middle = y + ROW / 2
    ring = scale.x(_times(figure, figure.aim)) if figure.aim else one
    behind = max(one, end, ring) + 12
    shown = f"{figure.value:.3g} {figure.unit}"
    parts = [
        f'<text x="{LEFT - 8}" y="{middle + 4:.1f}" text-anchor="end">{escape(figure.what)}</text>',
        (
            f'<rect x="{min(one, end):.1f}" y="{y + 6}" width="{max(abs(end - one), 1.5):.1f}" '
            f'height="{ROW - 12}" rx="2" fill="{COLOURS[figure.verdict]}"/>'
        ),
        f'<text class="value" x="{behind:.1f}" y="{middle + 4:.1f}">{shown}</text>',
    ]
    if figure.aim:
        parts.append(
            f'<circle cx="{ring:.1f}" cy="{middle:.1f}" r="5" '
            'fill="none" stroke="#6b7280" stroke-width="1.5"/>'
        )
    return parts


def _times(figure: Figure, value: float) -> float:
    """Return how many times better than the must a value is."""
    assert figure.must
    if figure.better == "higher":
        return min(max(value, 1e-9) / figure.must, MOST)
    # What is too small to measure is as good as the picture shows.
    return min(figure.must / max(value, 1e-9), MOST)
