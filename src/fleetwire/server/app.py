"""The composition root of the server: it reads clock and chance, opens everything, and closes it.

`main(config)` runs one server process until SIGTERM, SIGINT, the end of `parent_fd`, or a disk
that fails. On leaving, streams end first (their readers come back to the next process), then
links and loops, and last what is queued for the databases is committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pwd
import secrets
import shlex
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog
import uvicorn
import uvloop
from starlette.types import ASGIApp

from fleetwire.core.errors import FleetwireError
from fleetwire.core.ids import RANDOM_BYTES, make_id
from fleetwire.server import log, reach
from fleetwire.server.api import asgi
from fleetwire.server.api.auth import Authenticator
from fleetwire.server.api.http import BoundedHttp
from fleetwire.server.api.oidc import Provider, settings_of
from fleetwire.server.api.parts import Parts
from fleetwire.server.api.passwords import Passwords
from fleetwire.server.api.proxy import BehindProxy, networks
from fleetwire.server.api.throttle import LoginThrottle
from fleetwire.server.config import Config
from fleetwire.server.domain import cluster, encrypted, health, people
from fleetwire.server.domain import dispatch as dispatch_domain
from fleetwire.server.domain import stops as stops_domain
from fleetwire.server.domain.audit import Key
from fleetwire.server.domain.dispatch import Signing
from fleetwire.server.domain.secrets import Sealing
from fleetwire.server.domain.submissions import Submissions
from fleetwire.server.durable.reserve import Reserve
from fleetwire.server.files import write_private
from fleetwire.server.gateway.endpoint import Gateway
from fleetwire.server.gateway.enrolment import Enrolment
from fleetwire.server.logs import open_logs
from fleetwire.server.loops.audit import AuditLoop
from fleetwire.server.loops.dispatch import DispatchLoop
from fleetwire.server.loops.leases import LeasesLoop
from fleetwire.server.loops.proof import ProofLoop
from fleetwire.server.loops.retention import RetentionLoop
from fleetwire.server.loops.runner import Runner
from fleetwire.server.loops.sealing import SealingLoop
from fleetwire.server.loops.secrets import SecretsLoop
from fleetwire.server.loops.stops import StopsLoop, word
from fleetwire.server.loops.storage import StorageLoop
from fleetwire.server.master_key import MasterKeys, seal_for_node
from fleetwire.server.nudges.memory import MemoryNudges
from fleetwire.server.signing import Signer, key_chain
from fleetwire.server.store.engine import Database
from fleetwire.server.tls import HANDSHAKE_S, Certificates, Given, Own
from fleetwire.server.tuning import settle

PASSWORD_FILE: Final = "admin-password"  # noqa: S105 - the name of the file
LEAVE_S: Final = 2
"""What has not ended by then is cut off."""

USED_EVERY_S: Final = 60.0
PROBE_S: Final = 1.0
_log = structlog.get_logger("fleetwire.server")


class CannotStart(FleetwireError):
    """The server cannot begin to serve."""

    code = "cannot-start"


def now_us() -> int:
    """Return the wall time in microseconds since 1970."""
    return time.time_ns() // 1000


def shell_user() -> str:
    """Return the name, on this machine, of who runs this process."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def new_id() -> str:
    """Return a new id."""
    return make_id(now_us(), secrets.token_bytes(RANDOM_BYTES))


def new_secret() -> str:
    """Return 256 random bits as text."""
    return secrets.token_urlsafe(32)


def main(config: Config) -> int:
    """Run the server; return the process's exit code. Errors of the start are printed."""
    log.set_up(config.log_level, config.log_format)
    settle()
    try:
        with data_folder(config.data), listen(config.host, config.port) as listening:
            return uvloop.run(_serve(config, listening))
    except FleetwireError as error:
        sys.stderr.write(f"fleetwire server: {error}\n")
        return 1


async def _serve(config: Config, listening: socket.socket) -> int:
    """Serve until told to leave; return the exit code."""
    leaving = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leaving.set)
    if config.parent_fd is not None:
        _leave_with_parent(config.parent_fd, leaving)
    async with Process(config, leaving).opened() as process:
        if process.certificates is not None:
            loop.add_signal_handler(signal.SIGHUP, process.certificates.look_again)
        await process.serve(listening)
    return 1 if process.failure else 0


