"""What a driver is."""

from __future__ import annotations

from typing import Protocol, TypeVar

import msgspec

from fleetwire.core.errors import FleetwireError
from fleetwire.core.specs import Spec

_Spec_contra = TypeVar("_Spec_contra", bound=Spec, contravariant=True)


class Unable(FleetwireError):
    """This node cannot execute such a spec, now or ever: the order is refused with this reason."""

    code = "unable"


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What to execute. `files` are put into the working directory first, by name, readable and
    executable by their owner only; `env` is added to the task's environment.
    """

    argv: tuple[str, ...]
    env: dict[str, str] = {}
    files: dict[str, bytes] = {}
    tty: bool = False


class Driver(Protocol[_Spec_contra]):
    """Turns a spec of one kind into a Launch. Pure but for looking whether a program is there."""

    def __call__(self, spec: _Spec_contra, task: str, search: str, /) -> Launch:
        """Return what to execute; raise Unable when this node cannot."""
