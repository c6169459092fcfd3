"""Whether a TCP port is free here, and who holds it where that can be known."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator

from fleetwire.cli.errors import LocalError


def check_free(host: str, port: int) -> int:
    """Return the port if it can be listened on (a free one for 0), else raise LocalError."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                who = holder(port)
                raise LocalError(
                    f"Port {port} is taken" + (f" by {who}." if who else "."),
                    hint=f"Stop that program, or choose another port: --port {port + 1}.",
                ) from error
            if error.errno == errno.EACCES:
                raise LocalError(
                    f"Port {port} may not be used by this user.", hint="Use one above 1023."
                ) from error
            raise LocalError(
                f"Port {port} cannot be used: {error.strerror}.", hint="Choose another: --port."
            ) from error
        number: int = probe.getsockname()[1]
        return number


def holder(port: int) -> str | None:
    """Return `NAME (process N)` of the program that listens on a port, where /proc tells it."""
    sockets = set(_listening(port))
    if not sockets:
        return None
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        # Processes come and go, and those of others are closed to us.
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"/proc/{entry}/fd"):
                if os.readlink(f"/proc/{entry}/fd/{descriptor}") in sockets:
                    with open(f"/proc/{entry}/cmdline", "rb") as file:
                        words = file.read().split(b"\0")
                    return f"`{_named(words)}` (process {entry})"
    return None


def _named(words: list[bytes]) -> str:
    from fleetwire.cli.visible import one_line

    text = " ".join(word.decode("utf-8", "replace") for word in words if word)
    return one_line(text, 60) or "a program"


def _listening(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError), open(table, encoding="ascii") as file:
            next(file, None)
            for line in file:
                fields = line.split()
                # local address, state 0A = LISTEN, inode (proc(5))
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    yield f"socket:[{fields[9]}]"
