"""What a run is asked to do: a spec of one kind, immutable once submitted.

A spec says nothing of where (that is the selector) or when (that is the queue). `check` is
the one place where its limits are held; shells call it before they store or sign anything.
"""

from __future__ import annotations

import math
import re
from typing import Final, Literal, TypeAlias

import msgspec

from fleetwire.core import limits
from fleetwire.core.errors import BadSpec, LimitExceeded
from fleetwire.core.retry import Retry
from fleetwire.core.secrets import SecretUse, check_uses

Shell: TypeAlias = Literal["sh", "bash", "python", "powershell"]
OnQuota: TypeAlias = Literal["block", "drop", "kill"]
_USER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_ENV_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
RESERVED_PREFIX: Final = "FLEETWIRE_"


class _Timed(msgspec.Struct, frozen=True):
    """Whole seconds given as an int become a float, as they are after the wire, and the default
    policy is not said: a spec has one form and so one hash, wherever it was made.
    """

    def __post_init__(self) -> None:
        for name in ("timeout", "grace", "seconds"):
            value = getattr(self, name, None)
            if isinstance(value, int):
                msgspec.structs.force_setattr(self, name, float(value))
        if getattr(self, "on_quota", None) == "block":
            msgspec.structs.force_setattr(self, "on_quota", msgspec.UNSET)
        if getattr(self, "secrets", None) == ():
            msgspec.structs.force_setattr(self, "secrets", msgspec.UNSET)
        if getattr(self, "run_as", None) == "":
            msgspec.structs.force_setattr(self, "run_as", msgspec.UNSET)
        if getattr(self, "resources", None) == _UNLIMITED:
            msgspec.structs.force_setattr(self, "resources", msgspec.UNSET)


class Resources(msgspec.Struct, frozen=True, omit_defaults=True):
    """The most that a task may take; None: what its user may.

    | field | unit | kept by |
    |---|---|---|
    | `memory` | bytes | the control group of the attempt; else address space of each process |
    | `cpus` | processors, 0.5 is half of one | the control group, else the order is refused |
    | `cpu_time` | seconds of each process | rlimit |
    | `processes` | count | the control group; else rlimit, which counts all of that user |
    | `files` | open descriptors of each process | rlimit |
    | `file_size` | bytes of each file it writes | rlimit |
    | `core` | bytes of a core dump | rlimit |
    """

    memory: int | None = None
    cpus: float | None = None
    cpu_time: int | None = None
    processes: int | None = None
    files: int | None = None
    file_size: int | None = None
    core: int | None = None

    def __post_init__(self) -> None:
        if self.cpus is not None:  # as whole seconds above
            msgspec.structs.force_setattr(self, "cpus", float(self.cpus))


_UNLIMITED: Final = Resources()


class Script(_Timed, frozen=True, tag="script", tag_field="kind"):
    """A script for an interpreter. `timeout` and `grace` are seconds. `on_quota` is what happens
    to output that passes the spool quota (P9); `quota_policy` reads it.
    """

    script: str
    shell: Shell = "sh"
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    tty: bool = False
    timeout: float = limits.TIMEOUT_DEFAULT_S
    grace: float = limits.GRACE_DEFAULT_S
    # Not said where it is the default: an agent of 0.1.0 takes such orders as it always did, and
    # refuses others, because it would hash their spec without this field.
    on_quota: OnQuota | msgspec.UnsetType = msgspec.UNSET
    # Names, never values; likewise. `secrets_of` reads it.
    secrets: tuple[SecretUse, ...] | msgspec.UnsetType = msgspec.UNSET
    # Not sent to an agent that does not know them (feature `confine`), which would have to refuse.
    run_as: str | msgspec.UnsetType = msgspec.UNSET
    resources: Resources | msgspec.UnsetType = msgspec.UNSET


class Ping(_Timed, frozen=True, tag="ping", tag_field="kind"):
    """Prove that the whole path to a node works: submit, start, one line of output, exit 0."""

    timeout: float = 60.0
    grace: float = limits.GRACE_DEFAULT_S


class Step(_Timed, frozen=True, omit_defaults=True):
    """One step of a scripted attempt: misbehaviour as data.

    | do | means |
    |---|---|
    | print | write `text` and a newline to `stream`, `count` times, `seconds` apart |
    | bytes | write `size` numbered bytes to `stream` as fast as possible |
    | sleep | sleep `seconds` |
    | ignore | ignore SIGTERM from here on |
    | escape | leave a setsid, double-forked child that ignores SIGTERM and sleeps `seconds` |
    | ledger | append one line to the file `text`, for an outside count of starts |
    | exit | end with `code` |
    | signal | end by signal number `code` |
    """

    do: Literal["print", "bytes", "sleep", "ignore", "escape", "ledger", "exit", "signal"]
    text: str = ""
    stream: Literal[1, 2] = 1
    count: int = 1
    size: int = 0
    seconds: float = 0.0
    code: int = 0


