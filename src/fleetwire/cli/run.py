"""`fleetwire run`: submit, then watch to the end."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Final, get_args

from fleetwire.cli import confined, outcome
from fleetwire.cli.app import Leaf
from fleetwire.cli.connect import connect
from fleetwire.cli.errors import DETACHED, SUCCEEDED, LocalError, UsageError
from fleetwire.cli.parsing import Parser, count, duration, pair
from fleetwire.cli.screen import Screen
from fleetwire.cli.show import coloured, short, write_json
from fleetwire.cli.visible import visible_text
from fleetwire.cli.watch import Json, Nothing, Plain, Prefixed, View, Watch
from fleetwire.client import Client, Run, RunRequest, Script, Task
from fleetwire.core import limits
from fleetwire.core.errors import FleetwireError
from fleetwire.core.retry import Retry
from fleetwire.core.secrets import As, SecretUse
from fleetwire.core.specs import OnQuota, Shell, check_request

RETRY_ON: Final = ("failure", "lost", "both")
SHELLS: Final = ("sh", "bash", "python", "powershell")
SECOND_CTRL_C_S: Final = 1.5
_LOST_OUTPUT: Final = 141


def configure(parser: Parser) -> None:
    """Describe the arguments."""
    parser.tail = "[-- COMMAND ...]"
    parser.story = (
        "The words after -- are joined with spaces and given to the shell, as ssh does;\n"
        "with --script they are the script's arguments. The output comes live; Ctrl-C leaves\n"
        "the run going, a second Ctrl-C stops it."
    )
    parser.examples += [
        "fleetwire run --on 'os=linux' -- uname -a",
        "fleetwire run --on 'role=web,!retired' --script check.sh --timeout 10m",
        "fleetwire run --node web-1 --node web-2 --group -- cat /etc/os-release",
    ]
    parser.option("--on", metavar="SELECTOR", help="nodes whose labels match: 'os=linux,role=web'")
    parser.option(
        "--node",
        metavar="NAME",
        action="append",
        default=[],
        completes="node",
        help="this node; may be repeated",
    )
    parser.option("--any", metavar="N", type=count, help="only N of them, the least loaded")
    parser.option(
        "--script", metavar="FILE", completes="file", help="run this file's content; - is stdin"
    )
    parser.option("--shell", choices=SHELLS, help="the interpreter (default: by #!, else sh)")
    parser.option(
        "--env",
        metavar="K=V",
        type=pair,
        action="append",
        default=[],
        help="set an environment variable; may be repeated",
    )
    parser.option(
        "--timeout", metavar="TIME", type=duration, help="end it after 90s, 10m, 2h (default 2h)"
    )
    parser.option(
        "--retries", metavar="N", type=count, help="try a task up to N more times (default 0)"
    )
    parser.option(
        "--retry-on",
        choices=RETRY_ON,
        default="failure",
        help="what is tried again; after a loss both may run (default failure)",
    )
    parser.option(
        "--retry-after",
        metavar="TIME",
        type=duration,
        help="wait before the first retry, then twice as long (default 10s)",
    )
    parser.option(
        "--lost-after",
        metavar="TIME",
        type=duration,
        help="a silent node's task is lost this long beyond its deadline",
    )
    parser.option(
        "--on-quota",
        choices=get_args(OnQuota),
        default="block",
        help="output that nobody can store: hold it, drop it, or end the task",
    )
    parser.option(
        "--secret",
        metavar="NAME",
        type=secret_use,
        action="append",
        default=[],
        help="give it a secret: NAME, NAME=file:FILE or NAME=env:VARIABLE",
    )
    confined.configure(parser)
    parser.option("--name", metavar="NAME", help="a name for the run, for people")
    parser.option("--project", metavar="NAME", help="whose nodes (default: the only one, default)")
    parser.option("--tty", action="store_true", help="give it a terminal")
    parser.option("--detach", "-d", action="store_true", help="submit, print the id, do not wait")
    parser.option(
        "--group", action="store_true", help="show identical outputs once, when all have ended"
    )
    parser.option("--raw", action="store_true", help="do not make control characters visible")


def call(values: argparse.Namespace) -> int:
    """Submit and watch."""
    request = request_of(values)
    teller = _Teller()
    with connect(notify=teller.tell) as client:
        try:
            answer = client.create_run_raw(request, project=values.project)
        except KeyboardInterrupt:
            raise LocalError(
                "Interrupted while the run was being submitted.",
                hint="Whether it was is shown by `fleetwire runs`.",
            ) from None
        import msgspec

        run = msgspec.json.decode(answer.body, type=Run)
        if values.detach:
            if values.output == "text":
                sys.stdout.write(f"{visible_text(run.id)}\n")
                say(f"Follow it with: fleetwire runs logs {short(run.id)} -f")
            else:
                write_json(answer.body)
            return SUCCEEDED
        return watch(client, run, values, teller)


def _name_of(script: str | None) -> str | None:
    """A run of a script file is called like the file: many scripts begin with the same lines."""
    name = os.path.basename(script or "-")
    fits = name != "-" and name.isprintable() and len(name) <= limits.NAME_CHARS
    return name if fits else None


def request_of(values: argparse.Namespace) -> RunRequest:
    """Return the request that the flags describe, within its limits."""
    if (values.on is None) == (not values.node):
        raise UsageError(
            "Say where to run: with --on SELECTOR or with --node NAME."
            if values.on is None
            else "Use either --on or --node, not both.",
            hint="For example: fleetwire run --on 'os=linux' -- uname -a",
        )
    arguments: list[str] = []
    shell: Shell | None = values.shell
    if values.script is not None:
        script = read_script(values.script)
        arguments = values.tail
    elif values.tail:
        script = " ".join(values.tail) + "\n"
    else:
        raise UsageError(
            "Say what to run: -- COMMAND ..., or --script FILE.",
            hint="For example: fleetwire run --on 'os=linux' -- uname -a",
        )
    request = RunRequest(
        spec=Script(
            script=script,
            shell=shell or shell_of(script if values.script is not None else ""),
            args=tuple(arguments),
            env=dict(values.env),
            tty=values.tty,
            timeout=limits.TIMEOUT_DEFAULT_S if values.timeout is None else values.timeout,
            on_quota=values.on_quota,
            secrets=tuple(values.secret),
            run_as=values.run_as,
            resources=confined.resources_of(values),
        ),
        selector=values.on,
        nodes=tuple(values.node) or None,
        any=values.any,
        name=values.name or _name_of(values.script),
        lost_after=limits.LOST_AFTER_S if values.lost_after is None else values.lost_after,
        retry=_retry(values),
    )
    check_request(request)
    return request


def secret_use(text: str) -> SecretUse:
    """Return what `NAME`, `NAME=file:FILE` or `NAME=env:VARIABLE` says."""
    name, sign, how = text.partition("=")
    kind, colon, to = how.partition(":")
    if sign and not (colon and to and kind in get_args(As)):
        # Not shown: somebody may have typed a value.
        raise argparse.ArgumentTypeError(
            "say NAME, NAME=file:FILE or NAME=env:VARIABLE; "
            "a value is set by `fleetwire secrets set`"
        )
    return SecretUse(name, "env" if kind == "env" else "file", to)


def _retry(values: argparse.Namespace) -> Retry | None:
    if values.retries is None:
        if values.retry_after is not None:
            raise UsageError(
                "--retry-after says when to try again, and nothing says how often.",
                hint="Add --retries N.",
            )
        return None
    backoff = limits.RETRY_BACKOFF_DEFAULT_S if values.retry_after is None else values.retry_after
    return Retry(
        on_failure=values.retry_on in {"failure", "both"},
        on_lost=values.retry_on in {"lost", "both"},
        count=values.retries,
        backoff=backoff,
    )


def read_script(path: str) -> str:
    """Return a script's text from a file or, for `-`, from stdin."""
    try:
        if path == "-":
            raw = sys.stdin.buffer.read(limits.SCRIPT_BYTES + 1)
        else:
            with open(path, "rb") as file:
                raw = file.read(limits.SCRIPT_BYTES + 1)
        text = raw.decode("utf-8")
    except OSError as error:
        raise UsageError(
            f"The script {path} cannot be read: {error.strerror}.", hint="Check the path."
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"The script {path} is not UTF-8 text (byte {error.start}).",
            hint="A program is not a script: put it on the node and run it there.",
        ) from error
    return text


