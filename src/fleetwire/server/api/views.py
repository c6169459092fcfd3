"""The documented shapes of answers. They are written by `write` straight from the domain's views;
tests hold what is written against these models, strictly.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from fleetwire.core.access import ProjectRole
from fleetwire.core.attempts import Outcome, State, Wish
from fleetwire.core.audit import Action, ActorKind
from fleetwire.core.dispatch import AdminState, LinkState
from fleetwire.core.runs import RunState

T = TypeVar("T")
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
StreamName = Literal["stdout", "stderr", "gap"]
LogState = Literal["open", "sealed", "damaged", "missing"]


class View(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Problem(BaseModel):
    """An error (RFC 9457). `code` is stable; `hint` says what to do."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: str
    title: str
    status: int
    detail: str
    code: str
    field: str | None = None
    hint: str | None = None


class Page(View, Generic[T]):
    """One page of a list, newest first; `next_cursor` is null on the last one."""

    items: list[T]
    next_cursor: str | None


class User(View):
    """A user."""

    id: str
    name: str
    role: str


class LoggedIn(View):
    """The login that has begun; its cookie came with it. `csrf` goes into the header
    `X-CSRF-Token` of every change by that cookie.
    """

    user: User
    csrf: str


class Ways(View):
    """How one can log in besides with a password: `oidc` is an OpenID provider's name."""

    oidc: str | None


class Session(View):
    """One of your logins."""

    id: str
    created_at: Time
    expires_at: Time
    address: str | None
    browser: str | None
    current: bool


class Sessions(View):
    """Your logins."""

    items: list[Session]
    next_cursor: None


class Totp(View):
    """Your second factor."""

    on: bool
    recovery_codes: int


class NewTotp(View):
    """A second factor to be confirmed: its secret, and what a QR code says."""

    secret: str
    uri: str


class RecoveryCodes(View):
    """Codes that are each good once, where the second factor is lost. Shown this once."""

    recovery_codes: list[str]


class Project(View):
    """A project, and what you have and may in it."""

    id: str
    name: str
    created_at: Time
    roles: list[ProjectRole]
    permissions: list[str]


class Member(View):
    """The roles and grants of a user in a project."""

    user_id: str
    user: str
    project_id: str
    project: str
    roles: list[ProjectRole]


class Members(View):
    """All members of a project."""

    items: list[Member]
    next_cursor: None


class Me(User):
    """Who asks, and by what; what they may in the whole system, and in which projects. `csrf` is
    null where no cookie came.
    """

    via: Literal["cookie", "token"]
    csrf: str | None
    permissions: list[str]
    projects: list[Project]


class UserInList(User):
    """A user, as a system admin sees it. `totp`: a second factor is asked for."""

    disabled: bool
    created_at: Time
    has_password: bool
    totp: bool


class NewUser(UserInList):
    """A user, with the password where the server made it: it is shown this once."""

    password: str | None


class UserWithRoles(UserInList):
    """A user with their roles in all projects."""

    projects: list[Member]


class Token(View):
    """An API token, without its secret."""

    id: str
    name: str
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None
    project: str | None
    permissions: list[str] | None


class NewToken(Token):
    """An API token with its secret, which is shown this once."""

    token: str


class Secret(View):
    """A secret without its value, which nobody can read. `version` grows with each value."""

    name: str
    project: str
    version: int
    created_at: Time
    updated_at: Time
    updated_by: str
    last_used_at: Time | None


class AuditActor(View):
    """Who did something. `kind` is `user`, `node`, `server` or `stranger`; `via` is `cookie`,
    `token:ID`, `link`, `shell` or empty.
    """

    kind: ActorKind
    id: str
    name: str
    via: str


class AuditTarget(View):
    """What something was done to; empty where it was the whole, or the actor."""

    kind: str
    id: str
    name: str


class ChainEntry(View):
    """One entry. `number` counts within its chain, from 1. `code` says why it was refused."""

    number: int
    at: Time
    action: Action
    actor: AuditActor
    address: str
    target: AuditTarget
    outcome: Literal["done", "refused"]
    code: str
    detail: dict[str, str]


class AuditEntry(ChainEntry):
    """One entry. `chain` is `system` or a project's id, whose name is `project`."""

    chain: str
    project: str | None


class LinkedEntry(ChainEntry):
    """One entry, and its hash (hex): of the hash before it and its canonical bytes."""

    hash: str


class AuditCheckpoint(View):
    """That the entry of this number has this hash, signed with the server's key (base64). With
    `cut` the entries up to this one were deleted, as the server's settings say.
    """

    number: int
    hash: str
    at: Time
    cut: bool
    key: str
    key_id: str
    signature: str


class AuditRotation(View):
    """A signing key, with the word of the one before it."""

    id: str
    key: str
    signed_by: str
    issued_at: Time
    signature: str


class AuditHead(View):
    """The last entry of a chain; number 0 where there is none."""

    number: int
    hash: str


class AuditChain(View):
    """Entries of a chain in their order, and what they are verified by: on the first page all
    checkpoints of the chain, on a further one those of its entries.
    """

    cluster: str
    chain: str
    head: AuditHead
    key: str
    rotations: list[AuditRotation]
    entries: list[LinkedEntry]
    checkpoints: list[AuditCheckpoint]


class EnrolmentToken(View):
    """An enrolment token, without its secret."""

    id: str
    labels: dict[str, str]
    created_by: str
    created_at: Time
    expires_at: Time
    used_at: Time | None
    used_by: str | None
    project: str
    name: str | None
    network: str | None
    approval: bool


