"""`fleetwire doctor`: what is wrong here, and how to mend it. Each check is one line."""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

from fleetwire.cli import profile
from fleetwire.cli.app import Leaf
from fleetwire.cli.connect import connect
from fleetwire.cli.errors import FAILED, NotLoggedInHere
from fleetwire.cli.parsing import Parser
from fleetwire.cli.ports import holder
from fleetwire.cli.show import coloured, mark, size, write_json
from fleetwire.cli.visible import one_line
from fleetwire.client import Client, ClientError, Node, ServerDistrusted, ServerUnreachable
from fleetwire.client.errors import Problem
from fleetwire.core.errors import FleetwireError

LEAST_FREE: Final = 1 << 30
SKEW_S: Final = 2.0
_PR_GET_CHILD_SUBREAPER: Final = 37
_MENDS: Final = {"storage": "Free some space on the server's disk; it goes on by itself."}


class Finding(NamedTuple):
    """What one check found; `mend` says what to do where it is not ok."""

    state: Literal["ok", "warn", "fail"]
    check: str
    text: str
    mend: str = ""


def configure(parser: Parser) -> None:
    """Describe the arguments."""
    parser.story = "Exit code 1 when something fails."
    parser.examples.append("fleetwire doctor")
    parser.option("--data", metavar="DIR", completes="folder", help="the server's data folder")
    parser.option("--port", metavar="PORT", type=int, default=8080, help="the server's port")


def call(values: argparse.Namespace) -> int:
    """Check all and report."""
    findings = list(examine(values))
    worst = FAILED if any(one.state == "fail" for one in findings) else 0
    if values.output != "text":
        import msgspec

        if values.output == "json":
            write_json(msgspec.json.encode({"items": [one._asdict() for one in findings]}))
        else:
            for one in findings:
                write_json(msgspec.json.encode(one._asdict()))
        return worst
    colour = coloured(sys.stdout)
    width = max(len(one.check) for one in findings)
    for one in findings:
        pad = " " * (4 - len(one.state))
        # Our own colours stay, those of others do not: so before, and not the whole line.
        check, text = f"{one_line(one.check):{width}}", one_line(one.text, 2000)
        sys.stdout.write(f"{mark(one.state, colour=colour)}{pad}  {check}  {text}\n")
        if one.mend:
            sys.stdout.write(f"      {'':{width}}  {one_line(one.mend, 2000)}\n")
    return worst


def examine(values: argparse.Namespace) -> Iterator[Finding]:
    """Yield the findings, from the machine outwards."""
    from fleetwire.cli.up import default_data

    data = values.data or default_data()
    yield _python()
    yield _platform()
    yield from _kernel()
    yield _data(data)
    yield _space(data if os.path.isdir(data) else os.path.dirname(os.path.abspath(data)))
    yield from _server(values.port)


def _python() -> Finding:
    # An older Python than the package asks for cannot have got this far.
    return Finding("ok", "python", f"{platform.python_version()} at {sys.executable}")


def _platform() -> Finding:
    text = f"{platform.system()} {platform.release()} on {platform.machine()}"
    if sys.platform != "linux":
        return Finding("warn", "platform", text, "Agents are tried on Linux first.")
    return Finding("ok", "platform", text)


def _kernel() -> Iterator[Finding]:
    """What agent and shim need of the kernel, tried for real."""
    if sys.platform != "linux":
        return

    def pidfd() -> None:
        os.close(os.pidfd_open(os.getpid()))

    def inotify() -> None:
        library = ctypes.CDLL(None, use_errno=True)
        descriptor = library.inotify_init1(os.O_CLOEXEC)
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        os.close(descriptor)

    def subreaper() -> None:
        library = ctypes.CDLL(None, use_errno=True)
        answer = ctypes.c_int()
        if library.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    yield _tried("pidfd", pidfd, "Linux 5.3 or newer is needed to see the end of a process.")
    yield _tried(
        "inotify",
        inotify,
        "Raise fs.inotify.max_user_instances; until then output is found by polling.",
        state="warn",
    )
    yield _tried("subreaper", subreaper, "Without it processes that escape cannot be caught.")


def _tried(
    check: str, attempt: Callable[[], None], mend: str, *, state: Literal["warn", "fail"] = "fail"
) -> Finding:
    try:
        attempt()
    except (OSError, AttributeError) as error:
        return Finding(state, check, f"does not work: {error}", mend)
    return Finding("ok", check, "works")


def _data(data: str) -> Finding:
    if not os.path.exists(data):
        return Finding("ok", "data", f"{data} is not there yet: `fleetwire up` makes it")
    try:
        with tempfile.TemporaryFile(dir=data):
            pass
    except OSError as error:
        return Finding(
            "fail",
            "data",
            f"{data} cannot be written: {error.strerror}",
            "Give it to this user (chown), or use another with --data.",
        )
    facts = os.stat(data)
    if facts.st_mode & 0o077:
        return Finding(
            "warn",
            "data",
            f"{data} can be entered by other users (mode {facts.st_mode & 0o777:o})",
            f"chmod 700 {data}",
        )
    return Finding("ok", "data", f"{data} is private and can be written")


def _space(folder: str) -> Finding:
    while not os.path.isdir(folder) and folder != "/":
        folder = os.path.dirname(folder)
    facts = os.statvfs(folder)
    free = facts.f_bavail * facts.f_frsize
    if free < LEAST_FREE:
        return Finding(
            "warn",
            "space",
            f"{size(free)} free for logs and spools",
            "Spools take at most 10 % of it: free some, or output has to wait.",
        )
    return Finding("ok", "space", f"{size(free)} free for logs and spools")


