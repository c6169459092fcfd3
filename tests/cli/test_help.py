"""Help and errors as they are printed: a change of these texts is a change that people see."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from inline_snapshot import snapshot

from fleetwire import __version__
from fleetwire.cli.app import overview, parser_of, run
from fleetwire.cli.commands import COMMANDS
from fleetwire.cli.completion import candidates


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert f"  fleetwire {name.split(maxsplit=1)[0]}" in text.partition("Example")[2]
    assert "--output text|json|jsonl" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_overview() -> None:
    assert overview() == snapshot("""\
fleetwire COMMAND [options]

Command a fleet of machines.

Work:
  run         run a command or script on nodes and watch it
  runs        list runs
              also: runs show, logs, stop, why
  nodes       list nodes
              also: nodes show, drain, resume, disable, delete, approve, deny, release, revoke,
              why

Access:
  login       log in to a server and remember it
  logout      forget the login and end its token
  whoami      show who you are logged in as
  tokens      list API tokens
              also: tokens list, create, delete
  users       list users
              also: users show, create, disable, enable, reset-password, end-totp
  projects    list your projects
              also: projects create, delete
  roles       list who has which roles in a project
              also: roles grant, revoke
  secrets     list secrets, without their values
              also: secrets list, set, delete
  audit       list what was done, by whom and from where
              also: audit list, verify, export

Operate:
  up          start the whole system on this machine
  server      run the server
              also: server backup, restore, rotate-signing-key, raise-generation,
              rotate-master-key, forget-secrets
  agent       run the agent of this machine
              also: agent status
  swarm       simulate agents to see what a server can carry
  system      show the whole system, and what it does not do by itself
              also: system close-breaker
  doctor      find what is wrong here and how to mend it
  completion  print a completion script for your shell

`fleetwire COMMAND --help` shows its options and an example.

Example:
  fleetwire run --on 'os=linux' -- uname -a

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 server not reachable, 4 not allowed,
5 lost, refused or expired, 130 detached. One node, one task: the script's own.
""")


def test_help_of_runs_stop() -> None:
    assert parser_of(COMMANDS["runs stop"]).format_help() == snapshot("""\
fleetwire runs stop RUN [options]

Stop a run.

TERM is sent at once, KILL to what still lives after the grace.

  RUN                       the run's id, or a unique start of it
  --grace TIME              time between TERM and KILL (default 10s)
  --wait                    wait until nothing of it is alive
  --output text|json|jsonl  text for people, json for programs
  --help, -h                show this help

Example:
  fleetwire runs stop 019a0f3c-1b2d --grace 2s --wait
""")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"fleetwire {__version__}\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [([], 2), (["--help"], 0), (["nonsense"], 2), (["--verbose"], 2), (["run", "--nope"], 2),
     (["runs", "show"], 2), (["help", "run"], 0)],
)  # fmt: skip
def test_exit_codes_of_wrong_usage(words: list[str], code: int) -> None:
    assert run(words) == code


def test_errors_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("FLEETWIRE_URL", raising=False)
    assert run(["runs"]) == 4
    monkeypatch.setenv("FLEETWIRE_URL", "http://127.0.0.1:1")
    assert run(["runs"]) == 3
    assert capsys.readouterr().err == snapshot("""\
fleetwire: No server is known.
Log in with `fleetwire login URL`, or start a system with `fleetwire up`.
fleetwire: No server answers at http://127.0.0.1:1: connection refused.
Start one with `fleetwire up`, or name another with `fleetwire login URL`.
""")


def test_an_unexpected_error_shows_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def broken(_words: list[str]) -> int:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("fleetwire.cli.app._call", broken)
    assert run(["runs"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    [details] = tmp_path.iterdir()
    assert str(details) in error
    assert "ZeroDivisionError: oops" in details.read_text()
    assert details.stat().st_mode & 0o077 == 0


def test_start_up_imports_nothing_heavy() -> None:
    """Start-up is what people feel (stack, trap 22)."""
    code = (
        "import sys; from fleetwire.cli.app import parser_of; "
        "from fleetwire.cli.commands import COMMANDS; parser_of(COMMANDS['run']); "
        "print([m for m in ('rich', 'cyclopts', 'click', 'httpx2', 'pydantic', 'fastapi', "
        "'asyncio', 'sqlalchemy', 'fleetwire.server', 'fleetwire.agent', 'subprocess', "
        "'tomllib', 'difflib') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert shown.stdout == "[]\n"


def test_completion_of_words() -> None:
    assert [word for word, _ in candidates(["ru"])] == ["run", "runs"]
    assert [word for word, _ in candidates(["runs", ""])][:4] == ["show", "logs", "stop", "why"]
    assert [word for word, _ in candidates(["run", "--sh"])] == ["--shell"]
    assert [word for word, _ in candidates(["run", "--shell", "p"])] == ["python", "powershell"]
    assert list(candidates(["run", "--script", "x"])) == [(":files", "")]
    assert list(candidates(["run", "--on", "x", "--", "l"])) == []


def test_completion_is_silent_without_a_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert list(candidates(["nodes", "show", ""])) == []
    monkeypatch.setenv("FLEETWIRE_URL", "http://127.0.0.1:1")
    assert list(candidates(["runs", "logs", ""])) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "completion --words" in capsys.readouterr().out


def test_the_bash_script_completes() -> None:
    bash = shutil.which("bash")
    assert bash is not None
    script = subprocess.run(
        [sys.executable, "-m", "fleetwire.cli", "completion", "bash"],
        capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    script += (
        f'fleetwire() {{ "{sys.executable}" -m fleetwire.cli "$@"; }}\n'
        "COMP_WORDS=(fleetwire runs s); COMP_CWORD=2; _fleetwire; echo ${COMPREPLY[@]}\n"
    )
    shown = subprocess.run([bash, "-c", script], capture_output=True, check=True, text=True)
    assert shown.stdout == "show stop\n"