class Process:
    """One server process: everything it has open, and what it does until it leaves."""

    def __init__(self, config: Config, leaving: asyncio.Event) -> None:
        self._config = config
        self.leaving = leaving
        self.failure: FleetwireError | None = None
        self._probed_at = -PROBE_S
        self._probed: dict[str, str] = {}

    async def serve(self, listening: socket.socket) -> None:
        """Serve on a bound socket until `leaving` is set."""
        web = _Uvicorn(self.application, self.leaving, self.certificates)
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(self._watch_failures(), name="failures"),
                group.create_task(self._reached.run(), name="names"),
                group.create_task(self._write_uses(), name="token uses"),
                group.create_task(self._gateway.run(), name="gateway"),
                group.create_task(self._submissions.run(), name="submissions"),
                group.create_task(self._loops.run(), name="loops"),
            ]
            if self.certificates is not None:
                background.append(group.create_task(self.certificates.run(), name="certificates"))
            serving = group.create_task(web.serve([listening]), name="http")
            await web.wait_started()
            url = _url(listening, self.certificates)
            with _announced(self._config.data, url, self.certificates):
                _log.info(
                    "serving",
                    url=url,
                    pid=os.getpid(),
                    data=str(self._config.data),
                    login=_login(self._config.data, url, self.certificates),
                )
                await self.leaving.wait()
                _log.info("leaving", because=str(self.failure or "told to"))
                await serving
            for task in background:
                task.cancel()

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Process]:
        """Open everything, and close it in the reverse order."""
        config = self._config
        nudges = self.nudges = MemoryNudges()
        self._reached = reach.Reached(config.host, config.names)
        self.certificates = _certificates(config, self._reached)
        async with contextlib.AsyncExitStack() as stack:
            url = config.database_url
            ours = url.startswith("sqlite:")
            # First of all: on a disk that is full the start itself needs what it gives away.
            self.reserve = Reserve(Path(url.removeprefix("sqlite:///")).parent) if ours else None
            if self.reserve is not None:
                stack.callback(self.reserve.close)
            self.database = Database.open(url, nudges=nudges, clock=now_us, reserve=self.reserve)
            stack.push_async_callback(self.database.close)
            where = config.data / "logs" if ours else url
            self.logs = open_logs(where, nudges=nudges, clock=now_us)
            if self.reserve is not None and self.reserve.is_beside(config.data / "logs"):
                self.logs.reserve = self.reserve
            stack.push_async_callback(self.logs.close)
            founded = await self.database.write(lambda tx: cluster.found(tx, new_id))
            signer = Signer.open(config.data)
            sealing = await self._sealing()
            again = Signing(founded.id, signer.sign, sealing)
            await self.database.write(
                partial(dispatch_domain.sign_again, signing=again, key=signer.key_id)
            )
            await self.database.write(partial(stops_domain.sign_again, key=signer.key_id))
            gateway = Gateway(
                self.database,
                self.logs,
                nudges,
                cluster_id=founded.id,
                key=signer.key_id,
                clock=now_us,
                monotonic=time.monotonic,
                nonce=new_secret,
                names=self._reached.hosts,
                ca=self._pin,
                chain=key_chain(config.data),
                stops=word(signer, founded.id, now_us()),
            )
            enrolment = Enrolment(
                self.database,
                cluster_id=founded.id,
                keys=[(signer.key_id, signer.public_key)],
                ids=new_id,
                clock=now_us,
                ca=self._ca,
            )
            self._gateway = gateway
            dispatch = DispatchLoop(
                self.database, signer, cluster_id=founded.id, clock=now_us, sealing=sealing
            )
            stops = StopsLoop(self.database, signer, cluster_id=founded.id)
            self.database.react(dispatch.react, stops.react, gateway.react)
            rotations = key_chain(config.data)
            audit_key = Key(founded.id, signer.public_key, signer.sign)
            self._proof = ProofLoop(self.database, clock=now_us)
            self._loops = Runner(
                [
                    dispatch,
                    LeasesLoop(self.database, gateway.reading, monotonic=time.monotonic),
                    SealingLoop(self.database, self.logs),
                    SecretsLoop(self.database),
                    stops,
                    self._proof,
                    *([StorageLoop(self.reserve)] if self.reserve is not None else []),
                    AuditLoop(self.database, audit_key, keep_s=config.keep_audit_s, clock=now_us),
                    RetentionLoop(self.database, self.logs, config.keep, clock=now_us),
                ],
                nudges,
            )
            passwords = Passwords()
            await _first_admin(config, self.database, passwords)
            self.auth = Authenticator(self.database, clock=now_us, monotonic=time.monotonic)
            self._submissions = Submissions(self.database, ids=new_id)
            settings = settings_of(config)
            self.parts = Parts(
                database=self.database,
                submissions=self._submissions,
                sealing=sealing,
                audit_key=audit_key,
                rotations=rotations,
                logs=self.logs,
                nudges=nudges,
                auth=self.auth,
                passwords=passwords,
                throttle=LoginThrottle(time.monotonic),
                ids=new_id,
                secret=new_secret,
                clock=now_us,
                monotonic=time.monotonic,
                readiness=self.readiness,
                warnings=self.warnings,
                leaving=self.leaving,
                ca_fingerprint=self._pin,
                oidc=None
                if settings is None
                else Provider(settings, clock=now_us, monotonic=time.monotonic),
            )
            application = asgi.build(
                self.parts,
                gateway=(*gateway.routes, *enrolment.routes),
                names=self._reached.hosts,
                error_id=new_id,
            )
            proxies = networks(config.behind_proxy)
            self.application = BehindProxy(application, proxies) if proxies else application
            yield self

    def _ca(self) -> str | None:
        return None if self.certificates is None else self.certificates.ca

    def _pin(self) -> str | None:
        return None if self.certificates is None else self.certificates.fingerprint

    async def _sealing(self) -> Sealing:
        """Return how secrets are encrypted. Raises BadMasterKey where the record has some that
        the key at hand does not fit: a server that made a new one would hide that. What an older
        server left readable is encrypted now.
        """
        keys = MasterKeys.open(self._config.master_key_path, self._config.given_master_key)
        needed = await self.database.read(encrypted.key_ids)
        keys.check(needed)
        keys.settle(needed)
        sealing = Sealing(keys.seal, keys.unseal, seal_for_node)
        await self.database.write(lambda tx: encrypted.encrypt_readable(tx, sealing))
        return sealing

    async def readiness(self) -> Mapping[str, str]:
        """Say what does not work now; looks at most once a second, whoever asks."""
        if time.monotonic() - self._probed_at >= PROBE_S:
            self._probed_at = time.monotonic()
            found: dict[str, str] = {}
            if self.leaving.is_set():
                found["server"] = "it is leaving"
            if self.reserve is not None and not self.reserve.has_room():
                found["storage"] = self.reserve.sentence()
            try:
                async with asyncio.timeout(PROBE_S):
                    await self.database.write(health.probe)
            except FleetwireError as error:
                found["database"] = error.detail
            except TimeoutError:
                found["database"] = f"no commit within {PROBE_S:g} s"
            for name, status in self._loops.status.items():
                if status.last_error:
                    found[f"loop {name}"] = status.last_error
                elif not status.rounds:
                    found[f"loop {name}"] = "has not looked yet"
            self._probed = found
        return self._probed

    def warnings(self) -> Mapping[str, str]:
        """Say what works and is yet not as promised."""
        found = self._proof.warning
        return {} if found is None else {"proof": found}

    async def _watch_failures(self) -> None:
        """Leave when a disk has failed (P15): the restart replays the journal."""
        async with asyncio.TaskGroup() as group:
            waits = [
                group.create_task(self.database.wait_failed()),
                group.create_task(self.logs.wait_failed()),
            ]
            done, others = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in others:
                task.cancel()
        self.failure = done.pop().result()
        self.leaving.set()

    async def _write_uses(self) -> None:
        """Write now and then when tokens were last used: for people, off the requests' way."""
        while True:
            await asyncio.sleep(USED_EVERY_S)
            used = self.auth.take_used()
            if used:
                try:
                    await self.database.write(partial(people.note_used, used=used))
                except Exception as error:  # noqa: BLE001 - logged; a failed disk is watched for
                    log.log_failure(_log, "the last use of tokens was not written", error)


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signals; it stops when `leaving` is set."""

    def __init__(
        self, application: ASGIApp, leaving: asyncio.Event, certificates: Certificates | None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                http=BoundedHttp,
                ws="websockets-sansio",
                ws_per_message_deflate=False,
                ws_max_size=2 * 1024 * 1024,
                ws_ping_interval=None,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=LEAVE_S,
                timeout_keep_alive=75,
            )
        )
        self._leaving = leaving
        self._certificates = certificates
        self._begun = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._certificates is None:
            await super().startup(sockets)
        else:
            await self._start_tls(sockets or [], self._certificates)
        self._begun.set()

    async def _start_tls(self, sockets: list[socket.socket], certificates: Certificates) -> None:
        """As uvicorn starts, but that a handshake has an end, and our own context."""
        loop = asyncio.get_running_loop()
        await self.lifespan.startup()
        self.servers = [
            await loop.create_server(
                self._protocol,
                sock=one,
                ssl=certificates.context,
                backlog=self.config.backlog,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=LEAVE_S,
            )
            for one in sockets
        ]
        self.started = True

    def _protocol(self) -> asyncio.Protocol:
        return BoundedHttp(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    async def wait_started(self) -> None:
        """Wait until connections are accepted."""
        await self._begun.wait()

    async def main_loop(self) -> None:
        await self.on_tick(0)  # fills in the date header
        while not self._leaving.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._leaving.wait()
            await self.on_tick(0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        # Who has not taken its answer by now is cut off: the event loop closes after this, and
        # such a connection would stay open for as long as this process lives.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # they are told in the loop's next turn

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _first_admin(config: Config, database: Database, passwords: Passwords) -> None:
    """Make the first admin in an empty database; its password stands in a file of 0600.

    The file comes first: after a crash between the two there is a password too many, which the
    next start replaces, and never a user whom nobody can be.
    """
    if await database.read(people.has_users):
        return
    password = secrets.token_urlsafe(18)
    path = config.data / PASSWORD_FILE
    write_private(path, f"{password}\n".encode())
    hashed = await asyncio.to_thread(passwords.hash_blocking, password)
    await database.write(lambda tx: people.create_first_admin(tx, ids=new_id, password_hash=hashed))
    if config.show_password or sys.stdout.isatty():
        # To the person at the terminal, once, and never to a log.
        sys.stdout.write(f"First admin: user {people.FIRST_ADMIN}, password {password}\n")
        sys.stdout.write(f"It also stands in {path}; change nothing and keep it safe.\n")
        sys.stdout.flush()


@contextlib.contextmanager
def data_folder(path: Path) -> Iterator[None]:
    """Have the data folder, for this process alone."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotStart(
            f"The data folder {path} cannot be used: {error.strerror}.",
            hint="Name another with --data, or mend its owner.",
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(
                f"Another server uses {path}.", hint="Stop it, or use another --data folder."
            ) from None
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """Bind an address, before anything else is touched. Raises CannotStart."""
    if host == "localhost":
        host = "127.0.0.1"
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it: an answer's head and body are two writes, and Nagle would hold
        # the second back for 40 ms.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            listening.bind((host, port))
            listening.listen(2048)
        except OSError as error:
            raise CannotStart(
                f"Cannot listen on {host} port {port}: {error.strerror}.",
                hint="Choose another port: --port N, or 0 for a free one.",
            ) from error
        yield listening


