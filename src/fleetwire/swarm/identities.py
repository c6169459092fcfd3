"""Who the simulated agents are: made once, kept in a folder, used again by the next start.

`{state}/swarm.jsonl`, readable by nobody else: first a line for the swarm, then one for each
agent that has enrolled. A crash costs at most the agents whose answer was not written yet: their
numbers are left out, and others are taken.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

import msgspec

from fleetwire.swarm.errors import SwarmError

FILE: Final = "swarm.jsonl"


class Header(msgspec.Struct, frozen=True, tag="swarm", tag_field="k"):
    """The swarm: its agents are called `{prefix}-{number}`."""

    cluster: str
    prefix: str


class Identity(msgspec.Struct, frozen=True, tag="agent", tag_field="k"):
    """One agent: its place in the cluster and the seed of its signing key."""

    number: int
    name: str
    node: str
    seed: bytes


_decoder: Final = msgspec.json.Decoder(Header | Identity)
_encode: Final = msgspec.json.Encoder().encode


class Registry:
    """The identities in one folder. A context manager: it holds the folder's lock."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._descriptor = -1
        self.header: Header | None = None
        self.prefix = f"swarm-{secrets.token_hex(2)}"
        self.agents: list[Identity] = []

    def __enter__(self) -> Self:
        folder = self._path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(
                self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
            )
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise SwarmError(
                f"Another swarm uses {folder}.", hint="End it, or name another with --state DIR."
            ) from None
        except OSError as error:
            raise SwarmError(
                f"The folder {folder} cannot be used: {error.strerror}.",
                hint="Name another with --state DIR.",
            ) from error
        for line in self._lines():
            self._take(line)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def found(self, cluster: str) -> None:
        """Bind the folder to a cluster, or raise where it belongs to another."""
        if self.header is None:
            self._append(Header(cluster, self.prefix))
        elif self.header.cluster != cluster:
            raise SwarmError(
                f"The agents in {self._path} are of another server's cluster.",
                hint="Name another folder with --state DIR.",
            )

    def add(self, agent: Identity) -> None:
        """Keep an agent that has enrolled."""
        self._append(agent)

    def _append(self, line: Header | Identity) -> None:
        os.write(self._descriptor, _encode(line) + b"\n")
        self._take(line)

    def _take(self, line: Header | Identity) -> None:
        if isinstance(line, Header):
            self.header, self.prefix = line, line.prefix
        else:
            self.agents.append(line)

    def _lines(self) -> Iterator[Header | Identity]:
        whole, _, torn = self._path.read_bytes().rpartition(b"\n")
        if torn:  # a crash in the middle of a line: the next one begins a line of its own
            os.ftruncate(self._descriptor, len(whole) + 1 if whole else 0)
        for number, text in enumerate(whole.splitlines(), 1):
            try:
                yield _decoder.decode(text)
            except msgspec.DecodeError as error:
                raise SwarmError(
                    f"{self._path}, line {number}, is no agent of a swarm: {error}.",
                    hint="Remove the file, or name another folder with --state DIR.",
                ) from error