def _server(port: int) -> Iterator[Finding]:
    try:
        chosen = profile.chosen(os.environ)
    except NotLoggedInHere:
        yield Finding("warn", "profile", "no server is known", "fleetwire login URL")
        yield _port(port)
        return
    except FleetwireError as error:
        yield Finding("fail", "profile", error.detail, error.hint)
        return
    yield _profile(chosen)
    try:
        client = connect(timeout=5.0, patience=0.0)
    except FleetwireError as error:
        yield Finding("fail", "server", error.detail, error.hint)
        return
    with client:
        try:
            client.ready()
        except (ServerUnreachable, ServerDistrusted) as error:
            yield Finding("fail", "server", error.detail, error.hint)
            yield _port(port)
            return
        except Problem as error:
            # It answers, so more can be asked: what does not work stands in the answer by name.
            problems = error.members.get("problems")
            if not isinstance(problems, dict) or not problems:
                yield Finding("fail", "server", f"{chosen.url} answers: {error.detail}", error.hint)
                return
            for name, text in problems.items():
                yield Finding("fail", "server", f"{name}: {text}", _MENDS.get(name, ""))
        else:
            yield Finding("ok", "server", f"{chosen.url} is ready")
        try:
            for name, text in client.warnings().items():
                yield Finding("fail", name, text, "See the server's log.")
            yield _clock(client)
            user = client.me()
            yield Finding("ok", "login", f"{user.name} ({user.role})")
            yield _breaker(client)
            yield from _nodes(client)
        except ClientError as error:
            yield Finding("fail", "login", error.detail, error.hint or "fleetwire login URL")


def _profile(chosen: profile.Profile) -> Finding:
    file = profile.path(os.environ)
    if chosen.name != "environment" and os.stat(file).st_mode & 0o077:
        return Finding("fail", "profile", f"{file} can be read by other users", f"chmod 600 {file}")
    return Finding("ok", "profile", f"{chosen.name}: {chosen.url}")


def _port(port: int) -> Finding:
    who = holder(port)
    if who is None:
        return Finding("ok", "port", f"{port} is free")
    return Finding("warn", "port", f"{port} is taken by {who}", "Use another with --port.")


def _clock(client: Client) -> Finding:
    from email.utils import parsedate_to_datetime

    answer = client.connection.request("GET", "/healthz")
    date = answer.headers.get("Date")
    if date is None:
        return Finding("ok", "clock", "the server does not tell its time")
    # HTTP's dates are whole seconds.
    skew = time.time_ns() / 1e9 - parsedate_to_datetime(date).timestamp()
    if abs(skew) > SKEW_S + 1:
        return Finding(
            "warn",
            "clock",
            f"this machine is {skew:+.0f} s off the server",
            "Let both keep time (chrony, systemd-timesyncd).",
        )
    return Finding("ok", "clock", "agrees with the server")


def _breaker(client: Client) -> Finding:
    standing = client.system().breaker
    if standing is None:
        return Finding("ok", "breaker", "closed: the system may act by itself")
    return Finding(
        "fail",
        "breaker",
        standing.text,
        "Find out what the nodes that went have in common; fleetwire system close-breaker "
        "when it is mended.",
    )


def _nodes(client: Client) -> Iterator[Finding]:
    known = list(client.nodes())
    if not known:
        yield Finding(
            "warn",
            "nodes",
            "none is enrolled",
            "fleetwire tokens create --enrolment, then fleetwire agent --server URL there",
        )
        return
    away = [node.name for node in known if node.link != "online"]
    if away:
        names = ", ".join(away[:10]) + (" ..." if len(away) > 10 else "")
        yield Finding(
            "warn",
            "nodes",
            f"{len(known) - len(away)} of {len(known)} online; away: {names}",
            "On such a node: fleetwire agent status",
        )
    else:
        yield Finding("ok", "nodes", f"{len(known)} of {len(known)} online")
    yield from _around(known)
    for node in known:
        for warning in node.warnings:
            mend = (
                "Let it keep time (chrony, systemd-timesyncd)."
                if "clock" in warning
                else f"fleetwire nodes why {node.name}"
            )
            state: Literal["fail", "warn"] = "fail" if node.admin == "quarantined" else "warn"
            yield Finding(state, "node", f"{node.name}: {warning}", mend)


def _around(known: Sequence[Node]) -> Iterator[Finding]:
    """What the nodes say of their own policies, and of what they can put around tasks."""
    told = [node.inventory.get("protection") for node in known if node.inventory]
    around = [one for one in told if isinstance(one, dict)]
    if around:
        switching = sum(bool(one.get("user_switching")) for one in around)
        forgoing = sum(bool(one.get("no_new_privs")) for one in around)
        groups = Counter(str(one.get("cgroup", "none")) for one in around)
        counted = ", ".join(f"{kind} on {many}" for kind, many in sorted(groups.items()))
        yield Finding(
            "ok",
            "protection",
            f"of {len(around)} nodes: {switching} can run tasks as other users; control groups "
            f"{counted}; no new privileges on {forgoing}",
        )
    for node in known:
        policy = (node.inventory or {}).get("policy")
        if isinstance(policy, dict) and policy.get("state") == "refused":
            yield Finding(
                "fail",
                "policy",
                f"{node.name} denies everything: {policy.get('file')}: {policy.get('problem')}",
                "Mend the file on that node; it is read again at the next start.",
            )


LEAVES = {"doctor": Leaf(configure, call)}
