"""Why a node was away: what can be told when it is back.

Agent and machine leave traces that outlive them: a random id of each agent process, the kernel's
id of each boot, a marker that an agent writes when it is asked to leave, the kernel's count of
processes it killed for want of memory, the seconds the machine slept. The agent reports facts
with each hello (`Life`); what they mean is decided here, by comparing them with the last ones.

    another boot ─┬─ the agent had left in order      rebooted
                  └─ it had not                       crashed (power loss, panic, reset)
    same boot, ───┬─ it had left in order             restarted
    another agent ├─ the OOM killer ended it          oom
                  └─ neither                          died
    same agent ───┬─ the machine slept meanwhile      suspended
                  ├─ the server was away              server
                  └─ else                             network
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from fleetwire.core.happenings import Count, Moment, Seconds

Word: TypeAlias = Annotated[str, msgspec.Meta(max_length=64)]
Cause: TypeAlias = Literal[
    "rebooted", "crashed", "restarted", "oom", "died", "suspended", "server", "network", "unknown"
]
SLEPT_S: Final = 1.0
"""A sleep shorter than this explains nothing: the two clocks are read one after the other."""


class Ending(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the life of an agent before this one ended, as far as its files tell.

    `left`: it was asked to leave, and did. `oom`: the kernel says that it killed that process.
    `oom_kills`: how many processes the kernel killed for want of memory since that agent last
    looked, 0 where nobody can know.
    """

    boot_id: Word = ""
    left: bool = False
    oom: bool = False
    oom_kills: Count = 0


class Life(msgspec.Struct, frozen=True, omit_defaults=True):
    """An agent's word on itself and its machine. `agent` is a random id of the process, `began`
    its start by the node's clock, `slept` the seconds its machine was suspended since the boot.
    """

    agent: Word
    began: Moment = 0
    slept: Seconds = 0.0
    before: Ending | None = None


class Known(msgspec.Struct, frozen=True):
    """What a hello says of boot and life; `life` is None of an agent too old to say."""

    boot_id: str
    life: Life | None


class Absence(msgspec.Struct, frozen=True):
    """Why it was away, as a word and for people."""

    cause: Cause
    text: str


def classify(before: Known, now: Known, *, heard_here: bool) -> Absence:
    """Say why a node was away between two hellos. `heard_here`: the process that takes the second
    one has heard the node before; if not, the server itself was away meanwhile.
    """
    ending = None if now.life is None else now.life.before
    # A word on another boot than the last one we know of says nothing about that one.
    told = ending is not None and ending.boot_id == before.boot_id
    if before.boot_id != now.boot_id:
        if ending is None:
            return Absence("rebooted", "the machine was restarted")
        if told and ending.left:
            return Absence("rebooted", "the machine was rebooted, in order")
        return Absence(
            "crashed", "the machine was restarted without an orderly end (crash, reset, power loss)"
        )
    if before.life is None or now.life is None:
        if not heard_here:
            return Absence("server", "the server was away")
        return Absence("unknown", "this agent's version does not say why")
    if before.life.agent != now.life.agent:
        return _another_agent(ending if told else None)
    slept = now.life.slept - before.life.slept
    if slept >= SLEPT_S:
        return Absence("suspended", f"the machine slept for {slept:.0f} s")
    if not heard_here:
        return Absence("server", "the server was away")
    return Absence("network", "the network: agent and machine ran on")


def _another_agent(ending: Ending | None) -> Absence:
    if ending is not None and ending.left:
        return Absence("restarted", "the agent was restarted, in order")
    if ending is not None and ending.oom:
        return Absence("oom", "the kernel's OOM killer ended the agent; it was started again")
    if ending is not None and ending.oom_kills:
        many = f"{ending.oom_kills} process{'es' if ending.oom_kills > 1 else ''}"
        return Absence(
            "died",
            "the agent died and was started again, perhaps for want of memory: "
            f"the kernel's OOM killer ended {many} meanwhile",
        )
    return Absence("died", "the agent died (killed or crashed) and was started again")
