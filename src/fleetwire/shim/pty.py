"""A terminal for an attempt that asked for one."""

import fcntl
import os
import struct
import sys
import termios

assert sys.platform != "win32", "pseudo-terminals of this kind are POSIX"

END_OF_INPUT = b"\x04"  # what a terminal in its usual mode takes for the end of input


def open_terminal(rows: int, columns: int) -> tuple[int, str]:
    """A new terminal: the descriptor of our end (non-blocking) and the path of the task's end.

    The task's first process, a session leader without a terminal, gets it as its controlling
    terminal by opening the path.
    """
    ours, theirs = os.openpty()
    try:
        resize(ours, rows, columns)
        os.set_blocking(ours, False)
        return ours, os.ttyname(theirs)
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)


def resize(terminal: int, rows: int, columns: int) -> None:
    """Set the window's size; the kernel tells the foreground processes (SIGWINCH)."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
