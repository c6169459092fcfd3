"""The REST API as methods (docs/seams.md, 4)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from fleetwire.client import shapes
from fleetwire.client.asking import BASE, read, segment
from fleetwire.client.backoff import Patience
from fleetwire.client.connection import Answer, Connection
from fleetwire.client.errors import BadAnswer, ServerUnreachable
from fleetwire.client.follow import PATIENCE_S, Event, RunChanged, TaskChanged, follow_run
from fleetwire.client.http1 import BadHttp
from fleetwire.client.people import People
from fleetwire.core import limits
from fleetwire.core.specs import RunRequest

BLOCK: Final = 256 * 1024


class Client(People):
    """A server's API, for one thread. Also a context manager.

    Args:
        url: the server's base URL, such as `http://127.0.0.1:8080`.
        token: an API token; without one only `login`, `healthy` and `ready` are of use.
        timeout: seconds without a byte after which an answer is given up.
        patience: seconds to go on trying a repeatable request while the server is away.
        notify: called with a sentence when the server goes away, with "" when it is back.
        ca: the certificate (PEM) of the server's own CA, as `fetch_ca` returns it; None: the CAs
            that this machine knows.

    Every method may raise what `fleetwire.client.errors` lists.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 30.0,
        patience: float = 30.0,
        notify: Callable[[str], None] | None = None,
        ca: str | None = None,
    ) -> None:
        self.connection = Connection(
            url, token=token, timeout=timeout, patience=patience, notify=notify, ca=ca
        )
        self._notify = notify

    @property
    def url(self) -> str:
        """The server's base URL."""
        return self.connection.url

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # ----------------------------------------------------------------------------- secrets

    def secrets(self, *, project: str | None = None) -> Iterator[shapes.Secret]:
        """Yield the secrets by name, or those of a project, without their values."""
        return self._items(f"{BASE}/secrets", shapes.Secret, {"project": project})

    def set_secret(self, name: str, value: bytes, *, project: str | None = None) -> shapes.Secret:
        """Set a secret. Repeated while the server is away: then its version may grow by two."""
        body: dict[str, object] = {"value_base64": value}
        if project is not None:
            body["project"] = project
        return self._send("PUT", f"{BASE}/secrets/{segment(name)}", body, shapes.Secret)

    def delete_secret(self, name: str, *, project: str | None = None) -> None:
        """Delete a secret."""
        self.connection.request(
            "DELETE", f"{BASE}/secrets/{segment(name)}", query={"project": project}
        )

    # ------------------------------------------------------------------------------- nodes

    def nodes(self, *, project: str | None = None) -> Iterator[shapes.Node]:
        """Yield all nodes, or those of a project."""
        return self._items(f"{BASE}/nodes", shapes.Node, {"project": project})

    def node(self, name_or_id: str) -> shapes.Node:
        """Return one node, by name or id (or a unique prefix of the id)."""
        return self._get(f"{BASE}/nodes/{segment(name_or_id)}", shapes.Node)

    def set_node(self, name_or_id: str, *, admin: str) -> shapes.Node:
        """Drain a node (`draining`), take it out of a drain (`active`), or lock it out
        (`disabled`). Repeated it changes nothing.
        """
        path = f"{BASE}/nodes/{segment(name_or_id)}"
        return self._send("PATCH", path, {"admin": admin}, shapes.Node)

    def approve_node(self, name_or_id: str) -> shapes.Node:
        """Let a node in that was enrolled with a token that asks for approval."""
        return self._post(f"{BASE}/nodes/{segment(name_or_id)}/approve", {}, shapes.Node)

    def release_node(self, name_or_id: str) -> shapes.Node:
        """Let a quarantined node in again: the first to come with its key is it from then on."""
        return self._post(f"{BASE}/nodes/{segment(name_or_id)}/release", {}, shapes.Node)

    def delete_node(
        self, name_or_id: str, *, force: bool = False, only_waiting: bool = False
    ) -> shapes.DeletedNode:
        """Delete a node that is gone; with `force` one that is not, with `only_waiting` only one
        that was not approved meanwhile. Not repeated: the answer says what was lost.
        """
        asked = {"force": "1" if force else None, "only": "waiting" if only_waiting else None}
        answer = self.connection.request(
            "DELETE",
            f"{BASE}/nodes/{segment(name_or_id)}",
            query=asked,
            repeatable=False,
        )
        return read(answer, shapes.DeletedNode)

    def node_events(
        self, name_or_id: str, *, page: int | None = None
    ) -> Iterator[shapes.NodeEvent]:
        """Yield what happened to a node, newest first."""
        path = f"{BASE}/nodes/{segment(name_or_id)}/events"
        return self._items(path, shapes.NodeEvent, {"limit": page})

    # ------------------------------------------------------------------------------ system

    def system(self) -> shapes.System:
        """Return the state of the whole system."""
        return self._get(f"{BASE}/system", shapes.System)

    def close_breaker(self) -> shapes.System:
        """Close the mass-offline breaker by hand. Repeated it changes nothing."""
        answer = self.connection.request("POST", f"{BASE}/system/close-breaker", repeatable=True)
        return read(answer, shapes.System)

    # -------------------------------------------------------------------------------- runs

    def create_run(
        self,
        request: RunRequest,
        *,
        idempotency_key: str | None = None,
        project: str | None = None,
    ) -> shapes.Run:
        """Submit a run. It is repeated while the server is away, with one `Idempotency-Key`, so
        that there is one run however often it had to be sent. `project` is a name or id.
        """
        answer = self.create_run_raw(request, idempotency_key=idempotency_key, project=project)
        return read(answer, shapes.Run)

    def create_run_raw(
        self,
        request: RunRequest,
        *,
        idempotency_key: str | None = None,
        project: str | None = None,
    ) -> Answer:
        """Submit a run as `create_run` does and return the answer as it came."""
        key = idempotency_key or new_key()
        body = {
            name: value
            for name in RunRequest.__struct_fields__
            if (value := getattr(request, name)) is not None
        }
        if request.lost_after == limits.LOST_AFTER_S:
            del body["lost_after"]  # an older server does not know the field
        if project is not None:
            body["project"] = project
        return self.connection.request(
            "POST",
            f"{BASE}/runs",
            body=msgspec.json.encode(body),
            headers={"Idempotency-Key": key},
            repeatable=True,
        )

    def runs(
        self, *, state: str | None = None, page: int | None = None, project: str | None = None
    ) -> Iterator[shapes.Run]:
        """Yield the runs, newest first; `state` is pending, running or ended, `page` is how many
        are asked for at once, `project` a project's name or id.
        """
        query = {"state": state, "limit": page, "project": project}
        return self._items(f"{BASE}/runs", shapes.Run, query)

    def run(self, run_id: str) -> shapes.Run:
        """Return one run with its tasks, by id or a unique prefix of it."""
        return self._get(f"{BASE}/runs/{segment(run_id)}", shapes.Run)

    def stop_run(
        self, run_id: str, *, grace: float | None = None, patience: float | None = None
    ) -> shapes.Run:
        """Wish that a run stops; `grace` seconds lie between TERM and KILL. The answer does not
        wait for the end.
        """
        body = {} if grace is None else {"grace": grace}
        answer = self.connection.request(
            "POST",
            f"{BASE}/runs/{segment(run_id)}/stop",
            body=msgspec.json.encode(body),
            repeatable=True,
            patience=patience,
        )
        return read(answer, shapes.Run)

    def why(self, run_id: str) -> shapes.Why:
        """Return the story of a run: what was decided and heard, with reasons."""
        return self._get(f"{BASE}/runs/{segment(run_id)}/why", shapes.Why)

    def timeline(self, run_id: str, *, page: int | None = None) -> Iterator[shapes.TimelineLine]:
        """Yield the timeline of a run, oldest first: its own story, its nodes', the system's."""
        path = f"{BASE}/runs/{segment(run_id)}/timeline"
        return self._items(path, shapes.TimelineLine, {"limit": page})

    def follow(
        self,
        run_id: str,
        *,
        logs: bool = True,
        patience: float = PATIENCE_S,
        on_open: Callable[[], None] | None = None,
    ) -> Iterator[Event]:
        """Yield what happens to a run from its begin to its end (see `follow_run`)."""
        return follow_run(
            self.connection,
            f"{BASE}/runs/{segment(run_id)}",
            logs=logs,
            patience=patience,
            notify=self._notify,
            on_open=on_open,
        )

    def wait(self, run_id: str, *, patience: float = PATIENCE_S) -> shapes.Run:
        """Return the run with its tasks once it has ended and its logs are sealed."""
        run: shapes.Run | None = None
        tasks: dict[int, shapes.Task] = {}
        for event in self.follow(run_id, logs=False, patience=patience):
            if isinstance(event, RunChanged):
                run = event.run
            elif isinstance(event, TaskChanged):
                tasks[event.task.index] = event.task
        if run is None:
            raise BadAnswer(f"The server ended the events of run {run_id} without the run.")
        # What came last of each is what the run is: nothing is asked once more.
        run.tasks = [tasks[index] for index in sorted(tasks)]
        return run

    # -------------------------------------------------------------------------------- logs

    def log(self, attempt: str, *, offset: int = 0, limit: int = 1 << 20) -> shapes.LogPage:
        """Return about `limit` bytes of a log from `offset` on."""
        return self._get(
            f"{BASE}/attempts/{segment(attempt)}/log",
            shapes.LogPage,
            {"offset": offset, "limit": limit},
        )

    def log_lines(self, attempt: str, *, line: int = 0, lines: int = 200) -> shapes.LogLines:
        """Return lines of a log from `line` (the first is 0) on."""
        return self._get(
            f"{BASE}/attempts/{segment(attempt)}/log",
            shapes.LogLines,
            {"line": line, "lines": lines},
        )

    def log_tail(self, attempt: str, lines: int) -> shapes.LogLines:
        """Return the last lines of a log."""
        return self._get(
            f"{BASE}/attempts/{segment(attempt)}/log", shapes.LogLines, {"tail": lines}
        )

    def log_search(self, attempt: str, text: str) -> Iterator[shapes.Match]:
        """Yield the lines of a log that hold the text."""
        from_line: int | None = 0
        while from_line is not None:
            found = self._get(
                f"{BASE}/attempts/{segment(attempt)}/log/search",
                shapes.Matches,
                {"q": text, "from_line": from_line},
            )
            yield from found.matches
            from_line = found.next_line

    def raw_log(self, attempt: str) -> Iterator[bytes]:
        """Yield the bytes of a log exactly as the task wrote them. Where the server goes away in
        the middle it is asked again, and what was given already is skipped: a log only grows.
        """
        given = 0
        waiting = Patience(self.connection.patience, self._notify)
        while True:
            at = 0
            try:
                with self.connection.stream(
                    f"{BASE}/attempts/{segment(attempt)}/log/raw", headers={"Accept": "*/*"}
                ) as answer:
                    while block := answer.read1(BLOCK):
                        at += len(block)
                        if at > given:
                            fresh = block[-(at - given) :]
                            given = at
                            waiting.back()
                            yield fresh
                    return
            except ServerUnreachable:
                if not self.connection.reached:
                    raise
            except (OSError, BadHttp):
                # The rest is fetched below.
                pass
            if not waiting.wait():
                raise ServerUnreachable(
                    f"The server at {self.url} went away after {given} bytes of the log.",
                    hint="Ask again when it is back.",
                )

    # ------------------------------------------------------------------------------- health

    def healthy(self) -> bool:
        """Say whether a server answers."""
        return self._get("/healthz", dict[str, Any]).get("status") == "ok"

    def warnings(self) -> dict[str, str]:
        """Return what the server says of itself that works and is yet not as promised, by name."""
        return read(self.connection.request("GET", "/readyz"), shapes.Readiness).warnings

    def ready(self, *, patience: float = 0.0) -> None:
        """Return when the server can serve, or raise why not."""
        self.connection.request("GET", "/readyz", patience=patience)

    # ------------------------------------------------------------------------------ raw JSON

    def get_raw(self, *path: str, query: Mapping[str, object] | None = None) -> bytes:
        """Return the body of `GET /api/v1/...` as it came: for programs that pass it on. `path`
        is given segment by segment, for a person may have typed one of them.
        """
        target = "/".join([BASE, *map(segment, path)])
        return self.connection.request("GET", target, query=query).body


def new_key() -> str:
    """Return a fresh `Idempotency-Key`."""
    return os.urandom(16).hex()
