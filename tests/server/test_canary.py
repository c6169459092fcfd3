"""A whole system with a secret in it, used in every way there is; then everything that it wrote,
said and showed is searched for the secret. It is in none of it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fleetwire.agent.vault import Vault
from fleetwire.client import RunRequest, Script
from fleetwire.core.secrets import SecretUse
from fleetwire.testing.lab import Lab, wait_until

pytestmark = pytest.mark.slow
CANARY = 'canary/7f3a+"quoted"-9c'
FORMS = (
    CANARY.encode(),
    json.dumps(CANARY)[1:-1].encode(),
    base64.b64encode(CANARY.encode())[:24],
    CANARY.encode().hex().encode(),
)
USES = (SecretUse("canary"), SecretUse("canary", "env", "CANARY"))
SCRIPT = """
cat "$FLEETWIRE_SECRETS/canary"; echo; echo "$CANARY" >&2
base64 < "$FLEETWIRE_SECRETS/canary"
printf %s "$CANARY" | od -An -v -tx1 | tr -d ' \\n'; echo
python3 -c 'import json, os; print(json.dumps({"password": os.environ["CANARY"]}))'
for part in 1 2 3; do printf %.5s "$CANARY"; sleep 0.1; printf '%s\\n' "${CANARY#?????}"; done
sleep 0.5
"""


def leaks(data: bytes) -> bool:
    return any(form in data for form in FORMS)


def files_that_leak(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and leaks(path.read_bytes()):
                yield path


class Watch(threading.Thread):
    """Looks at all argument lists, and at the environments of all but the tasks', all the time."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.found: set[str] = set()
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.01):
            for process in psutil.process_iter():
                with contextlib.suppress(OSError):
                    entry = Path(f"/proc/{process.pid}")
                    words, environment = (
                        (entry / name).read_bytes() for name in ("cmdline", "environ")
                    )
                    is_task = b"FLEETWIRE_ATTEMPT=" in environment
                    if leaks(words) or (leaks(environment) and not is_task):
                        self.found.add(f"{process.pid}: {words[:200]!r}")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as made:
        made.start_server({"FLEETWIRE_SERVER_LOG_LEVEL": "debug"})
        made.start_agent("node-1", "--log-level", "debug")
        yield made


def test_the_canary_is_nowhere(lab: Lab, tmp_path: Path) -> None:
    watch = Watch()
    watch.start()
    said = [lab.cli("secrets", "set", "canary", stdin=f"{CANARY}\n")]
    assert said[0].returncode == 0, said[0].stderr
    said.append(lab.cli("secrets", "set", "canary", stdin="12345"))  # too short
    said.append(lab.cli("secrets", "list", "--output", "json"))
    assert said[1].returncode != 0
    script = tmp_path / "script.sh"
    script.write_text(SCRIPT)
    words = ["--secret", "canary", "--secret", "canary=env:CANARY", "--output", "json"]
    ran = lab.cli("run", "--node", "node-1", *words, "--script", str(script))
    said.append(ran)
    assert ran.returncode == 0, ran.stderr
    client = lab.client
    run = next(iter(client.runs()))
    attempt = (client.run(run.id).tasks or [])[0].attempt
    log = b"".join(part.data for part in client.log(attempt).parts)
    # Shown in each way, and masked in each: five lines, and three that a pause cuts in two.
    assert log.count(b"***") >= 8
    assert b'{"password": "***"}' in log
    # With a terminal, ended in the middle, killed, and one that cannot start.
    for spec, end in (
        (Script("cat $FLEETWIRE_SECRETS/canary; printf '%.9s' \"$CANARY\"", tty=True), ""),
        (Script('echo "$CANARY"; exec sleep 60'), "stop"),
        (Script('echo "$CANARY"; kill -9 $$'), ""),
        (Script("true", shell="powershell"), ""),
    ):
        with_secrets = Script(spec.script, shell=spec.shell, tty=spec.tty, secrets=USES)
        made = client.create_run(RunRequest(with_secrets, nodes=("node-1",)))
        if end:
            task = (client.run(made.id).tasks or [])[0].attempt
            wait_until(lambda task=task: client.log(task).parts, "its output")
            client.stop_run(made.id, grace=0)
        client.wait(made.id)
        said += [lab.cli("runs", word, made.id) for word in ("show", "why", "logs")]
        said.append(lab.cli("runs", "show", made.id, "--timeline"))
    for path in (
        ("runs",), ("runs", run.id), ("runs", run.id, "why"), ("runs", run.id, "timeline"),
        ("nodes",), ("nodes", "node-1"), ("nodes", "node-1", "events"), ("secrets",), ("system",),
        ("attempts", attempt, "log"),
    ):  # fmt: skip
        assert not leaks(client.get_raw(*path)), path
    said.append(lab.cli("server", "backup", "--data", str(lab.data), "--to", str(tmp_path / "b")))
    assert said[-1].returncode == 0, said[-1].stderr
    watch.ended.set()
    watch.join()
    for one in said:
        assert not leaks(one.stdout.encode() + one.stderr.encode()), one.args
    assert watch.found == set()
    # What is on disk: the record, its journal, logs, spools, tasks' folders, the backup.
    assert list(files_that_leak(tmp_path)) == []
    assert not list((tmp_path / "b").rglob("master-key*"))
    with contextlib.closing(sqlite3.connect(lab.data / "fleetwire.db")) as record:
        wait_until(
            lambda: record.execute("SELECT count(*) FROM sealed_secrets").fetchone() == (0,),
            "what was sealed to be forgotten",
        )
    assert leaks(CANARY.encode())  # the look can find it


def test_nothing_is_left_after_everything_was_killed(lab: Lab, tmp_path: Path) -> None:
    lab.cli("secrets", "set", "canary", stdin=CANARY)
    spec = Script('echo "$CANARY"; exec sleep 600', secrets=USES)
    made = lab.client.create_run(RunRequest(spec, nodes=("node-1",)))
    attempt = (lab.client.run(made.id).tasks or [])[0].attempt
    wait_until(lambda: lab.client.log(attempt).parts, "its output")
    lab.agents["node-1"].kill()
    spawner = lab.spawner()
    for process in [*spawner.children(recursive=False), spawner]:
        process.kill()
    lab.start_agent()
    wait_until(lambda: lab.client.run(made.id).state == "ended", "the run to end")
    assert list(files_that_leak(tmp_path)) == []
    vault = Path(Vault(str(lab.state("node-1"))).path)
    assert list(vault.iterdir()) == []
