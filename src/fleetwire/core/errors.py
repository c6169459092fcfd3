"""One root for every error that a person may read.

The detail says what happened and why, the hint says what to do. `code` is stable and may be
matched by programs: it is never changed once released.
"""

from __future__ import annotations


class FleetwireError(Exception):
    """Something a person or a program asked for cannot be done."""

    code = "error"

    def __init__(self, detail: str, *, hint: str = "", field: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.field = field

    def __str__(self) -> str:
        return f"{self.detail} {self.hint}".strip()


class LimitExceeded(FleetwireError):
    """A value is larger than its limit (docs/limits.md)."""

    code = "limit-exceeded"


class BadId(FleetwireError):
    """A text is not an id."""

    code = "bad-id"


class BadSpec(FleetwireError):
    """A spec has a field that cannot be accepted."""

    code = "bad-spec"


class BadLabel(FleetwireError):
    """A label's key or value cannot be accepted."""

    code = "bad-label"


class BadSelector(FleetwireError):
    """A selector cannot be read. `position` is the 0-based offset of the offending character."""

    code = "bad-selector"

    def __init__(self, detail: str, *, position: int, hint: str = "") -> None:
        super().__init__(f"{detail} at position {position + 1}.", hint=hint, field="selector")
        self.position = position


class NoNodeMatches(FleetwireError):
    """A selector or a list of nodes selects nothing."""

    code = "no-node-matches"

    def __init__(self, detail: str, *, labels: dict[str, list[str]], hint: str = "") -> None:
        super().__init__(detail, hint=hint, field="selector")
        self.labels = labels


class InvalidTransition(FleetwireError):
    """The attempt machine was asked for a step that it does not have: a fault of the caller."""

    code = "invalid-transition"
