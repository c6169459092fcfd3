"""One keep-alive connection to the server, and the rules of trying again.

Only what may be repeated is repeated: GET, DELETE, and a POST that carries an Idempotency-Key
or is a wish (stopping twice is stopping once). Everything else raises AnswerLost when the
connection ends before the answer, because the server may have done it. Whoever has never
reached the server fails at once: then it is the URL that is wrong, not the moment.

TCP_NODELAY is set by http.client; the 40 ms of delayed ACK against Nagle would be most of a
run's latency (targets). Proxies of the environment are not used: this is a direct line.
"""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple
from urllib.parse import urlencode, urlsplit

from fleetwire import __version__
from fleetwire.client.backoff import Patience
from fleetwire.client.errors import (
    AnswerLost,
    BadAnswer,
    ClientError,
    NotFound,
    Problem,
    ServerFault,
    ServerUnreachable,
    problem_from,
)

ANSWER_BYTES: Final = 64 * 1024 * 1024
REPEATABLE: Final = frozenset({"GET", "HEAD", "DELETE", "PUT"})
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
"""What a header can carry whole: a token with a line break would be another header (or none)."""
AWAY: Final = frozenset({502, 503, 504})
"""Statuses that say: not now (a server that is starting or leaving, or a proxy without one)."""