def shell_of(script: str) -> Shell:
    """Return the interpreter that a script's first line asks for, if it is one we have."""
    first = script.partition("\n")[0]
    if first.startswith("#!"):
        program = first[2:].split()[-1:] if "env " in first else first[2:].split()[:1]
        name = os.path.basename(program[0]) if program else ""
        if name.startswith("python"):
            return "python"
        if name == "bash":
            return "bash"
        if name in {"pwsh", "powershell"}:
            return "powershell"
    return "sh"


def watch(client: Client, run: Run, values: argparse.Namespace, teller: _Teller) -> int:
    """Show a run to its end and return the exit code for it."""
    tasks = run.tasks or []
    watched = Watch(screen_for(values, lambda width: outcome.progress(watched.tasks, width)), tasks)
    screen = watched.screen
    teller.screen = screen
    try:
        with screen:
            watched.follow(client.follow(run.id, logs=_wants_logs(values)), _view(values, watched))
    except KeyboardInterrupt:
        return _detach(client, run, watched, values)
    except BrokenPipeError:
        teller.screen = None
        say(f"Nobody reads the output any more. The run goes on: fleetwire runs show {run.id}")
        return _LOST_OUTPUT
    return _end(client, run, watched, values)


def _end(client: Client, run: Run, watched: Watch, values: argparse.Namespace) -> int:
    ended = list(watched.tasks.values())
    if any(task.outcome is None for task in ended):
        # The stream has told all before its end; what it has not, the record has.
        ended = client.run(run.id).tasks or []
    if values.output == "json":
        write_json(client.get_raw("runs", run.id))
    elif values.output == "text":
        if values.group:
            show_groups(client, ended, raw=values.raw)
        if not (len(ended) > 1 and _all_well(ended) and not sys.stderr.isatty()):
            for line in outcome.summary(ended):
                say(line)
    return outcome.exit_code(ended)


