"""What a node reports about an attempt. A happening is never retracted: a node that says
`Exited` says so for ever, and says it again on every connect until the server has sealed it.

Times named `at` are the node's wall clock, microseconds since 1970: shown, never ordered by.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from fleetwire.core import limits

Reason: TypeAlias = Annotated[str, msgspec.Meta(max_length=limits.REASON_CHARS)]
Sha256: TypeAlias = Annotated[str, msgspec.Meta(max_length=64)]
# Ranges that hold whatever a node really has to say and fit a column of 64 bits.
Moment: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
ExitCode: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**32 - 1)]
Signal: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=255)]
Cause: TypeAlias = Literal["exited", "deadline", "stopped", "quota"]


class Started(msgspec.Struct, frozen=True, tag="started", tag_field="h"):
    """The task's first process was exec'ed."""

    at: Moment


class Exited(msgspec.Struct, frozen=True, tag="exited", tag_field="h", omit_defaults=True):
    """Nothing of the attempt lives any more, and this is how it ended.

    Exactly one of `exit_code` and `signal` is set. `length` and `sha256` are the log's. `term` and
    `kill` say how long after its start these signals went to its tree, where somebody or something
    ended it.
    """

    at: Moment
    cause: Cause
    exit_code: ExitCode | None
    signal: Signal | None
    started_at: Moment
    duration: Seconds
    length: Count
    sha256: Sha256
    leftovers: Count = 0
    error: Reason | None = None
    term: Seconds | None = None
    kill: Seconds | None = None

    def __post_init__(self) -> None:
        if (self.exit_code is None) == (self.signal is None):
            raise ValueError("exactly one of exit_code and signal must be set")


class Lost(msgspec.Struct, frozen=True, tag="lost", tag_field="h"):
    """The node cannot say how the attempt ended, and says why it cannot."""

    at: Moment
    reason: Reason


class Declined(msgspec.Struct, frozen=True, tag="declined", tag_field="h"):
    """The node durably refuses to start it. `final`: no other try can help."""

    at: Moment
    reason: Reason
    final: bool


class NeverStarted(msgspec.Struct, frozen=True, tag="never_started", tag_field="h"):
    """A stop came before the start; it will not start any more."""

    at: Moment


Happening: TypeAlias = Started | Exited | Lost | Declined | NeverStarted
