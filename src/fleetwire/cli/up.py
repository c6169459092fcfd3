"""`fleetwire up`: the whole system on this machine (interfaces, 1).

It runs `fleetwire server` and each `fleetwire agent` as children, starts again what dies, as
systemd would, and leaves this person's CLI logged in, so that what is tried on a laptop behaves
as in production. All it keeps is in the data folder: the next `up` finds everything as it was.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
import time
from typing import Final

from fleetwire.cli import profile
from fleetwire.cli.app import Leaf
from fleetwire.cli.children import Child, Family
from fleetwire.cli.errors import DETACHED, LocalError
from fleetwire.cli.login import read_secret, token_name
from fleetwire.cli.parsing import Parser, count
from fleetwire.cli.ports import check_free
from fleetwire.cli.show import coloured, write_json
from fleetwire.cli.visible import visible_text
from fleetwire.client import Client, ClientError, NotLoggedIn, Problem, Run, ServerUnreachable

HOST: Final = "127.0.0.1"
PROFILE: Final = "local"
PASSWORD_FILE: Final = "admin-password"  # noqa: S105 - a file's name
GRACE_S: Final = 2.0
STOP_S: Final = 5.0
READY_S: Final = 60.0
ONLINE_S: Final = 30.0


def configure(parser: Parser) -> None:
    """Describe the arguments."""
    parser.story = (
        "Server, console and agents run until Ctrl-C, which stops what they run. All they keep\n"
        "is in the data folder; starting again finds everything as it was."
    )
    parser.examples.append("fleetwire up --agents 3")
    parser.option("--port", metavar="PORT", type=int, default=8080, help="default 8080")
    parser.option(
        "--data", metavar="DIR", completes="folder", help="default $XDG_DATA_HOME/fleetwire"
    )
    parser.option("--agents", metavar="N", type=int, default=1, help="local agents (default 1)")
    parser.option(
        "--max-concurrent", metavar="N", type=count, help="attempts at once on an agent (default 5)"
    )
    parser.option("--database", metavar="URL", help="postgresql://... instead of SQLite")


def call(values: argparse.Namespace) -> int:
    """Run the system until it is to stop."""
    data = os.path.abspath(os.path.expanduser(values.data)) if values.data else default_data()
    lock = take_lock(data)
    try:
        port = check_free(HOST, values.port)
        system = System(data, f"http://{HOST}:{port}", values)
        note_running(lock, system.url)
        return system.run()
    finally:
        os.ftruncate(lock, 0)
        os.close(lock)


def default_data() -> str:
    """Return the data folder, by the server's rule (`server.config.default_data`)."""
    base = os.environ.get("XDG_DATA_HOME")
    if not base and os.geteuid() == 0:
        return "/var/lib/fleetwire"
    return os.path.join(base or os.path.expanduser("~/.local/share"), "fleetwire")


