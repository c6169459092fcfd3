"""What requests may hold: strict models. An unknown field is an error, and nothing is converted
from one type to another (a `false` is no number). Sizes and meanings are checked by the core.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fleetwire.core import limits
from fleetwire.core.access import ProjectRole
from fleetwire.core.secrets import As
from fleetwire.core.specs import OnQuota, RunRequest, Shell

_DIGITS: Final = 16


class Body(BaseModel):
    """A JSON body."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class Query(BaseModel):
    """A query string, whose values are all text."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


def _digits(value: Any) -> Any:  # noqa: ANN401 - whatever pydantic hands over
    if isinstance(value, str):
        is_whole = value.isascii() and value.isdigit() and len(value) <= _DIGITS
        if not is_whole:
            raise ValueError("Use a whole number from 0, in digits")
    return value


Whole = Annotated[int, BeforeValidator(_digits)]
Limit = Annotated[Whole, Field(ge=1, le=limits.PAGE_ITEMS)]
Cursor = Annotated[str, Field(min_length=1, max_length=200)]


ProjectWord = Annotated[str, Field(min_length=1, max_length=limits.NAME_CHARS)]
"""A project's name or id."""


class ListQuery(Query):
    """A page of a list."""

    limit: Limit = 50
    cursor: Cursor | None = None


class OfProject(ListQuery):
    """A page of a list of one project's, by its name or id; of all of yours where not given."""

    project: ProjectWord | None = None


class NodesQuery(OfProject):
    """A page of nodes."""


class SecretsQuery(OfProject):
    """A page of secrets."""


class SecretQuery(Query):
    """Which project's secret; the only one you can do this in, else `default`."""

    project: ProjectWord | None = None


class EnrolmentTokensQuery(OfProject):
    """A page of enrolment tokens."""


class SystemAuditQuery(ListQuery):
    """A page of the audit. `action` is one of them, or a group such as `node.*`; `actor` and
    `target` are ids or names; `since` and `until` times with an offset (`until` not included).
    """

    action: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    actor: Annotated[str, Field(min_length=1, max_length=limits.AUDIT_NAME_CHARS)] | None = None
    target: Annotated[str, Field(min_length=1, max_length=limits.AUDIT_NAME_CHARS)] | None = None
    outcome: Literal["done", "refused"] | None = None
    address: Annotated[str, Field(min_length=1, max_length=limits.AUDIT_NAME_CHARS)] | None = None
    since: Annotated[str, Field(max_length=64)] | None = None
    until: Annotated[str, Field(max_length=64)] | None = None


class AuditQuery(SystemAuditQuery):
    """A page of the audit of a project, by its name or id, or of all of yours."""

    project: ProjectWord | None = None


class _Chain(Query):
    """Entries of one chain behind the number `after`."""

    after: Whole = 0
    limit: Limit = 500


class ChainQuery(_Chain):
    """Entries of a project's chain behind the number `after`."""

    project: ProjectWord | None = None


class SystemChainQuery(_Chain):
    """Entries of the system's chain behind the number `after`, or of the chain of a project that
    is no more, by its id.
    """

    chain: ProjectWord = "system"


class RunsQuery(OfProject):
    """A page of runs."""

    state: Literal["pending", "running", "ended"] | None = None


class EventsQuery(Query):
    """`logs=1` adds the log bytes of all tasks to a run's events."""

    logs: Literal["0", "1"] = "0"


class LogQuery(Query):
    """One of three ways into a log: from byte `offset`, from line `line`, the last `tail` lines."""

    offset: Whole | None = None
    limit: Annotated[Whole, Field(ge=1, le=limits.LOG_READ_BYTES)] | None = None
    line: Whole | None = None
    lines: Annotated[Whole, Field(ge=1, le=limits.LOG_LINES)] | None = None
    tail: Annotated[Whole, Field(ge=1, le=limits.LOG_LINES)] | None = None
    stream: Literal["stdout", "stderr"] | None = None


class SearchQuery(Query):
    """Lines that hold `q`."""

    q: Annotated[str, Field(min_length=1, max_length=limits.LOG_SEARCH_CHARS)]
    from_line: Whole = 0
    limit: Limit = 100


