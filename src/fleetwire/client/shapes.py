"""What the server sends, as typed values (docs/seams.md, 4). Fields that this version does not
know are ignored, so that an older client reads a newer server.

Times are RFC 3339 texts in UTC, durations are seconds.
"""

from __future__ import annotations

from typing import Any, Final, Generic, Literal, TypeVar

import msgspec

T = TypeVar("T")

STDOUT: Final = "stdout"
STDERR: Final = "stderr"
GAP: Final = "gap"


class Log(msgspec.Struct):
    """An attempt's log: `complete` once it is sealed, `state` open, sealed, damaged or missing."""

    length: int | None = None
    sha256: str | None = None
    complete: bool = False
    state: str = "open"


class Exit(msgspec.Struct):
    """How an attempt ended, as its node recorded it."""

    cause: str = "exited"
    exit_code: int | None = None
    signal: int | None = None
    at: str | None = None
    duration: float | None = None


class Task(msgspec.Struct):
    """A task as its latest attempt; or one of its `earlier` attempts, by number. `late_exit` is
    the end that came after the attempt was shown lost.
    """

    id: str
    index: int
    attempt: str
    state: str
    node: str | None = None
    node_id: str | None = None
    number: int = 1
    outcome: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    duration: float | None = None
    wish: str = "run"
    log: Log = msgspec.field(default_factory=Log)
    late_exit: Exit | None = None
    earlier: list[Task] = []


class Retry(msgspec.Struct):
    """When a task is tried again; `backoff` is seconds before the first retry."""

    on_failure: bool = False
    on_lost: bool = False
    count: int = 1
    backoff: float = 0.0


class Run(msgspec.Struct):
    """A run; `tasks` is None in lists and events. `spec` is left as JSON."""

    id: str
    state: Literal["pending", "running", "ended"]
    name: str | None = None
    outcome: str | None = None
    wish: str = "run"
    created_at: str = ""
    ended_at: str | None = None
    created_by: str | None = None
    selector: str | None = None
    nodes: list[str] | None = None
    any: int | None = None
    spec: msgspec.Raw = msgspec.Raw(b"null")
    counts: dict[str, int] = {}
    retry: Retry | None = None
    project: str | None = None
    tasks: list[Task] | None = None


class Node(msgspec.Struct):
    """A node as an operator sees it. `inventory` is what it tells about itself."""

    id: str
    name: str
    link: str
    link_since: str | None = None
    reconnects: int = 0
    admin: str = "active"
    labels: dict[str, str] = {}
    capacity: int | None = None
    running: int = 0
    last_seen_at: str | None = None
    agent_version: str | None = None
    address: str | None = None
    clock_skew: float | None = None
    created_at: str | None = None
    project: str | None = None
    inventory: dict[str, Any] | None = None
    warnings: list[str] = []


class NodeEvent(msgspec.Struct):
    """What happened to a node."""

    at: str
    text: str


class DeletedNode(msgspec.Struct):
    """A node that is no more; `lost` counts the attempts that were lost with it."""

    id: str
    name: str
    lost: int = 0


class Breaker(msgspec.Struct):
    """The mass-offline breaker while it is open; `text` says what that means."""

    since: str
    gone: int
    of: int
    text: str = ""


class System(msgspec.Struct):
    """The whole system: nodes by the state of their links, the open breaker."""

    version: str
    time: str = ""
    nodes: dict[str, int] = {}
    breaker: Breaker | None = None


class Readiness(msgspec.Struct):
    """How the server stands: what does not work, and what works and is yet not as promised."""

    status: str
    problems: dict[str, str] = {}
    warnings: dict[str, str] = {}


class User(msgspec.Struct):
    """Who the server takes us for; `via` is cookie or token. A system admin's role is `admin`;
    `permissions` are those of the whole system, `projects` says the others.
    """

    id: str
    name: str
    role: str
    via: str | None = None
    permissions: list[str] = []
    projects: list[Project] = []


class LoggedIn(msgspec.Struct):
    """The answer to a login; `csrf` goes with every change by its cookie."""

    user: User
    csrf: str | None = None


class Project(msgspec.Struct):
    """A project, and what we have and may in it."""

    id: str
    name: str
    created_at: str | None = None
    roles: list[str] = []
    permissions: list[str] = []


class Member(msgspec.Struct):
    """The roles and grants of a user in a project."""

    user_id: str
    user: str
    project_id: str
    project: str
    roles: list[str] = []


class Account(msgspec.Struct):
    """A user, as a system admin sees it; `password` is there once, when the server made it."""

    id: str
    name: str
    role: str
    disabled: bool = False
    created_at: str | None = None
    has_password: bool = True
    totp: bool = False
    password: str | None = None
    projects: list[Member] = []


class Token(msgspec.Struct):
    """An API token; `token` is there once, when it is made."""

    id: str
    name: str = ""
    token: str | None = None
    created_at: str | None = None
    expires_at: str | None = None
    last_used_at: str | None = None
    project: str | None = None
    permissions: list[str] | None = None


class Secret(msgspec.Struct):
    """A secret without its value, which nobody can read."""

    name: str
    project: str = ""
    version: int = 1
    created_at: str | None = None
    updated_at: str | None = None
    updated_by: str = ""
    last_used_at: str | None = None


class EnrolmentToken(msgspec.Struct):
    """A token that a new node shows once; `token` is there once, when it is made."""

    id: str
    token: str | None = None
    labels: dict[str, str] = {}
    created_at: str | None = None
    expires_at: str | None = None
    used_at: str | None = None
    project: str | None = None
    name: str | None = None
    network: str | None = None
    approval: bool = False
    ca_fingerprint: str | None = None
    command: str | None = None


class StoryLine(msgspec.Struct):
    """One recorded reason: what was decided or heard about a task, when, its state then."""

    at: str
    text: str
    task: int | None = None
    node: str | None = None
    state: str | None = None


class Why(msgspec.Struct):
    """The story of the run with this id."""

    run: str
    lines: list[StoryLine]


class TimelineLine(msgspec.Struct):
    """One line of a run's timeline; `kind` is run, task, node or system."""

    at: str
    text: str
    kind: str = "run"
    task: int | None = None
    attempt: int | None = None
    node: str | None = None


class Part(msgspec.Struct, rename={"data": "bytes"}):
    """Consecutive bytes of one stream (stdout or stderr). `length` counts log bytes, which a
    `gap` has though its bytes were dropped by the node.
    """

    offset: int
    stream: str
    length: int
    time: str = ""
    data: bytes = b""


class LogPage(msgspec.Struct):
    """A piece of a log by offset."""

    attempt: str
    offset: int
    next_offset: int
    parts: list[Part]
    length: int | None = None
    complete: bool = False


class LogLine(msgspec.Struct):
    """One line; `cut` when it is longer than what is shown."""

    line: int
    offset: int
    text: str
    stream: str = STDOUT
    time: str = ""
    cut: bool = False
    gap: int = 0


class LogLines(msgspec.Struct):
    """Lines of a log."""

    attempt: str
    lines: list[LogLine]
    first_line: int = 0
    total_lines: int | None = None
    complete: bool = False


class Match(msgspec.Struct):
    """A line that holds the text searched for."""

    line: int
    offset: int
    text: str


class Matches(msgspec.Struct):
    """What a search found; `next_line` says where to go on, None when there is no more."""

    matches: list[Match]
    next_line: int | None = None


class Page(msgspec.Struct, Generic[T]):
    """One page of a list, newest first."""

    items: list[T]
    next_cursor: str | None = None
