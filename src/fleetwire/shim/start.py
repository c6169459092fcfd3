"""Exec: the task's first process, with exactly what it is given and nothing of ours.

Why `os.posix_spawn` and not the others (measured, CPU for a start of /bin/true from a shim's
process): posix_spawn 1.15 ms, `subprocess.Popen` 1.1, `_posixsubprocess.fork_exec` 1.0 (all three
share our memory until exec), `os.fork` and exec 4 ms (it copies page tables and then pages). Of
the first three, Popen can neither reset all signals nor give a controlling terminal without
`preexec_fn`, which makes it fork; `fork_exec` is private and changes its signature between
versions of Python. posix_spawn does all of it in C and tells the errno of a failed exec. What it
lacks (a working directory, a umask) the shim sets on itself: it has no other use for them. Another
user and limits it lacks as well: such tasks take the way of `confine`.
"""

import errno
import os
import signal
import sys
from typing import NamedTuple

assert sys.platform != "win32", "shims need POSIX process trees"

from fleetwire.shim import confine, pty
from fleetwire.shim.order import Order

STDOUT, STDERR = 1, 2

_TASK_UMASK = 0o022
_OUR_UMASK = 0o077
# A task starts with every signal at its default, whatever we (SIGPIPE) or nohup (SIGHUP) ignore.
_SIGNALS = sorted(set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP})

# These say nothing about the program: there was no process or memory to try it with.
_NO_MEANS = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)

CANNOT_EXECUTE, NOT_FOUND = 126, 127  # as shells say it


class Started(NamedTuple):
    """What exec left in our hands: descriptors are ours to close, and non-blocking."""

    pid: int
    outputs: dict[int, int]  # descriptor: stream number
    stdin: int | None
    terminal: int | None


class ExecFailed(Exception):
    """The program could not be executed; `exit_code` is what a shell would say."""

    def __init__(self, program: str, error: OSError) -> None:
        super().__init__(f"cannot execute {program}: {error.strerror}")
        self.exit_code = NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_EXECUTE


def start(order: Order) -> Started:
    """Execute the order's argv in the current directory.

    Raises ExecFailed when the program is to blame, OSError when the node is (no process, no
    memory, no descriptors, not what was asked around the task); nothing runs then.
    """
    given: list[int] = []  # the task's ends: closed here once it has them
    ours: list[int] = []
    actions: list[tuple[int, int, str, int, int] | tuple[int, int, int]] = []
    taken: dict[int, int] = {}  # for a task that is confined: the task's number, and our end
    stdin = terminal = path = None
    if order.tty is not None:
        terminal, path = pty.open_terminal(*order.tty)
        ours.append(terminal)
        actions.append((os.POSIX_SPAWN_OPEN, 0, path, os.O_RDWR, 0))
        actions += [(os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
        outputs = {terminal: STDOUT}
        if order.stdin:
            stdin = os.dup(terminal)  # reading and writing are watched apart
            ours.append(stdin)
    else:
        if order.stdin:
            reader, stdin = os.pipe()
            given.append(reader)
            ours.append(stdin)
            taken[0] = reader
            actions.append((os.POSIX_SPAWN_DUP2, reader, 0))
        else:
            actions.append((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0))
        outputs = {}
        for stream in (STDOUT, STDERR):
            reader, writer = os.pipe()
            given.append(writer)
            ours.append(reader)
            outputs[reader] = stream
            taken[stream] = writer
            actions.append((os.POSIX_SPAWN_DUP2, writer, stream))
    for fd in ours:
        os.set_blocking(fd, False)
    os.umask(_TASK_UMASK)
    try:
        program = _find(order.argv[0], order.env)
        if order.confine is not None:
            confine.prepare(order.confine)
            pid = confine.execute(program, order.argv, order.env, order.confine, taken, path)
        else:
            pid = os.posix_spawn(
                program,
                order.argv,
                order.env,
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                setsigdef=_SIGNALS,
            )
    except OSError as error:
        for fd in ours:
            os.close(fd)
        if error.errno in _NO_MEANS or isinstance(error, confine.NotConfined):
            raise
        raise ExecFailed(order.argv[0], error) from error
    finally:
        os.umask(_OUR_UMASK)
        for fd in given:
            os.close(fd)
    return Started(pid, outputs, stdin, terminal)


def _find(program: str, environment: dict[str, str]) -> str:
    """Where the program is by the task's own PATH; a name with a slash is a path already."""
    if "/" in program:
        return program
    for folder in environment.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(folder or ".", program)
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    raise FileNotFoundError(errno.ENOENT, "no such program in PATH", program)
