"""A real server on a real socket, in a thread of this process, and a plain HTTP client."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop
from tests.databases import Databases

from fleetwire.core import access
from fleetwire.core.chunks import Piece
from fleetwire.server import app
from fleetwire.server.api.parts import Parts
from fleetwire.server.config import Config
from fleetwire.server.domain import people, users
from fleetwire.server.logs.chunks import encode
from fleetwire.server.store import projects, tables

T = TypeVar("T")
WAIT_S = 30.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The stable code of a problem document, which this must be."""
        assert self.headers["content-type"] == "application/problem+json", self
        document = self.json
        assert document["status"] == self.status
        assert document["type"]
        assert document["title"]
        assert document["detail"]
        return str(document["code"])


class Server:
    """One server process's parts, run in a thread. `token` is an API token of the first admin."""

    def __init__(self, data: Path, **settings: Any) -> None:
        self.data = data
        self._settings = settings
        self._thread: threading.Thread | None = None
        self.port = 0
        self.token = ""

    def start(self) -> None:
        ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(WAIT_S)
        if self._error is not None:
            raise self._error
        if not self.token:
            self.token = self.new_token()

    def stop(self) -> None:
        if self._thread is None:
            return
        try:
            self.loop.call_soon_threadsafe(self.process.leaving.set)
        except RuntimeError as closed:
            raise AssertionError("the server has ended by itself") from self._error or closed
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        self._thread = None
        if self._error is not None:
            raise self._error

    def restart(self) -> None:
        """Leave and come again on the same port, with the same data."""
        self.stop()
        self.start()

    def _run(self, ready: threading.Event) -> None:
        try:
            uvloop.run(self._serve(ready))  # as the server's own process does
        except BaseException as error:  # noqa: BLE001 - raised again where the test can see it
            self._error = error
        finally:
            ready.set()

    async def _serve(self, ready: threading.Event) -> None:
        self.data.mkdir(mode=0o700, exist_ok=True)
        config = Config(data=self.data, **self._settings)
        self.loop = asyncio.get_running_loop()
        with app.listen("127.0.0.1", self.port) as listening:
            self.port = listening.getsockname()[1]
            async with app.Process(config, asyncio.Event()).opened() as self.process:
                ready.set()
                await self.process.serve(listening)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(WAIT_S)

    def write(self, use_case: Callable[[Any], T]) -> T:
        return self.run(self.process.database.write(use_case))

    def read(self, query: Callable[[Any], T]) -> T:
        return self.run(self.process.database.read(query))

    @property
    def parts(self) -> Parts:
        return self.process.parts

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def origin(self) -> str:
        return f"http://{self.host}"

    @property
    def password(self) -> str:
        return (self.data / app.PASSWORD_FILE).read_text().strip()

    def head(self, path: str, method: str = "GET", *headers: str) -> bytes:
        """A request as it goes over the wire, for a test that sends and reads as it likes."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}", *headers]
        return "\r\n".join([*lines, f"Authorization: Bearer {self.token}", "", ""]).encode()

    def new_token(self, *, name: str = "test", expires_in: float | None = None) -> str:
        secret = f"fw_{app.new_secret()}"
        admin = self.read(lambda c: people.account(c, people.FIRST_ADMIN))
        assert admin is not None
        self.write(
            lambda tx: people.create_token(
                tx, admin.id, ids=app.new_id, name=name, secret=people.digest(secret),
                expires_in=expires_in,
            )
        )  # fmt: skip
        return secret

    def new_project(self, name: str) -> str:
        """Make a project of the admin's; return its id."""
        answer = self.call("POST", "/api/v1/projects", {"name": name})
        assert answer.status == 201, answer
        return str(answer.json["id"])

    def new_user(
        self, name: str, *roles: str, project: str = access.DEFAULT_PROJECT, role: str = "user"
    ) -> str:
        """Make a user with these roles in a project; return a token of theirs."""
        secret = f"fw_{app.new_secret()}"

        def make(tx: Any) -> None:
            made = users.create(
                tx, name, password_hash="", is_system_admin=role == "admin", ids=app.new_id
            )
            projects.set_roles(tx.connection, made.id, project, roles)
            people.create_token(
                tx, made.id, ids=app.new_id, name="test", secret=people.digest(secret)
            )

        self.write(make)
        return secret

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        token: str | None = "",
    ) -> Answer:
        """Send one request. A body that is not bytes goes as JSON; `token=None` sends none."""
        sent = dict(headers or {})
        if token is not None and not any(name.lower() == "authorization" for name in sent):
            sent["Authorization"] = f"Bearer {token or self.token}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        with contextlib.closing(connection):
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Answer(response.status, response.msg, response.read())

    def raw(self, data: bytes) -> bytes:
        """Send bytes, return all that comes until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S) as connection:
            connection.sendall(data)
            received = b""
            while more := connection.recv(65536):
                received += more
            return received

    def login(self) -> dict[str, str]:
        """Log in; return the headers of a page of this server."""
        answer = self.call(
            "POST",
            "/api/v1/login",
            {"username": "admin", "password": self.password},
            token=None,
        )
        assert answer.status == 200, answer
        cookie = answer.headers["set-cookie"].partition(";")[0]
        return {"Cookie": cookie, "Origin": self.origin, "X-CSRF-Token": answer.json["csrf"]}

    def events(self, path: str, *, last: str = "") -> Events:
        """Open a stream."""
        return Events(self, path, last=last)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    # -- a fleet without agents ----------------------------------------------------------------

    def add_node(self, name: str, *, project: str = access.DEFAULT_PROJECT, **labels: str) -> str:
        node = app.new_id()
        row = {
            "id": node, "name": name, "signing_key": bytes(32), "sealing_key": bytes(32),
            "labels": json.dumps(labels), "capacity": 5, "incarnation": "x" * 16,
            "created_at": app.now_us(), "project_id": project,
        }  # fmt: skip

        def add(tx: Any) -> None:
            tx.connection.execute(tables.nodes.insert(), [row])
            tx.connection.execute(
                tables.meta.update()
                .where(tables.meta.c.key == "catalogue")
                .values(value=app.new_id())
            )

        self.write(add)
        return node

    def submit(self, **request: Any) -> Any:
        body = {"spec": {"kind": "script", "script": "echo hi\n"}, **request}
        answer = self.call("POST", "/api/v1/runs", body)
        assert answer.status == 201, answer
        return answer.json

    def append(self, attempt: str, data: bytes, *, stream: int = 1, gap: int = 0) -> int:
        """Append output to an attempt's log, as its node's link does."""
        segment = self.read(
            lambda c: c.execute(
                tables.attempts.select().where(tables.attempts.c.id == attempt)
            ).mappings().one()["segment"]
        )  # fmt: skip
        logs = self.process.logs
        length = self.run(logs.lengths([(segment, attempt)]))[attempt]
        if gap:
            body = encode([Piece(0, gap, app.now_us())], b"")
            length = self.run(logs.append("node", 1, segment, attempt, length, body)).length
        for start in range(0, len(data), 1 << 20):
            chunk = data[start : start + (1 << 20)]
            pieces = [
                Piece(stream, len(chunk[at : at + 65536]), app.now_us())
                for at in range(0, len(chunk), 65536)
            ]
            body = encode(pieces, chunk)
            length = self.run(logs.append("node", 1, segment, attempt, length, body)).length
        return length

    def end(self, run: str, *, log_state: str = "sealed", outcome: str = "succeeded") -> None:
        """Make a run and all its attempts ended, in one transaction, with its nudge."""

        def change(tx: Any) -> None:
            attempts, runs = tables.attempts, tables.runs
            tx.connection.execute(
                attempts.update()
                .where(attempts.c.run_id == run)
                .values(state="exited", outcome=outcome, ended_at=tx.now, log_state=log_state)
            )
            unsettled = 0 if log_state == "sealed" else 1
            tx.connection.execute(
                runs.update()
                .where(runs.c.id == run)
                .values(state="ended", outcome=outcome, ended_at=tx.now, unsettled=unsettled)
            )
            tx.nudge(f"run:{run}")

        self.write(change)


@pytest.fixture
def new_server(tmp_path: Path, databases: Databases) -> Iterator[Callable[..., Server]]:
    """Make a server of one test's own."""
    with contextlib.ExitStack() as stack:

        def make(**settings: Any) -> Server:
            data = tmp_path / f"data{app.new_id()}"
            database = stack.enter_context(databases.ready(data))
            server = Server(data, database=database, **settings)
            server.start()
            stack.callback(server.stop)
            return server

        yield make


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Iterator[Server]:
    """One server for all tests that only ask."""
    data = tmp_path_factory.mktemp("server") / "data"
    with databases.ready(data) as database:
        shared = Server(data, database=database)
        shared.start()
        yield shared
        shared.stop()


class Events:
    """The events of one stream, as they come."""

    def __init__(self, server: Server, path: str, *, last: str = "", **headers: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)
        sent = {"Authorization": f"Bearer {server.token}", **headers}
        if last:
            sent["Last-Event-ID"] = last
        self.connection.request("GET", path, headers=sent)
        self.response = self.connection.getresponse()
        self.status = self.response.status
        self.last_id = ""

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        name = ""
        while line := self.response.readline():
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field == "event":
                name = value
            elif field == "id":
                self.last_id = value
            elif field == "data":
                yield name, json.loads(value)

    def close(self) -> None:
        self.response.close()
        self.connection.close()
