"""A whole system with secrets of every kind in it, used in every way there is, and killed in the
middle; then everything that it wrote, said and showed is searched for them. They are in none of it.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.server.canaries import Canaries, Watch

from fleetwire.agent.vault import Vault
from fleetwire.client import Client, NotLoggedIn, RunRequest, Script
from fleetwire.core import access, totp
from fleetwire.core.secrets import SecretUse
from fleetwire.server.api.routes import DOORS
from fleetwire.server.app import now_us
from fleetwire.testing.lab import Lab, wait_until

pytestmark = pytest.mark.slow
CANARY = 'canary/7f3a+"quoted"-9c'
KEY = "-----BEGIN KEY-----\n{}\n{}\n-----END KEY-----\n".format("c4n4ry" * 9, "y3ll0w" * 9)
USES = (
    SecretUse("canary"), SecretUse("canary", "env", "CANARY"), SecretUse("key"),
    SecretUse("key", "env", "KEY"),
)  # fmt: skip
SHOWS = r"""
cat "$FLEETWIRE_SECRETS/canary"; echo; echo "$CANARY" >&2; echo "$KEY"
for name in canary key; do
  base64 < "$FLEETWIRE_SECRETS/$name"; base64 -w 0 < "$FLEETWIRE_SECRETS/$name"; echo
  od -An -v -tx1 < "$FLEETWIRE_SECRETS/$name" | tr -d ' \n'; echo
done
for part in 1 2 3; do printf %.5s "$CANARY"; sleep 0.1; printf '%s\n' "${CANARY#?????}"; done
printf '%q\n' "$CANARY"
python3 - <<'END'
import base64, json, os, urllib.parse
for value in (os.environ["CANARY"], os.environ["KEY"]):
    print(json.dumps({"password": value}), repr(value), urllib.parse.quote(value, safe=""))
    print(base64.urlsafe_b64encode(b"x" + value.encode()), value.encode().hex().upper())
END
"""
SPENT = "SELECT count(*) FROM sealed_secrets"


@pytest.fixture
def canaries() -> Canaries:
    made = Canaries()
    made.add("secret", CANARY)
    made.add("multi-line secret", KEY)
    return made


@pytest.fixture
def database(database_server: str | None, request: pytest.FixtureRequest) -> str | None:
    """URL of a PostgreSQL database of the test's own; None with SQLite."""
    return None if database_server is None else str(request.getfixturevalue("database_url"))


@pytest.fixture
def lab(tmp_path: Path, database: str | None) -> Iterator[Lab]:
    with Lab(tmp_path, database=database) as made:
        start_server(made)
        del made.env["FLEETWIRE_TOKEN"]  # who uses this system has logged in
        yield made


def start_server(lab: Lab) -> None:
    lab.start_server({"FLEETWIRE_SERVER_LOG_LEVEL": "debug"})


