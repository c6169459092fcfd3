"""What the lab's tasks do, and what they must have written: numbered, checksummed lines.

A task is data: the program gets it as arguments, and the judge makes the same lines from it. What
the program does is kept outside Fleetwire, in the attempt's *book*: a line for each real start, a
line at the end with code and SHA-256, and beside it how many bytes its writes have got rid of.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

import msgspec

from fleetwire.client import RunRequest, Script
from fleetwire.testing.simulation.chance import Chance

Kind: TypeAlias = Literal[
    "short", "failing", "signalled", "streaming", "big", "both", "stopped", "deadline"
]
KINDS: Final[tuple[Kind, ...]] = (
    "short", "short", "short", "failing", "signalled", "streaming", "streaming", "big", "both",
    "stopped", "stopped", "deadline",
)  # fmt: skip
"""A mixed load: the kinds, as often as they come in it."""

ENDLESS: Final = 1_000_000

PROGRAM: Final = r"""
import hashlib, os, signal, sys, time, zlib
books, lines, size, pause, both, code, number, stray = sys.argv[1], *map(float, sys.argv[2:])
attempt = os.environ["FLEETWIRE_ATTEMPT"]
book = os.open(f"{books}/{attempt}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
os.write(book, b"start %d\n" % os.getpid())
wrote = os.open(f"{books}/{attempt}.wrote", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
if stray and os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
pad = b"x" * int(size)
digests = [hashlib.sha256(), hashlib.sha256()]
totals = [0, 0]
pending = [b"", b""]

def flush(stream):
    data, pending[stream] = pending[stream], b""
    digests[stream].update(data)
    while data:
        done = os.write(1 + stream, data)
        data = data[done:]
        totals[stream] += done
        os.pwrite(wrote, b"%020d %020d\n" % tuple(totals), 0)

for n in range(int(lines)):
    stream = n % 2 if both else 0
    body = b"%s %08d %s" % (attempt.encode(), n, pad)
    pending[stream] += b"%s %08x\n" % (body, zlib.crc32(body))
    if pause or both or len(pending[stream]) >= 65536:
        flush(stream)
    if pause:
        time.sleep(pause)
flush(0)
flush(1)
os.write(book, b"end %d %s %s\n" % (code, *(d.hexdigest().encode() for d in digests)))
if number:
    os.kill(os.getpid(), int(number))
os._exit(int(code))
"""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One task of the load.

    `lines` of about `size` bytes, `pause` seconds apart (0: in blocks of 64 KiB), on both streams
    in turn or on stdout; then `code`, or the signal `number`. `stray`: it leaves a grandchild
    that has left session and parent and ignores TERM. `stop_after`: seconds until it is stopped.
    """

    kind: Kind
    lines: int
    size: int = 16
    pause: float = 0.0
    both: bool = False
    code: int = 0
    number: int = 0
    stray: bool = False
    timeout: float = 300.0
    grace: float = 0.5
    stop_after: float | None = None

    @staticmethod
    def of(chance: Chance, kind: Kind | None = None) -> Task:
        """Return a task by chance, of one kind or of the mixed load."""
        chosen = kind if kind is not None else chance.pick(KINDS)
        match chosen:
            case "short":
                return Task(kind=chosen, lines=chance.whole(0, 5))
            case "failing":
                return Task(kind=chosen, lines=chance.whole(1, 50), code=chance.whole(1, 255))
            case "signalled":
                return Task(kind=chosen, lines=chance.whole(1, 50), number=chance.pick((6, 9, 11)))
            case "streaming":
                return Task(kind=chosen, lines=chance.whole(20, 120), pause=0.03)
            case "big":
                return Task(kind=chosen, lines=chance.whole(500, 6000), size=1000)
            case "both":
                return Task(kind=chosen, lines=chance.whole(50, 600), both=True, code=7)
            case "stopped":
                after = chance.between(0.0, 3.0)
                stray = chance.odds(0.5)
                return Task(kind=chosen, lines=ENDLESS, pause=0.02, stop_after=after, stray=stray)
            case "deadline":
                return Task(
                    kind=chosen, lines=ENDLESS, pause=0.05, timeout=chance.between(0.3, 3.0)
                )  # fmt: skip

    @property
    def endless(self) -> bool:
        """Whether it must be ended from outside."""
        return self.lines >= ENDLESS

    def request(self, books: str, node: str, name: str) -> RunRequest:
        """Return what is submitted for it."""
        numbers = (
            self.lines, self.size, self.pause, int(self.both), self.code, self.number,
            int(self.stray),
        )  # fmt: skip
        spec = Script(  # noqa: S604 (`shell` is a field of the spec)
            PROGRAM,
            shell="python",
            args=(books, *map(str, numbers)),
            timeout=self.timeout,
            grace=self.grace,
        )
        return RunRequest(spec, nodes=(node,), name=name)

    def written(self, attempt: str, stream: int) -> Iterator[bytes]:
        """Yield what it writes to stdout (0) or stderr (1), line by line."""
        if stream and not self.both:
            return
        pad = b"x" * self.size
        step = 2 if self.both else 1
        for n in range(stream, self.lines, step):
            body = b"%s %08d %s" % (attempt.encode(), n, pad)
            yield b"%s %08x\n" % (body, zlib.crc32(body))


class Book(msgspec.Struct, frozen=True):
    """What really happened, as the task itself wrote it down."""

    starts: int = 0
    ended: bool = False
    code: int | None = None
    sha256: tuple[str, str] = ("", "")
    wrote: tuple[int, int] = (0, 0)

    @staticmethod
    def parse(book: bytes, wrote: bytes) -> Book:
        """Read the two files of an attempt; empty ones are those that are not there."""
        lines = [line.split() for line in book.splitlines()]
        ends = [line for line in lines if line[0] == b"end"]
        first, second = map(int, wrote.split() or (0, 0))
        return Book(
            starts=sum(line[0] == b"start" for line in lines),
            ended=bool(ends),
            code=int(ends[0][1]) if ends else None,
            sha256=(ends[0][2].decode(), ends[0][3].decode()) if ends else ("", ""),
            wrote=(first, second),
        )
