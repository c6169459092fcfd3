"""Clocks of nodes beside the server's (P17). Nothing is ordered by them; a wrong one misleads
people, and the certificates and time stamps of what runs there.
"""

from __future__ import annotations

from fleetwire.core import limits


def skew_warning(skew_s: float | None) -> str | None:
    """Say what is wrong with a clock that is `skew_s` seconds ahead of the server's, or None."""
    if skew_s is None or abs(skew_s) <= limits.CLOCK_SKEW_S:
        return None
    side = "ahead of" if skew_s > 0 else "behind"
    return f"its clock is {abs(skew_s):.1f} s {side} the server's"


def is_news(told_s: float | None, skew_s: float) -> bool:
    """Say whether a measured skew is to be written where `told_s` stands: it moved by more than
    half a second and a tenth, or the warning changes. Else each beat's delay would be a write.
    """
    if told_s is None or (skew_warning(told_s) is None) != (skew_warning(skew_s) is None):
        return True
    return abs(skew_s - told_s) > max(0.5, abs(told_s) / 10)