class System:
    """The lab, and all that it has said."""

    def __init__(self, lab: Lab, canaries: Canaries) -> None:
        self.lab = lab
        self.canaries = canaries
        self.said: list[tuple[str, bytes]] = []
        self.tokens: dict[str, str] = {}

    def cli(self, *words: str, stdin: str = "", code: int | None = 0) -> str:
        """Run the command line; what it says is searched. `code` is what it has to end with."""
        done = self.lab.cli(*words, stdin=stdin)
        assert code is None or done.returncode == code, (words, done.stderr)
        self.said.append((" ".join(words), done.stdout.encode() + done.stderr.encode()))
        return done.stdout

    def once(self, name: str, *words: str) -> str:
        """Run what shows a token, once: that one answer may hold it."""
        done = self.lab.cli(*words)
        assert done.returncode == 0, done.stderr
        self.canaries.add(name, done.stdout.strip())
        return done.stdout.strip()

    def ask(self, method: str, path: str, token: str = "", body: bytes | None = None) -> int:
        """Send one request; the answer is searched. Return its status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.lab.port, timeout=30)
        with contextlib.closing(connection):
            sent = {"Authorization": f"Bearer {token}"} if token else {}
            sent |= {"Content-Type": "application/json"} if body else {}
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            head = str(answer.msg).encode()
            self.said.append((f"{method} {path}", head + answer.read()))
            return answer.status

    def attempt(self, run: str) -> str:
        return (self.lab.client.run(run).tasks or [])[0].attempt

    def begin(self, script: str, *, tty: bool = False, shell: str = "sh") -> tuple[str, str]:
        spec = Script(script, tty=tty, shell=shell, secrets=USES)
        run = self.lab.client.create_run(RunRequest(spec, nodes=("node-1",)))
        return run.id, self.attempt(run.id)

    def log(self, attempt: str) -> bytes:
        return b"".join(part.data for part in self.lab.client.log(attempt).parts)


def log_in(system: System, tmp_path: Path) -> None:
    """As a person does: by password; the command line keeps a token for itself alone."""
    password = tmp_path / "data/admin-password"
    system.canaries.add("first password", password.read_text().strip(), "/admin-password")
    system.cli("login", system.lab.url, "--password-file", str(password))
    profile = (tmp_path / "config/fleetwire/cli.toml").read_text()
    token = re.findall(r"fw_[\w-]+", profile)[0]
    system.canaries.add("token of the command line", token, "/cli.toml")


def people(system: System, tmp_path: Path) -> None:
    """A user for each role, and one without any; passwords, a login, a second factor, tokens."""
    admin = system.lab.client
    for name in (*access.ROLES, "nobody"):
        password = f"pass phrase of {name} 5b1e"
        system.canaries.add(f"password of {name}", password)
        if name == "nobody":
            (tmp_path / "typed").write_text(password)
            system.cli("users", "create", name, "--password-file", str(tmp_path / "typed"))
            (tmp_path / "typed").unlink()
        else:
            admin.create_user(name, password=password)
            admin.set_roles("default", name, [name])
        with system.lab.new_client() as client:
            client.login(name, password)
            connection = client.connection
            assert connection.cookie is not None
            system.canaries.add(f"cookie of {name}", connection.cookie.partition("=")[2])
            token = str(client.create_token("test").token)
            system.canaries.add(f"token of {name}", token)
            system.tokens[name] = token
            if name == "auditor":
                _second_factor(system, client, name, password)
    with system.lab.new_client() as client, pytest.raises(NotLoggedIn):
        client.login("viewer", "a password that is wrong 77")
    system.canaries.add("password that is wrong", "a password that is wrong 77")
    system.tokens["admin"] = str(admin.create_token("all").token)
    system.canaries.add("token of admin", system.tokens["admin"])


def _second_factor(system: System, client: Client, name: str, password: str) -> None:
    connection = client.connection

    def post(path: str, **body: str) -> dict[str, object]:
        answer = connection.request("POST", f"/api/v1/me/{path}", body=json.dumps(body).encode())
        return dict(json.loads(answer.body))

    text = str(post("totp", password=password)["secret"])
    secret = totp.from_text(text)
    system.canaries.add("second factor", text)
    system.canaries.add("second factor, its bytes", secret)
    code = totp.code_at(secret, totp.step_of(now_us()))
    codes = post("totp/confirm", code=code)["recovery_codes"]
    assert isinstance(codes, list)
    for number, recovery in enumerate(codes):
        system.canaries.add(f"recovery code {number}", recovery)
        system.canaries.add(f"recovery code {number}, bare", recovery.replace("-", ""))
    with system.lab.new_client() as again:
        again.login(name, password, code=str(codes[0]))


def tokens(system: System) -> None:
    """Tokens that are made, used, wrong; and secrets in requests that are refused."""
    system.once("enrolment token", "tokens", "create", "--enrolment")
    system.once("API token", "tokens", "create", "ci", "--permission", "read")
    bad = "fw_" + "b4dt0ken" * 5
    system.canaries.add("token that is wrong", bad)
    assert system.ask("GET", "/api/v1/me", bad) == 401
    admin = system.tokens["admin"]
    for name, body in (
        ("canary", {"value": CANARY, "more": 1}), ("canary", {"values": CANARY}),
        ("canary", {"value": [CANARY]}), ("a%20b", {"value": CANARY}),
    ):  # fmt: skip
        path = f"/api/v1/secrets/{name}"
        assert system.ask("PUT", path, admin, json.dumps(body).encode()) == 422, body
    body = {"username": "viewer", "password": system.canaries.values["password of viewer"].decode()}
    for more in ({"code": 1}, {"more": 1}):
        assert system.ask("POST", "/api/v1/login", "", json.dumps(body | more).encode()) == 422


def runs(system: System, tmp_path: Path) -> str:
    """Tasks that show what they were given; return one whose run went well."""
    lab = system.lab
    (tmp_path / "script.sh").write_text(SHOWS)
    words = [f"--secret={use.name}={use.as_}:{use.to}" for use in USES]
    words += ["--shell", "bash", "--script", str(tmp_path / "script.sh")]
    system.cli("run", "--node", "node-1", *words, "--output", "json")
    first = next(iter(lab.client.runs())).id
    log = system.log(system.attempt(first))
    assert log.count(b"***") >= 20
    assert b'{"password": "***"}' in log
    # With a terminal, failing, ended in the middle, killed, and one that cannot start.
    for script, tty, shell, is_stopped in (
        ("cat $FLEETWIRE_SECRETS/key; printf '%.9s' \"$CANARY\"", True, "sh", False),
        ('echo "$CANARY" >&2; exit 3', False, "sh", False),
        ('echo "$CANARY"; exec sleep 60', False, "sh", True),
        ('echo "$KEY"; kill -9 $$', False, "sh", False),
        ("true", False, "powershell", False),
    ):
        run, attempt = system.begin(script, tty=tty, shell=shell)
        if is_stopped:
            wait_until(lambda attempt=attempt: system.log(attempt), "its output")
            lab.client.stop_run(run, grace=0)
        lab.client.wait(run)
        system.cli("runs", "logs", run)
        for path in ("", "/why", "/timeline", "/tasks", "/events"):
            assert system.ask("GET", f"/api/v1/runs/{run}{path}", system.tokens["viewer"]) == 200
    system.cli("runs", "show", first, "--timeline")
    return first


def killed_in_the_middle(system: System) -> None:
    """The agent dies, then the server, while a task shows its secrets; both come back."""
    lab = system.lab
    go = lab.folder / "go"
    run, attempt = system.begin(
        f'for n in $(seq 600); do echo "$n $CANARY"; echo "$KEY"; [ -e {go} ] && exit 0; sleep 0.1;'
        " done"
    )
    wait_until(lambda: system.log(attempt), "its output")
    lab.agents["node-1"].kill()
    lab.start_agent("node-1", "--log-level", "debug")
    assert lab.server is not None
    lab.server.kill()
    start_server(lab)
    lab.wait_online("node-1")
    go.touch()
    assert lab.client.wait(run).outcome == "succeeded"


def every_route(system: System, run: str) -> None:
    """Every GET, as everybody: what they may read, and what they are told when they may not."""
    node = next(iter(system.lab.client.nodes()))
    places = {
        "run": run, "attempt": system.attempt(run), "node": node.id, "project": "default",
        "user": "auditor", "path": "sign-in",
    }  # fmt: skip
    reads = [door.path for door in DOORS if door.method == "GET"] + ["/openapi.json", "/docs", "/"]
    answered = set()
    for who, token in (*system.tokens.items(), ("anyone", "")):
        for path in reads:
            told = re.sub(r"{(\w+)[^}]*}", lambda found: places[found[1]], path)
            told += "?q=password" if path.endswith("/search") else ""
            if system.ask("GET", told, token) < 300:
                answered.add((who, path))
    assert {path for _, path in answered} >= {*reads} - {
        "/api/v1/login/oidc", "/api/v1/login/oidc/callback", "/api/v1/me/sessions",
        "/api/v1/me/totp",
    }  # fmt: skip


def test_the_canary_is_nowhere(
    lab: Lab, tmp_path: Path, canaries: Canaries, database: str | None
) -> None:
    watch = Watch(canaries)
    system = System(lab, canaries)
    log_in(system, tmp_path)
    watch.start()
    lab.start_agent("node-1", "--log-level", "debug")
    system.cli("secrets", "set", "canary", stdin=f"{CANARY}\n")
    system.cli("secrets", "set", "key", stdin=KEY)
    system.cli("secrets", "set", "short", stdin="12345", code=None)
    people(system, tmp_path)
    tokens(system)
    first = runs(system, tmp_path)
    killed_in_the_middle(system)
    every_route(system, first)
    for words in ("secrets list", "nodes why node-1", "tokens list", "doctor"):
        system.cli(*words.split(), "--output", "json", code=None)
    system.cli("agent", "status", "--state", str(lab.state("node-1")))
    assert system.cli("audit", "--limit", "500").count("secret.use") >= 4
    system.cli("audit", "export", "--project", "default")
    if database is None:
        system.cli("server", "backup", "--data", str(lab.data), "--to", str(tmp_path / "b"))
        assert not list((tmp_path / "b").rglob("master-key*"))
    # The system's own keys are where they belong, and the used token where the lab put it.
    own = json.loads((lab.state("node-1") / "identity.json").read_text())
    for name in ("signing_seed", "sealing_secret"):
        canaries.add(f"node's {name}", own[name], "/identity.json")
    canaries.add("server's key", (lab.data / "server-key").read_bytes(), "/server-key")
    canaries.add("master key", (lab.data / "master-key").read_bytes(), "/master-key")
    canaries.add("used token", (tmp_path / "node-1.token").read_bytes(), "/node-1.token")
    assert watch.end() == {}
    for what, data in system.said:
        assert canaries.within(data) == set(), what
    # What is on disk: the record, its journal, logs, spools, tasks' folders, the backup.
    assert canaries.files(tmp_path) == {}
    if database is not None:
        assert canaries.tables(database) == {}
        return
    with contextlib.closing(sqlite3.connect(lab.data / "fleetwire.db")) as record:
        wait_until(lambda: record.execute(SPENT).fetchone() == (0,), "what was sealed to go")


def test_a_look_finds_each_canary_in_each_form(canaries: Canaries, tmp_path: Path) -> None:
    """The look itself can fail: else the test above would show nothing."""
    canaries.add("at home", "a token that has a home", "/home")
    assert canaries.within(CANARY.encode()) == {"secret"}
    assert canaries.within(json.dumps({"x": CANARY}).encode()) == {"secret"}
    assert canaries.within(base64.b64encode(b"xy" + CANARY.encode() + b"z")) == {"secret"}
    assert canaries.within(KEY.splitlines()[2].encode().hex().encode()) == {"multi-line secret"}
    assert canaries.within(b"canary") == set()
    for name in ("home", "elsewhere"):
        (tmp_path / name).write_text("a token that has a home")
    assert canaries.files(tmp_path) == {"elsewhere": {"at home"}}


def test_nothing_is_left_after_everything_was_killed(
    lab: Lab, tmp_path: Path, canaries: Canaries
) -> None:
    system = System(lab, canaries)
    lab.start_agent()
    lab.client.set_secret("canary", CANARY.encode())
    lab.client.set_secret("key", KEY.encode())
    run, attempt = system.begin('echo "$CANARY"; exec sleep 600')
    wait_until(lambda: system.log(attempt), "its output")
    lab.agents["node-1"].kill()
    spawner = lab.spawner()
    for process in [*spawner.children(recursive=False), spawner]:
        process.kill()
    lab.start_agent()
    wait_until(lambda: lab.client.run(run).state == "ended", "the run to end")
    assert canaries.files(tmp_path) == {}
    vault = Path(Vault(str(lab.state("node-1"))).path)
    assert list(vault.iterdir()) == []