class Scripted(_Timed, frozen=True, tag="scripted", tag_field="kind"):
    """Steps played in order by the node, or by a simulated node in its own time."""

    steps: tuple[Step, ...]
    timeout: float = limits.TIMEOUT_DEFAULT_S
    grace: float = limits.GRACE_DEFAULT_S
    on_quota: OnQuota | msgspec.UnsetType = msgspec.UNSET
    run_as: str | msgspec.UnsetType = msgspec.UNSET
    resources: Resources | msgspec.UnsetType = msgspec.UNSET


Spec: TypeAlias = Script | Ping | Scripted


class RunRequest(msgspec.Struct, frozen=True):
    """One request to execute: what, where and how long it may wait. Exactly one of `selector`
    and `nodes` is given; `any` asks for that many of the matching nodes instead of each.
    `lost_after`: how many seconds beyond its deadline the attempt of a silent node is lost (5.5).
    """

    spec: Spec
    selector: str | None = None
    nodes: tuple[str, ...] | None = None
    any: int | None = None
    name: str | None = None
    queue_timeout: float = limits.QUEUE_TIMEOUT_DEFAULT_S
    lost_after: float = limits.LOST_AFTER_S
    retry: Retry | None = None


_sorted = msgspec.json.Encoder(order="sorted")
_ADDED: Final = {"lost_after": limits.LOST_AFTER_S, "retry": None, "project": None}


def canonical(request: RunRequest, project: str | None = None) -> bytes:
    """Return the bytes by which two requests are the same (`Idempotency-Key`, P1). `project` is
    the id of the one that it is for, None for the one of the time before there were projects.

    What came after release 0.1.0 stands in them only where it says something: a key that was used
    before an update must still fit after it.
    """
    fields = {**msgspec.to_builtins(request), "project": project}
    return _sorted.encode(
        {name: value for name, value in fields.items() if _ADDED.get(name, fields) != value}
    )


def kind_of(spec: Spec) -> str:
    """Return the spec's kind as it stands on the wire."""
    return {Script: "script", Ping: "ping", Scripted: "scripted"}[type(spec)]


def quota_policy(spec: Spec) -> OnQuota:
    """Return what the shim does with output beyond the spool quota: `block` where nothing is said
    (the task waits until the server has taken some), `drop` with a gap record, or `kill` (P9).
    """
    policy = getattr(spec, "on_quota", msgspec.UNSET)
    return "block" if policy is msgspec.UNSET else policy


def secrets_of(spec: Spec) -> tuple[SecretUse, ...]:
    """Return the secrets that the task is to be given."""
    uses = getattr(spec, "secrets", msgspec.UNSET)
    return () if uses is msgspec.UNSET else uses


def run_as(spec: Spec) -> str:
    """Return the user as whom a task shall run; "" where the node decides."""
    user = getattr(spec, "run_as", msgspec.UNSET)
    return "" if user is msgspec.UNSET else user


def resources(spec: Spec) -> Resources:
    """Return what a task may take at most."""
    found = getattr(spec, "resources", msgspec.UNSET)
    return _UNLIMITED if found is msgspec.UNSET else found


def is_confined(spec: Spec) -> bool:
    """Say whether a spec asks for another user or for limits: only an agent that offers the
    feature `confine` may be given it.
    """
    return bool(run_as(spec)) or resources(spec) != _UNLIMITED


def check(spec: Spec) -> None:
    """Raise BadSpec or LimitExceeded for the first field that cannot be accepted."""
    _seconds("spec.timeout", spec.timeout, limits.TIMEOUT_S, above_zero=True)
    _seconds("spec.grace", spec.grace, limits.GRACE_S)
    user = run_as(spec)
    if user and (len(user) > limits.RUN_AS_CHARS or not _USER.fullmatch(user)):
        raise BadSpec(
            f"{user[:80]!r} is not the name of a user.",
            hint=f"Use at most {limits.RUN_AS_CHARS} letters, digits, `_`, `.` and `-`.",
            field="spec.run_as",
        )
    _check_resources(resources(spec))
    if isinstance(spec, Script):
        _check_script(spec)
    elif isinstance(spec, Scripted):
        _count("spec.steps", len(spec.steps), limits.SCRIPTED_STEPS)
    size = len(msgspec.json.encode(spec))
    if size > limits.SPEC_BYTES:
        # An order must fit into one control frame, whatever its text needs when escaped.
        raise LimitExceeded(
            f"The spec has {size} bytes as JSON.",
            hint=f"At most {limits.SPEC_BYTES}; fetch large data from the script instead.",
            field="spec",
        )


