"""One state directory, one node: how a copy of it, or an older one put back, is noticed.

Each link is a step from one random mark to the next. The node keeps the mark of its last link and
the one that it is about to make, both durable before the hello leaves; the server keeps the mark
of the last hello that it took, in the commit that takes it. So whatever dies between the two
commits, the node comes again with the same step, and the server knows both ends of it:

    the server has      the step's end      the hello was taken, its answer was lost: taken again
                        the step's start    the next step
                        neither             somebody else has stepped since with the same key, or
                                            the directory is older than what the server has seen

Two that hold the same directory can each step once from where it was copied, and the second to do
so is noticed. Which of the two is the original nobody can tell from here: a person decides.

The count tells a directory that is behind from a server that is: no directory, copied or not, is
ever more than one step ahead of a server that has lost nothing, and a server that has lost one of
its links is at least two behind (P26). Whoever holds a stolen key may write any number there, and
gets in once with it; the original, when it comes next, is then what does not fit, and is noticed.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

Mark: TypeAlias = Annotated[str, msgspec.Meta(min_length=32, max_length=64)]
Verdict: TypeAlias = Literal["taken", "behind", "copied", "older"]
HOLD_BEATS = 2
"""So many heartbeats a node is given no start after another process of its agent has taken over a
link that nobody had seen end: if the first one lives, it is back by then, and is noticed."""


class Step(msgspec.Struct, frozen=True):
    """From which mark to which, and how many steps there have been with this one: the count is for
    people, and tells an older directory from one that has gone another way.
    """

    count: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    start: Annotated[str, msgspec.Meta(max_length=64)]
    end: Mark


class Stood(msgspec.Struct, frozen=True):
    """The end of the last step that the server took; none yet is ("", 0)."""

    mark: str = ""
    count: int = 0


def first(mark: str) -> Step:
    """Return the first step of a new state directory. `mark` is random."""
    return Step(1, "", mark)


def next_step(last: Step, mark: str, *, taken: bool) -> Step:
    """Return the step of a new link: once the last one was `taken` it is a new one, until then the
    same again. `mark` is random.
    """
    return Step(last.count + 1, last.end, mark) if taken else last


def judge(stood: Stood, step: Step | None) -> Verdict:
    """Say what a step tells. None: the hello has none, as that of a copy in the hands of an agent
    that does not know them. "behind" is to be taken too: it is the server that has lost something.
    """
    if not stood.mark:
        return "taken"
    if step is None:
        return "older"
    if stood.mark in {step.start, step.end}:
        return "taken"
    if step.count > stood.count + 1:
        return "behind"
    return "copied" if step.count > stood.count else "older"


def explain(verdict: Verdict, stood: Stood, step: Step | None) -> str:
    """Say to people what was noticed."""
    came = "without a mark" if step is None else f"at its link {step.count}"
    if verdict == "older":
        what = "its state directory was copied, or put back from a backup"
    else:
        what = "its state directory has gone two ways: a copy of it is in use somewhere"
    return (
        f"{what} (it came {came}, and link {stood.count} of this node was taken already); stop the "
        "copy, then: fleetwire nodes release NODE, or fleetwire nodes revoke NODE"
    )