def take_lock(data: str) -> int:
    """Return the descriptor that holds `{data}/up.lock`; one `up` for each data folder."""
    try:
        os.makedirs(data, mode=0o700, exist_ok=True)
        lock = os.open(os.path.join(data, "up.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LocalError(
            f"The data folder {data} cannot be used: {error.strerror}.",
            hint="Choose another with --data DIR.",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        told = os.pread(lock, 200, 0).decode("utf-8", "replace").strip()
        os.close(lock)
        raise LocalError(
            f"`fleetwire up` already runs on {data}" + (f" ({told})." if told else "."),
            hint="Use that one, or choose another folder with --data DIR and another --port.",
        ) from None
    return lock


def note_running(lock: int, url: str) -> None:
    """Write who holds the lock, for the next one to read."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"process {os.getpid()}, {url}".encode(), 0)


class System:
    """One server and its agents on this machine."""

    def __init__(self, data: str, url: str, values: argparse.Namespace) -> None:
        self.data = data
        self.url = url
        self._values = values
        self._names = [f"local-{number}" for number in range(1, values.agents + 1)]
        self._client = Client(url, patience=2.0, timeout=10.0)
        self._server = self._server_child()
        self._agents: list[Child] = []

    def run(self) -> int:
        """Start all, tend it, stop all."""
        with Family() as family:
            family.start(self._server)
            if not self._wait_ready(family):
                return DETACHED
            self._log_in()
            for number, name in enumerate(self._names, start=1):
                child = self._agent_child(number, name)
                self._agents.append(child)
                family.start(child)
            online = family.wait_until(lambda: self._online(family), patience=ONLINE_S)
            if not family.stop_wished:
                self._forget_tokens(online)
                self._greet(online)
            while not family.stop_wished:
                family.wait(0.5)
                family.tend(say)
            self._stop(family)
        return 0

    # ----------------------------------------------------------------------------- starting

    def _server_child(self) -> Child:
        words = ["server", "--data", self.data, "--host", HOST]
        words += ["--port", self.url.rpartition(":")[2]]
        if self._values.database:
            words += ["--database", self._values.database]
        return Child("The server", words, self._log("server"))

    def _agent_child(self, number: int, name: str) -> Child:
        state = os.path.join(self.data, "agents", str(number))
        words = ["agent", "--server", self.url, "--state", state, "--name", name]
        # The server is next door: waiting long for it to come back would only be slow.
        words += ["--backoff-initial-s", "0.1", "--backoff-max-s", "1"]
        if self._values.max_concurrent:
            words += ["--max-concurrent", str(self._values.max_concurrent)]
        if not enrolled(state):
            words += ["--token-file", self._enrolment_token(state)]
        return Child(f"Agent {name}", words, self._log(f"agent-{number}"))

    def _log(self, name: str) -> str:
        return os.path.join(self.data, "daemons", f"{name}.log")

    def _wait_ready(self, family: Family) -> bool:
        def ready() -> bool:
            if not self._server.lives:
                raise LocalError(
                    f"The server ended while it started:\n{self._server.last_words()}",
                    hint=f"All it wrote is in {self._server.log}.",
                )
            try:
                self._client.ready()
            except (ServerUnreachable, Problem):
                return False
            return True

        if family.wait_until(ready, patience=READY_S):
            return True
        if family.stop_wished:
            return False
        raise LocalError(
            f"The server was not ready within {READY_S:.0f} s.", hint=f"See {self._server.log}."
        )

    def _log_in(self) -> None:
        """Leave this person's CLI logged in, with the token it has if that still works."""
        file = profile.path(os.environ)
        stored = profile.load(file).by_name.get(PROFILE)
        if stored is not None and stored.token is not None and stored.url == self.url:
            client = Client(self.url, stored.token, patience=2.0, timeout=10.0)
            try:
                client.me()
            except NotLoggedIn:
                client.close()
            else:
                self._use(client)
                profile.remember(file, stored)
                return
        self._client.login("admin", read_secret(self.password_file))
        made = self._client.create_token(token_name())
        self._client.logout()
        profile.remember(file, profile.Profile(PROFILE, self.url, made.token, made.id))
        self._use(Client(self.url, made.token, patience=2.0, timeout=10.0))

    @property
    def password_file(self) -> str:
        """The file that the server writes the first admin's password to."""
        return os.path.join(self.data, PASSWORD_FILE)

    def _use(self, client: Client) -> None:
        self._client.close()
        self._client = client

    def _enrolment_token(self, state: str) -> str:
        """Make a token for a new agent and return the private file that holds it: arguments
        can be read by every user of the machine.
        """
        token = self._client.create_enrolment_token(expires_in=600).token or ""
        os.makedirs(state, mode=0o700, exist_ok=True)
        file = _token_file(state)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(f"{token}\n")
        return file

    def _forget_tokens(self, online: bool) -> None:
        """The tokens are used up: neither files nor a restart have a need for them."""
        if not online:
            return
        for number, child in enumerate(self._agents, start=1):
            if "--token-file" in child.words:
                at = child.words.index("--token-file")
                del child.words[at : at + 2]
                os.unlink(_token_file(os.path.join(self.data, "agents", str(number))))

    def _online(self, family: Family) -> bool:
        for child in self._agents:
            if not child.lives and child.ended_at is None:
                say(f"{child.name} ended:\n{child.last_words()}")
        family.tend(say)
        try:
            links = {node.name: node.link for node in self._client.nodes()}
        except ClientError:
            return False
        return all(links.get(name) == "online" for name in self._names)

    def _greet(self, online: bool) -> None:
        command = "fleetwire run --on 'os=linux' -- uname -a"
        if self._values.output != "text":
            import msgspec

            told = {
                "url": self.url,
                "username": "admin",
                "password_file": self.password_file,
                "data": self.data,
                "nodes": self._names,
                "online": online,
            }
            write_json(msgspec.json.encode(told))
            return
        login = f"admin, password in {self.password_file}"
        if sys.stdout.isatty():
            login = f"admin, password {read_secret(self.password_file)}"
        bold, plain = ("\x1b[1m", "\x1b[0m") if coloured(sys.stdout) else ("", "")
        sys.stdout.write(
            f"Fleetwire is up.\n\n"
            f"  console  {bold}{self.url}{plain}\n"
            f"  login    {login}\n"
            f"  nodes    {', '.join(self._names) or 'none'}\n"
            f"  data     {self.data}\n"
            f"  try      {bold}{command}{plain}   (in another terminal)\n"
            f"  stop     Ctrl-C\n"
        )
        sys.stdout.flush()
        if not online:
            say(f"Not all agents are online yet; what they wrote is in {self.data}/daemons.")
        if os.environ.get("FLEETWIRE_URL"):
            say("FLEETWIRE_URL is set and wins over the profile `local`: unset it to use this.")

    # ----------------------------------------------------------------------------- stopping

    def _stop(self, family: Family) -> None:
        """Stop what runs and see it recorded, then the agents, then the server. A second
        Ctrl-C skips the waiting.
        """
        family.stop_wished = False
        say("Stopping.")
        try:
            self._stop_runs(family)
        except ClientError as error:
            say(f"The runs could not be stopped: {error}")
        family.end(self._agents, patience=0.0 if family.stop_wished else STOP_S)
        family.end([self._server], patience=0.0 if family.stop_wished else STOP_S)
        self._client.close()

    def _stop_runs(self, family: Family) -> None:
        told: set[str] = set()

        def quiet() -> bool:
            # A task's first output may be here before the word that it runs.
            live = [
                run
                for state in ("pending", "running")
                for run in self._client.runs(state=state)
                if _has_live(run)
            ]
            for run in live:
                if run.id not in told:
                    told.add(run.id)
                    self._client.stop_run(run.id, grace=GRACE_S, patience=1.0)
            return not live

        if not family.wait_until(quiet, patience=STOP_S, step=0.05):
            say("Some runs have not ended; the next `fleetwire up` takes them up again.")
        elif told:
            say(f"Stopped {len(told)} run{'s' if len(told) > 1 else ''}.")


def _has_live(run: Run) -> bool:
    return run.counts.get("running", 0) + run.counts.get("assigned", 0) > 0


def _token_file(state: str) -> str:
    return os.path.join(state, "enrolment-token")


def enrolled(state: str) -> bool:
    """Say whether a state directory holds an identity that a server has taken in."""
    from fleetwire.agent import identity

    known = identity.load(state)
    return known is not None and known.enrolled


def say(line: str) -> None:
    """Tell the person something, with the time; text of others made visible."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {visible_text(line)}\n")
    sys.stderr.flush()


LEAVES = {"up": Leaf(configure, call)}