class NewEnrolmentToken(EnrolmentToken):
    """An enrolment token with its secret, which is shown this once; `command` is the line that
    makes a node of a machine, with the fingerprint of the CA to pin where the server has one.
    """

    token: str
    ca_fingerprint: str | None
    command: str


class EnrolmentUse(View):
    """That somebody has shown an enrolment token: `outcome` is `enrolled`, or why it was refused;
    `token` is null where there is no such token.
    """

    at: Time
    token: str | None
    node: str | None
    name: str
    address: str | None
    outcome: str


class Node(View):
    """An enrolled machine. `link` is so since `link_since`; `reconnects` is above 0 only while
    its link flaps. `clock_skew` is seconds. `warnings` are sentences for people.
    """

    id: str
    name: str
    link: LinkState
    link_since: Time | None
    reconnects: int
    admin: AdminState
    labels: dict[str, str]
    capacity: int
    running: int
    last_seen_at: Time | None
    agent_version: str | None
    address: str | None
    clock_skew: float | None
    created_at: Time
    project: str
    inventory: dict[str, Any] | None
    warnings: list[str]


class NodeEvent(View):
    """What happened to a node: its link, its agent, its machine, what was decided of it."""

    id: int
    at: Time
    text: str


class DeletedNode(View):
    """A node that is no more, and how many attempts were lost with it."""

    id: str
    name: str
    lost: int


class Breaker(View):
    """The mass-offline breaker while it is open: `gone` of `of` nodes went together, and until
    they are back or somebody closes it nothing is retried or placed anew.
    """

    since: Time
    gone: int
    of: int
    text: str


class System(View):
    """The whole system: nodes by the state of their links; `breaker` is null while it is closed."""

    version: str
    time: Time
    nodes: dict[LinkState, int]
    breaker: Breaker | None


class Log(View):
    """An attempt's log; `complete`: everything is stored and its hash is right."""

    length: int | None
    sha256: str | None
    complete: bool
    state: LogState


class Exit(View):
    """How an attempt ended, as its node recorded it."""

    at: Time
    cause: Literal["exited", "deadline", "stopped", "quota"]
    exit_code: int | None
    signal: int | None
    started_at: Time
    duration: float
    length: int
    sha256: str
    leftovers: int
    error: str | None


class Attempt(View):
    """One try of a task. `id` and `index` are the task's, `number` counts its tries from 1."""

    id: str
    index: int
    node: str | None
    node_id: str | None
    attempt: str
    number: int
    state: State
    wish: Wish
    outcome: Outcome | None
    exit_code: int | None
    signal: int | None
    reason: str | None
    started_at: Time | None
    ended_at: Time | None
    duration: float | None
    log: Log
    late_exit: Exit | None


class Task(Attempt):
    """The part of a run for one node, as its latest attempt; `earlier` are those before it."""

    earlier: list[Attempt]


class Retry(View):
    """When a task is tried again: `count` times beyond the first, `backoff` seconds before the
    first retry and twice as long before each further one.
    """

    on_failure: bool
    on_lost: bool
    count: int
    backoff: float


class RunInList(View):
    """A run without its tasks; `spec.script` is cut to 200 characters in lists."""

    id: str
    name: str | None
    state: RunState
    outcome: Outcome | None
    wish: Wish
    created_at: Time
    ended_at: Time | None
    created_by: str
    project: str
    selector: str | None
    nodes: list[str] | None
    any: int | None
    spec: dict[str, Any]
    counts: dict[str, int]
    retry: Retry | None
    lost_after: float


class Run(RunInList):
    """A run: one request to execute, and its tasks."""

    tasks: list[Task]


class Tasks(View):
    """All tasks of a run."""

    items: list[Task]
    next_cursor: None


class WhyLine(View):
    """One recorded reason."""

    at: Time
    task: int | None
    node: str | None
    state: str | None
    text: str


class Why(View):
    """Why a run is as it is, the newest reason of each task first."""

    run: str
    lines: list[WhyLine]


class TimelineLine(View):
    """One line of a run's timeline: what was decided or heard of the run, of a task's attempt, of
    a node, or of the whole system.
    """

    at: Time
    kind: Literal["run", "task", "node", "system"]
    task: int | None
    attempt: int | None
    node: str | None
    text: str


class Timeline(Page[TimelineLine]):
    """One page of a timeline, oldest first, in the order of the record."""

    run: str


class Part(View):
    """Log bytes of one stream (base64). Of a gap there are no bytes, only their number."""

    offset: int
    stream: StreamName
    time: Time
    length: int
    bytes: str


class LogBytes(View):
    """A part of a log by offset."""

    attempt: str
    offset: int
    next_offset: int
    length: int
    complete: bool
    parts: list[Part]


class LogLine(View):
    """One line as text (UTF-8, wrong bytes replaced); `cut`: it goes on after 16 KiB."""

    line: int
    offset: int
    stream: StreamName
    time: Time
    text: str
    cut: bool
    gap: int


class LogLines(View):
    """Lines of a log; `next_line` is where to go on, null at the end."""

    attempt: str
    first_line: int
    lines: list[LogLine]
    total_lines: int
    next_line: int | None
    complete: bool


class LogMatch(View):
    """A line that holds the text."""

    line: int
    offset: int
    text: str


class LogMatches(View):
    """Lines that hold the text; `next_line` is where to go on, null when all was searched."""

    matches: list[LogMatch]
    next_line: int | None


class Health(View):
    """The process lives."""

    status: Literal["ok"]


class Readiness(View):
    """Whether the server can do its work; `problems` says by name what does not work, `warnings`
    what works and is yet not as promised.
    """

    status: Literal["ready", "not ready"]
    problems: dict[str, str]
    warnings: dict[str, str]