def check_request(request: RunRequest) -> None:
    """Raise for the first field of a request that cannot be accepted; the selector is parsed
    where the nodes are known.
    """
    check(request.spec)
    _seconds("queue_timeout", request.queue_timeout, limits.QUEUE_TIMEOUT_S, above_zero=True)
    _seconds("lost_after", request.lost_after, limits.LOST_AFTER_MOST_S)
    if request.retry is not None:
        _check_retry(request.retry)
    if (request.selector is None) == (request.nodes is None):
        raise BadSpec(
            "A run needs exactly one of selector and nodes.",
            hint="Give a selector such as os=linux, or a list of node names.",
            field="selector",
        )
    if request.nodes is not None:
        if not request.nodes:
            raise BadSpec("The list of nodes is empty.", hint="Name a node.", field="nodes")
        _count("nodes", len(request.nodes), limits.NODES_PER_RUN)
        for number, node in enumerate(request.nodes):
            _size(f"nodes[{number}]", node, limits.CONTROL_FRAME_BYTES)
    if request.selector is not None:
        _size("selector", request.selector, limits.CONTROL_FRAME_BYTES)
    if request.any is not None and not 1 <= request.any <= limits.NODES_PER_RUN:
        raise BadSpec(
            f"any is {request.any}.", hint=f"Use 1 to {limits.NODES_PER_RUN}.", field="any"
        )
    if request.name is not None and (
        len(request.name) > limits.NAME_CHARS or not request.name.isprintable()
    ):
        raise BadSpec(
            "The run's name is too long or has unprintable characters.",
            hint=f"Use at most {limits.NAME_CHARS} printable characters.",
            field="name",
        )


def _check_retry(retry: Retry) -> None:
    if not (retry.on_failure or retry.on_lost):
        raise BadSpec(
            "The retry policy names neither on_failure nor on_lost, so it would never try again.",
            hint="Set one of them to true, or leave the policy out.",
            field="retry",
        )
    if not 1 <= retry.count <= limits.RETRY_COUNT:
        raise BadSpec(
            f"retry.count is {retry.count}.",
            hint=f"Use 1 to {limits.RETRY_COUNT} retries.",
            field="retry.count",
        )
    _seconds("retry.backoff", retry.backoff, limits.RETRY_BACKOFF_S)


def _check_resources(asked: Resources) -> None:
    for name, (least, most) in _BOUNDS.items():
        value = getattr(asked, name)
        if value is not None and not least <= value <= most:
            raise BadSpec(
                f"spec.resources.{name} is {value}.",
                hint=f"Use {least} to {most}.",
                field=f"spec.resources.{name}",
            )


_BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "memory": (limits.MEMORY_LEAST_BYTES, limits.MEMORY_BYTES),
    "cpus": (limits.CPUS_LEAST, limits.CPUS),
    "cpu_time": (1, limits.TIMEOUT_S),
    "processes": (1, limits.PROCESSES),
    "files": (limits.FILES_LEAST, limits.FILES),
    "file_size": (0, limits.FILE_BYTES),
    "core": (0, limits.FILE_BYTES),
}


def _check_script(spec: Script) -> None:
    if not spec.script.strip():
        raise BadSpec("The script is empty.", hint="Give it a line.", field="spec.script")
    if "\0" in spec.script:
        raise BadSpec("The script has a NUL.", hint="Remove it.", field="spec.script")
    _size("spec.script", spec.script, limits.SCRIPT_BYTES)
    _count("spec.args", len(spec.args), limits.ARGS)
    for number, arg in enumerate(spec.args):
        _text(f"spec.args[{number}]", arg)
        _size(f"spec.args[{number}]", arg, limits.ARG_BYTES)
    _count("spec.env", len(spec.env), limits.ENV_ENTRIES)
    total = 0
    for key, value in spec.env.items():
        if len(key) > limits.ENV_KEY_CHARS or not _ENV_KEY.fullmatch(key):
            raise BadSpec(
                f"{key[:80]!r} is not a name for an environment variable.",
                hint="Use letters, digits and _, not starting with a digit.",
                field="spec.env",
            )
        if key.startswith(RESERVED_PREFIX):
            raise BadSpec(
                f"Environment names that start with {RESERVED_PREFIX} are Fleetwire's own.",
                hint="Choose another name.",
                field=f"spec.env.{key}",
            )
        _text(f"spec.env.{key}", value)
        total += len(key) + len(value.encode("utf-8"))
    if total > limits.ENV_BYTES:
        raise LimitExceeded(
            f"The environment has {total} bytes.",
            hint=f"At most {limits.ENV_BYTES}; put large data into a file.",
            field="spec.env",
        )
    check_uses(secrets_of(spec), spec.env)


def _text(field: str, value: str) -> None:
    if "\0" in value:
        raise BadSpec(f"{field} has a NUL.", hint="Remove it.", field=field)
    _size(field, value, limits.CONTROL_FRAME_BYTES)


def _size(field: str, value: str, most: int) -> None:
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise BadSpec(f"{field} is not valid Unicode.", hint="Send UTF-8.", field=field) from None
    if size > most:
        raise LimitExceeded(f"{field} has {size} bytes.", hint=f"At most {most}.", field=field)


def _count(field: str, count: int, most: int) -> None:
    if count > most:
        raise LimitExceeded(f"{field} has {count} entries.", hint=f"At most {most}.", field=field)


def _seconds(field: str, value: float, most: float, *, above_zero: bool = False) -> None:
    if not math.isfinite(value) or value < 0 or value > most or (above_zero and value == 0):
        raise BadSpec(
            f"{field} is {value} seconds.",
            hint=f"Use {'more than 0' if above_zero else '0'} to {most:g} seconds.",
            field=field,
        )