class StreamQuery(Query):
    """Where to begin."""

    offset: Whole = 0


Password = Annotated[str, Field(min_length=1, max_length=limits.PASSWORD_CHARS)]
NewPassword = Annotated[
    str, Field(min_length=limits.PASSWORD_LEAST_CHARS, max_length=limits.PASSWORD_CHARS)
]
Code = Annotated[str, Field(min_length=1, max_length=64)]


class LoginParams(Body):
    """A login."""

    username: Annotated[str, Field(min_length=1, max_length=limits.NAME_CHARS)]
    password: Password
    code: Code | None = None


class OidcBackQuery(Query):
    """What an OpenID provider sends back with the browser."""

    code: Annotated[str, Field(max_length=4096)] | None = None
    state: Annotated[str, Field(max_length=200)] | None = None
    iss: Annotated[str, Field(max_length=2048)] | None = None
    session_state: Annotated[str, Field(max_length=2048)] | None = None
    error: Annotated[str, Field(max_length=2048)] | None = None
    error_description: Annotated[str, Field(max_length=4096)] | None = None
    error_uri: Annotated[str, Field(max_length=2048)] | None = None
    scope: Annotated[str, Field(max_length=2048)] | None = None


class OldPasswordParams(Body):
    """Your password, once more."""

    password: Password


class OwnPasswordParams(Body):
    """Your password, and the one to have from now on."""

    old: Password
    new: NewPassword


class CodeParams(Body):
    """A code of the second factor."""

    code: Code


class PasswordParams(Body):
    """A new password; one is made where none is given."""

    password: NewPassword | None = None


class NewUserParams(PasswordParams):
    """A new user. The role `admin` is a system admin's. With `oidc_subject` it is who has that
    subject at the server's OpenID provider, and logs in there.
    """

    name: str
    role: Literal["admin", "user"] = "user"
    oidc_subject: Annotated[str, Field(min_length=1, max_length=255)] | None = None


class UserParams(Body):
    """What changes of a user."""

    disabled: bool | None = None
    role: Literal["admin", "user"] | None = None


class ProjectParams(Body):
    """A new project."""

    name: str


class RolesParams(Body):
    """All roles and grants that a user has in a project from now on; with `was`, only where these
    are what they had.
    """

    roles: Annotated[list[ProjectRole], Field(max_length=16)]
    was: Annotated[list[ProjectRole], Field(max_length=16)] | None = None


class TokenParams(Body):
    """A new API token. `expires_in` is seconds; 90 days where it is not given. With `project` it
    is good for that one only, with `permissions` for these only.
    """

    name: str
    expires_in: float | None = None
    project: ProjectWord | None = None
    permissions: Annotated[list[str], Field(max_length=64)] | None = None


class EnrolmentTokenParams(Body):
    """A new enrolment token: the labels and the project its node gets, and seconds until it
    expires. Without a project it is the only one you can do this in, else `default`. It is good
    only for names like `name` (with * and ?), from an address in `network` (CIDR); with `approval`
    its node may do nothing until it is approved.
    """

    labels: dict[str, str] = {}
    expires_in: float | None = None
    project: ProjectWord | None = None
    name: str | None = None
    network: str | None = None
    approval: bool = False


class SecretParams(Body):
    """A secret's value: text, or any bytes in base64. Exactly one of the two. Without a project it
    is of the only one you can do this in, else of `default`.
    """

    value: str | None = None
    value_base64: str | None = None
    project: ProjectWord | None = None


class SecretUseParams(Body):
    """A secret that the task is given: as a file of the name `to` in the folder
    `FLEETWIRE_SECRETS`, or as the environment variable `to`. Where `to` is not given it is the
    secret's own name.
    """

    name: str
    as_: Annotated[As, Field(alias="as")] = "file"
    to: str = ""


class ResourcesParams(Body):
    """The most that a task may take; what is not given is not limited. `memory`, `file_size`,
    `core` are bytes; `cpus` processors (0.5 is half of one); `cpu_time` seconds of processor time
    of each process; `processes` and `files` (open ones, of each process) counts.
    """

    memory: int | None = None
    cpus: float | None = None
    cpu_time: int | None = None
    processes: int | None = None
    files: int | None = None
    file_size: int | None = None
    core: int | None = None


