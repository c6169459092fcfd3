"""One keep-alive connection to the server, and the rules of trying again.

Only what may be repeated is repeated: GET, PUT, DELETE, and a POST or PATCH that carries an
Idempotency-Key or is a wish (stopping twice is stopping once). Everything else raises AnswerLost
when the connection ends before the answer, because the server may have done it. Whoever has never
reached the server fails at once: then it is the URL that is wrong, not the moment.

Proxies of the environment are not used: this is a direct line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

from fleetwire import __version__
from fleetwire.client.backoff import Patience
from fleetwire.client.errors import (
    AnswerLost,
    BadAnswer,
    ClientError,
    NotFound,
    Problem,
    ServerDistrusted,
    ServerFault,
    ServerUnreachable,
    problem_from,
)
from fleetwire.client.http1 import Answering, BadHttp, Cut, Disconnected, Headers, Place, Wire

if TYPE_CHECKING:
    import ssl

ANSWER_BYTES: Final = 64 * 1024 * 1024
REPEATABLE: Final = frozenset({"GET", "HEAD", "DELETE", "PUT"})
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
"""What a header can carry whole: a token with a line break would be another header (or none)."""
AWAY: Final = frozenset({502, 503, 504})
"""Statuses that say: not now (a server that is starting or leaving, or a proxy without one)."""


class Answer(NamedTuple):
    """A whole answer below 400."""

    status: int
    headers: Headers
    body: bytes


class Connection:
    """Requests to one server, one at a time. Not for more than one thread.

    Args:
        url: the server's base URL, `http://` or `https://`, a path is kept as a prefix.
        token: an API token, sent as bearer.
        timeout: seconds without a byte after which an answer is given up.
        patience: seconds to go on trying once the server was reached and has gone away.
        notify: called with a sentence when the server goes away, with "" when it is back.
        ca: the certificate (PEM) of the one CA to verify the server by, as `fetch_ca` returns it;
            None: by the CAs that this machine knows.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = 30.0,
        patience: float = 30.0,
        notify: Callable[[str], None] | None = None,
        ca: str | None = None,
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
        if "@" in parts.netloc:
            raise ClientError(
                "The URL of the server has a user name or a password in it, where they end up in "
                "logs and lists of processes.",
                hint="Leave them out, and log in: fleetwire login URL --username NAME.",
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
        self.csrf: str | None = None
        self._token = token
        self._place = Place(parts.hostname, port, parts.scheme == "https")
        self._ca = ca
        self._context: ssl.SSLContext | None = None
        self._prefix = parts.path.rstrip("/")
        self._notify = notify
        self._idle: Wire | None = None

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
            except (OSError, BadHttp) as lost:
                self.close()
                if self._is_distrust(lost):
                    raise self._distrusted(lost) from lost
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
    ) -> Iterator[Answering]:
        """Open an answer of any length, once: the caller knows how to go on where it ended.
        Requests that are made meanwhile go over another connection. Raises as `request` does,
        and OSError or BadHttp while it is read.
        """
        within = self.timeout if timeout is None else timeout
        try:
            answer, wire = self._begin(
                "GET", self._target(path, query), None, self._headers(headers, None), within
            )
        except (OSError, BadHttp) as lost:
            raise self._unreachable(lost) from lost
        try:
            if answer.status >= 400:
                raise self._problem(Answer(answer.status, answer.headers, answer.read(1 << 20)))
            yield answer
        finally:
            self._keep(wire, answer)

    def _exchange(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str]
    ) -> Answer:
        answer, wire = self._begin(method, target, body, headers, self.timeout)
        try:
            content = answer.read(ANSWER_BYTES)
            if len(content) > ANSWER_BYTES:
                raise BadAnswer(f"The answer is longer than {ANSWER_BYTES} bytes.")
        finally:
            self._keep(wire, answer)
        return Answer(answer.status, answer.headers, content)

    def _begin(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str], timeout: float
    ) -> tuple[Answering, Wire]:
        """Ask on the idle connection, or on a new one; return the answer as it begins."""
        if self._idle is not None:
            kept, self._idle = self._idle, None
            try:
                return kept.ask(method, target, headers, body, timeout=timeout), kept
            except (Disconnected, BrokenPipeError, ConnectionResetError):
                # A server may close an idle connection at any time; nothing was answered. Whether
                # it was idleness or a crash cannot be told: the rules of repeating decide.
                kept.close()
                if method not in REPEATABLE:
                    raise
            except BaseException:
                kept.close()
                raise
        wire = Wire.open(self._place, timeout, self._secured())
        self.reached = True
        try:
            return wire.ask(method, target, headers, body, timeout=timeout), wire
        except BaseException:
            wire.close()
            raise

    def _keep(self, wire: Wire, answer: Answering) -> None:
        """Keep the connection for the next request, where this one has left it clean."""
        if answer.is_whole and answer.keeps and self._idle is None:
            self._idle = wire
        else:
            wire.close()

    def _secured(self) -> ssl.SSLContext | None:
        if self._place.tls and self._context is None:
            import ssl  # noqa: PLC0415 - most servers are on this machine, and it takes 10 ms

            self._context = ssl.create_default_context(cadata=self._ca)
            self._context.set_alpn_protocols(["http/1.1"])
        return self._context

    def _is_distrust(self, cause: Exception) -> bool:
        if not self._place.tls:
            return False
        import ssl  # noqa: PLC0415 - as above

        return isinstance(cause, ssl.SSLCertVerificationError)

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
            if self.csrf is not None:
                headers["X-CSRF-Token"] = self.csrf
        if body is not None:
            headers["Content-Type"] = "application/json"
        return headers | dict(more or {})

    def _checked(self, answer: Answer) -> Answer:
        if answer.status >= 400:
            raise self._problem(answer)
        return answer

    def _problem(self, answer: Answer) -> Problem:
        problem = problem_from(answer.status, answer.headers.media_type(), answer.body)
        if isinstance(problem, NotFound | ServerFault) and problem.code == f"http-{problem.status}":
            problem.hint = f"Is {self.url} a Fleetwire server?"
        return problem

    def _unreachable(self, cause: Exception, patience: float | None = None) -> ClientError:
        if self._is_distrust(cause):
            return self._distrusted(cause)
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

    def _distrusted(self, cause: Exception) -> ServerDistrusted:
        why = getattr(cause, "verify_message", "") or str(cause)
        if self._ca is not None:
            from fleetwire.core import pins  # noqa: PLC0415 - only to say what went wrong

            return ServerDistrusted(
                f"{self.url} does not prove to be the pinned server "
                f"({pins.fingerprint(self._ca)}): {why}.",
                hint="Somebody may be in between, or the URL has a name that its certificate has "
                "not, or its CA was made anew: then log in again with the new --ca-fingerprint.",
            )
        return ServerDistrusted(
            f"The certificate of {self.url} is not to be trusted: {why}.",
            hint="For a server with a CA of its own: fleetwire login URL --ca-fingerprint "
            "sha256:..., as its administrator sees it in the console.",
        )

    def _answer_lost(self, method: str, path: str, cause: Exception) -> AnswerLost:
        return AnswerLost(
            f"The connection ended before {method} {path} was answered: {reason_of(cause)}.",
            hint="It may have been done: look before you repeat it.",
        )