class Answer(NamedTuple):
    """A whole answer below 400."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Connection:
    """Requests to one server, one at a time. Not for more than one thread.

    Args:
        url: the server's base URL, `http://` or `https://`, a path is kept as a prefix.
        token: an API token, sent as bearer.
        timeout: seconds without a byte after which an answer is given up.
        patience: seconds to go on trying once the server was reached and has gone away.
        notify: called with a sentence when the server goes away, with "" when it is back.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = 30.0,
        patience: float = 30.0,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ClientError(
                f"{url!r} is not the URL of a server.",
                hint="It looks like http://127.0.0.1:8080.",
                field="url",
            )
        if token is not None and not _TOKEN.fullmatch(token):
            raise ClientError(
                "The API token has characters that no token has.",
                hint="Copy it again, without line breaks, or make one: fleetwire tokens create.",
                field="token",
            )
        self.url = url.rstrip("/")
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.timeout = timeout
        self.patience = patience
        self.reached = False
        self.cookie: str | None = None
        self._token = token
        self._host = parts.hostname
        self._port = port
        self._tls = parts.scheme == "https"
        self._prefix = parts.path.rstrip("/")
        self._notify = notify
        self._idle: http.client.HTTPConnection | None = None

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._idle is not None:
            self._idle.close()
            self._idle = None

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool | None = None,
        patience: float | None = None,
    ) -> Answer:
        """Ask and return the whole answer.

        Raises:
            Problem: the server answered 400 or above (one class for each kind).
            ServerUnreachable: nothing answers, within the patience if it had been reached.
            AnswerLost: the connection ended before the answer and the request is not repeatable.
        """
        if repeatable is None:
            repeatable = method in REPEATABLE
        patience = self.patience if patience is None else patience
        target = self._target(path, query)
        sent = self._headers(headers, body)
        waiting = Patience(patience, self._notify)
        while True:
            known = self.reached
            failure: Exception
            try:
                answer = self._exchange(method, target, body, sent)
            except (OSError, http.client.HTTPException) as lost:
                self.close()
                if not known and not self.reached:
                    raise self._unreachable(lost) from lost
                # A refused connection has carried nothing: it may always be tried again.
                if not repeatable and not isinstance(lost, ConnectionRefusedError):
                    raise self._answer_lost(method, path, lost) from lost
                failure = lost
            except BaseException:
                # An interrupted exchange leaves bytes that would answer the next request.
                self.close()
                raise
            else:
                if answer.status not in AWAY or not repeatable:
                    waiting.back()
                    return self._checked(answer)
                failure = self._problem(answer)
            if not waiting.wait():
                if isinstance(failure, Problem):
                    raise failure
                raise self._unreachable(failure, patience) from failure

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Open an answer of any length on a connection of its own, once: the caller knows how
        to go on where it ended. Raises as `request` does, and OSError or HTTPException while
        it is read.
        """
        raw = self._connect(self.timeout if timeout is None else timeout)
        try:
            try:
                raw.request("GET", self._target(path, query), headers=self._headers(headers, None))
                answer = raw.getresponse()
            except (OSError, http.client.HTTPException) as lost:
                raise self._unreachable(lost) from lost
            self.reached = True
            with answer:
                if answer.status >= 400:
                    raise self._problem(Answer(answer.status, answer.headers, answer.read(1 << 20)))
                yield answer
        finally:
            raw.close()

    def _exchange(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str]
    ) -> Answer:
        if self._idle is not None:
            kept, self._idle = self._idle, None
            try:
                return self._ask(kept, method, target, body, headers)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                # A server may close an idle connection at any time; nothing was answered. Whether
                # it was idleness or a crash cannot be told: the rules of repeating decide.
                kept.close()
                if method not in REPEATABLE:
                    raise
            except BaseException:
                kept.close()
                raise
        fresh = self._connect(self.timeout)
        try:
            return self._ask(fresh, method, target, body, headers)
        except BaseException:
            fresh.close()
            raise

    def _ask(
        self,
        raw: http.client.HTTPConnection,
        method: str,
        target: str,
        body: bytes | None,
        headers: dict[str, str],
    ) -> Answer:
        if raw.sock is None:
            raw.connect()
            self.reached = True
        raw.request(method, target, body, headers)
        with raw.getresponse() as answer:
            content = answer.read(ANSWER_BYTES + 1)
            if len(content) > ANSWER_BYTES:
                raise BadAnswer(f"The answer is longer than {ANSWER_BYTES} bytes.")
            result = Answer(answer.status, answer.headers, content)
            closing = answer.will_close
        if closing:
            raw.close()
        else:
            self._idle = raw
        return result

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        if self._tls:
            return http.client.HTTPSConnection(self._host, self._port, timeout=timeout)
        return _Plain(self._host, self._port, timeout=timeout)

    def _target(self, path: str, query: Mapping[str, object] | None) -> str:
        given = {key: value for key, value in (query or {}).items() if value is not None}
        return f"{self._prefix}{path}" + (f"?{urlencode(given)}" if given else "")

    def _headers(self, more: Mapping[str, str] | None, body: bytes | None) -> dict[str, str]:
        headers = {"User-Agent": f"fleetwire/{__version__}", "Accept": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        elif self.cookie is not None:
            # The server checks the Origin of every write by cookie, as of a browser's.
            headers |= {"Cookie": self.cookie, "Origin": self.origin}
        if body is not None:
            headers["Content-Type"] = "application/json"
        return headers | dict(more or {})

    def _checked(self, answer: Answer) -> Answer:
        if answer.status >= 400:
            raise self._problem(answer)
        return answer

    def _problem(self, answer: Answer) -> Problem:
        problem = problem_from(answer.status, answer.headers.get_content_type(), answer.body)
        if isinstance(problem, NotFound | ServerFault) and problem.code == f"http-{problem.status}":
            problem.hint = f"Is {self.url} a Fleetwire server?"
        return problem

    def _unreachable(self, cause: Exception, patience: float | None = None) -> ServerUnreachable:
        reason = reason_of(cause)
        if patience is None:
            return ServerUnreachable(
                f"No server answers at {self.url}: {reason}.",
                hint="Start one with `fleetwire up`, or name another with `fleetwire login URL`.",
            )
        return ServerUnreachable(
            f"The server at {self.url} has been away for {patience:.0f} s: {reason}.",
            hint="Look at the server, then ask again; what was submitted goes on without you.",
        )

    def _answer_lost(self, method: str, path: str, cause: Exception) -> AnswerLost:
        return AnswerLost(
            f"The connection ended before {method} {path} was answered: {reason_of(cause)}.",
            hint="It may have been done: look before you repeat it.",
        )


class _Plain(http.client.HTTPConnection):
    """Looks an ASCII host up as bytes: as text Python would import its whole IDNA tables first,
    5 ms of every command.
    """

    def connect(self) -> None:
        host: str | bytes = self.host.encode("ascii") if self.host.isascii() else self.host
        # The declared type knows only text; getaddrinfo documents both.
        address: tuple[str, int] = (host, self.port)  # type: ignore[assignment]
        self.sock = socket.create_connection(address, self.timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def reason_of(cause: Exception) -> str:
    """Return what a person needs to know of a failed connection."""
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, http.client.RemoteDisconnected | http.client.IncompleteRead):
        return "the connection was closed"
    if isinstance(cause, http.client.HTTPException):
        return f"the answer is not HTTP ({type(cause).__name__})"
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return text[:1].lower() + text[1:]