class ScriptParams(Body):
    """A script for an interpreter. Times are seconds. `on_quota` says what happens to output
    beyond the node's spool quota while the server does not take it: the task waits (`block`), it
    is dropped with a gap in the log (`drop`), or the task is ended (`kill`). `secrets` names what
    the task is given in confidence; its output shows `***` instead. `run_as`: the name of a user
    of the node; the agent's own, or its default, where it is not given.
    """

    kind: Literal["script"]
    script: str
    shell: Shell = "sh"
    args: list[str] = []
    env: dict[str, str] = {}
    tty: bool = False
    timeout: float = limits.TIMEOUT_DEFAULT_S
    grace: float = limits.GRACE_DEFAULT_S
    on_quota: OnQuota = "block"
    secrets: list[SecretUseParams] = []
    run_as: str | None = None
    resources: ResourcesParams | None = None


class PingParams(Body):
    """Prove that the whole path to a node works."""

    kind: Literal["ping"]
    timeout: float = 60.0
    grace: float = limits.GRACE_DEFAULT_S


class StepParams(Body):
    """One step of a scripted attempt (core.specs.Step says what each does)."""

    do: Literal["print", "bytes", "sleep", "ignore", "escape", "ledger", "exit", "signal"]
    text: str = ""
    stream: Literal[1, 2] = 1
    count: Annotated[int, Field(ge=0, le=100_000_000)] = 1
    size: Annotated[int, Field(ge=0, le=1 << 40)] = 0
    seconds: Annotated[float, Field(ge=0, le=limits.TIMEOUT_S)] = 0.0
    code: Annotated[int, Field(ge=0, le=255)] = 0


class ScriptedParams(Body):
    """Steps played in order: misbehaviour as data."""

    kind: Literal["scripted"]
    steps: list[StepParams]
    timeout: float = limits.TIMEOUT_DEFAULT_S
    grace: float = limits.GRACE_DEFAULT_S
    on_quota: OnQuota = "block"
    run_as: str | None = None
    resources: ResourcesParams | None = None


class RetryParams(Body):
    """When a task is tried again: after a failure or a time-out, after a loss, or both.

    At most `count` times, `backoff` seconds after the first end and then twice as long each time
    (a day at most). After a loss the old attempt may run on, unheard of, until its node is heard
    of again and told to stop it.
    """

    on_failure: bool = False
    on_lost: bool = False
    count: int = 1
    backoff: float = limits.RETRY_BACKOFF_DEFAULT_S


class RunParams(Body):
    """One request to execute: what, where, and how long it may wait. `lost_after` is how many
    seconds beyond its deadline the attempt of a silent node counts as lost. `project` is whose
    nodes are meant: the only one you can run in where not given, else `default`.
    """

    spec: Annotated[ScriptParams | PingParams | ScriptedParams, Field(discriminator="kind")]
    selector: str | None = None
    nodes: list[str] | None = None
    any: int | None = None
    name: str | None = None
    queue_timeout: float = limits.QUEUE_TIMEOUT_DEFAULT_S
    lost_after: float = limits.LOST_AFTER_S
    retry: RetryParams | None = None
    project: ProjectWord | None = None

    def request(self) -> RunRequest:
        """Return it as the core's value."""
        return msgspec.convert(
            self.model_dump(exclude={"project"}, exclude_none=True, by_alias=True), RunRequest
        )


class NodeParams(Body):
    """What an administrator decides of a node: `draining` takes no new work and becomes drained,
    `disabled` may not connect, `active` takes work again.
    """

    admin: Literal["active", "draining", "disabled"]


class DeleteNodeQuery(Query):
    """`force=1` deletes a node that is not gone; `only=waiting` none that was approved."""

    force: Literal["0", "1"] = "0"
    only: Literal["waiting"] | None = None


class StopParams(Body):
    """A stop. `grace` is the seconds between TERM and KILL; the spec's own where not given."""

    grace: Annotated[float, Field(ge=0, le=limits.GRACE_S)] | None = None