def fetch_ca(url: str, fingerprint: str, *, timeout: float = 30.0) -> str:
    """Return the certificate (PEM) of a server's CA, if it has this fingerprint. Nothing else is
    said to the server.

    Raises:
        BadFingerprint: the fingerprint is none.
        WrongAuthority: the server's CA is another one, or it shows none.
        ServerUnreachable: nothing answers.
        ClientError: the URL is none, or not https.
    """
    import ssl  # noqa: PLC0415 - once per login

    from fleetwire.core import pins  # noqa: PLC0415 - as above

    pinned = pins.parse(fingerprint)
    asked = Connection(url, timeout=timeout)
    if not asked._place.tls:  # noqa: SLF001 - made here
        raise ClientError(
            f"{url} is plain HTTP, which has no CA to pin.", hint="Use https://.", field="url"
        )
    # It is the fingerprint that verifies what comes.
    asked._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # noqa: SLF001 - made here
    asked._context.check_hostname = False  # noqa: SLF001 - as above
    asked._context.verify_mode = ssl.CERT_NONE  # noqa: SLF001 - as above
    try:
        shown = asked.request("GET", pins.CA_PATH).body.decode("ascii", errors="replace")
    except Problem:
        shown = ""
    finally:
        asked.close()
    return pins.check(shown, pinned, server=url)


def reason_of(cause: Exception) -> str:
    """Return what a person needs to know of a failed connection."""
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, Disconnected | Cut):
        return "the connection was closed"
    if isinstance(cause, BadHttp):
        return f"the answer is not HTTP ({cause})"
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return text[:1].lower() + text[1:]