def _certificates(config: Config, reached: reach.Reached) -> Certificates | None:
    """Return what this server shows, None where it speaks plain HTTP."""
    if config.tls_cert is not None and config.tls_key is not None:
        return Certificates(Given(config.tls_cert, config.tls_key, config.tls_ca))
    if config.tls == "off":
        return None
    return Certificates(Own(config.data, names=reached.look, clock=now_us))


def _url(listening: socket.socket, certificates: Certificates | None) -> str:
    """Return the URL by which this machine reaches it."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - it is compared
    scheme = "http" if certificates is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _login(data: Path, url: str, certificates: Certificates | None) -> str:
    """Return the command that logs in to it from this machine."""
    words = ["fleetwire", "login", url]
    if certificates is not None and certificates.fingerprint is not None:
        words += ["--ca-fingerprint", certificates.fingerprint]
    password = data / PASSWORD_FILE
    if password.exists():
        words += ["--password-file", str(password)]
    return shlex.join(words)


@contextlib.contextmanager
def _announced(data: Path, url: str, certificates: Certificates | None) -> Iterator[None]:
    """Say in `server.json` where this server is, for as long as it serves."""
    path = data / "server.json"
    told: dict[str, object] = {"url": url, "pid": os.getpid()}
    if certificates is not None and certificates.fingerprint is not None:
        told["ca_fingerprint"] = certificates.fingerprint
    write_private(path, msgspec.json.encode(told) + b"\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _leave_with_parent(descriptor: int, leaving: asyncio.Event) -> None:
    """Leave when the other end of a pipe is closed, however that process ended."""
    loop = asyncio.get_running_loop()
    os.set_blocking(descriptor, False)

    def look() -> None:
        try:
            if os.read(descriptor, 4096):
                return
        except BlockingIOError:
            return
        loop.remove_reader(descriptor)
        leaving.set()

    loop.add_reader(descriptor, look)