def _all_well(tasks: list[Task]) -> bool:
    return all(task.outcome == "succeeded" for task in tasks)


def _wants_logs(values: argparse.Namespace) -> bool:
    return bool(values.output == "jsonl" or (values.output == "text" and not values.group))


def _view(values: argparse.Namespace, watched: Watch) -> View:
    if values.output == "jsonl":
        return Json(watched.screen)
    if values.output == "json" or values.group:
        return Nothing()
    return text_view(watched, raw=values.raw or values.tty)


def text_view(watched: Watch, *, raw: bool) -> View:
    """Return how people see the output of these tasks."""
    tasks = list(watched.tasks.values())
    if len(tasks) == 1:
        return Plain(watched.screen, raw=raw)
    names = [task.node or f"task {task.index}" for task in tasks]
    return Prefixed(watched.screen, names, raw=raw, colour=coloured(sys.stdout))


def screen_for(values: argparse.Namespace, progress: Callable[[int], str]) -> Screen:
    """Return the screen: with a progress line where people read stderr on a terminal."""
    terminal = (
        values.output == "text"
        and sys.stderr.isatty()
        and os.environ.get("TERM") != "dumb"
        # With a terminal's raw output the cursor is the task's.
        and not getattr(values, "tty", False)
    )
    return Screen(progress=progress if terminal else None)


def show_groups(client: Client, tasks: list[Task], *, raw: bool) -> None:
    """Print each different output once, under the names of the nodes that gave it. What is
    equal is known from the hash, so that only one log of each group is fetched.
    """
    groups: dict[tuple[str, str | None], list[Task]] = {}
    for task in tasks:
        key = (outcome.ending(task), task.log.sha256 or task.attempt)
        groups.setdefault(key, []).append(task)
    with Screen() as screen:
        for (ending, _), members in sorted(groups.items(), key=lambda item: -len(item[1])):
            names = ", ".join(outcome.place(task) for task in members)
            screen.write("stdout", f"== {names}: {ending}\n".encode())
            view = Plain(screen, raw=raw)
            show_log(client, members[0], view)
            screen.end_line()
            screen.flush()


def show_log(client: Client, task: Task, view: View) -> None:
    """Show what there is of an attempt's log, page by page."""
    from fleetwire.client import LogBytes

    offset = 0
    while True:
        page = client.log(task.attempt, offset=offset)
        if page.next_offset == offset:
            break
        view.show(LogBytes(task.attempt, page.offset, page.parts, task.node, task.index))
        offset = page.next_offset
    view.finish(task.attempt)


def _detach(client: Client, run: Run, watched: Watch, values: argparse.Namespace) -> int:
    """Leave the run going (interfaces, 1); a second Ctrl-C, soon after, stops it."""
    name = short(run.id)
    try:
        say(f"Detached: run {name} goes on without you.")
        say(f"  follow it   fleetwire runs logs {name} -f")
        say(f"  stop it     fleetwire runs stop {name}     (or Ctrl-C again, now)")
        time.sleep(SECOND_CTRL_C_S)
    except KeyboardInterrupt:
        return _stop(client, run, watched, values)
    return DETACHED


def _stop(client: Client, run: Run, watched: Watch, values: argparse.Namespace) -> int:
    try:
        client.connection.close()
        client.stop_run(run.id)
        say("Stopping it. Ctrl-C again leaves without waiting.")
        tasks = client.wait(run.id).tasks or []
    except KeyboardInterrupt:
        return DETACHED
    except FleetwireError as error:
        say(f"It could not be stopped: {error}")
        return DETACHED
    watched.tasks = {task.id: task for task in tasks}
    return _end(client, run, watched, values)


class _Teller:
    """Tells a person that the server is away, and that it is back."""

    def __init__(self) -> None:
        self.screen: Screen | None = None
        self._away = False

    def tell(self, text: str) -> None:
        """Say it above the progress line; the empty text means that it is back."""
        if not text and not self._away:
            return
        self._away = bool(text)
        line = text or "The server is back."
        if self.screen is not None:
            self.screen.say(visible_text(line))
        else:
            say(line)


def say(line: str) -> None:
    """Write a line to stderr, text of others made visible."""
    sys.stderr.write(f"{visible_text(line)}\n")
    sys.stderr.flush()


LEAVES = {"run": Leaf(configure, call)}
