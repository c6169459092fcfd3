"""The audit part of the REST API: entries, chains, and what they are verified by.

A chain is verified here, from the entries themselves: the server's word that all is well would
be worth nothing. An export is the same as JSON lines, and needs no server.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from fleetwire.client.asking import BASE, Asking
from fleetwire.client.errors import BadAnswer
from fleetwire.core import audit
from fleetwire.core.audit import Head, Sealed, SignedCheckpoint, Verdict, trusted
from fleetwire.core.envelopes import NewKey, SignedKey
from fleetwire.core.errors import FleetwireError

FORMAT: Final = 1
PAGE: Final = 500
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND: Final = dt.timedelta(microseconds=1)


class Actor(msgspec.Struct):
    """Who did something."""

    kind: str
    id: str = ""
    name: str = ""
    via: str = ""


class Target(msgspec.Struct):
    """What something was done to."""

    kind: str = ""
    id: str = ""
    name: str = ""


class AuditEntry(msgspec.Struct):
    """One entry; `hash` (hex) is told only of chains, `project` (a name) only in lists."""

    number: int
    at: str
    action: str
    actor: Actor
    address: str = ""
    target: Target = msgspec.field(default_factory=Target)
    outcome: str = "done"
    code: str = ""
    detail: dict[str, str] = {}
    hash: str = ""
    chain: str = ""
    project: str | None = None


class AuditCheckpoint(msgspec.Struct):
    """A signed checkpoint; `key` and `signature` are base64."""

    number: int
    hash: str
    at: str
    key: str
    signature: str
    cut: bool = False
    key_id: str = ""


class Rotation(msgspec.Struct):
    """A signing key with the word of the one before it, in base64."""

    id: str
    key: str
    signed_by: str
    issued_at: str
    signature: str


class AuditHead(msgspec.Struct):
    """The last entry of a chain."""

    number: int
    hash: str


class Beginning(msgspec.Struct):
    """What an export begins with: of which chain it is, and the keys that its server tells."""

    fleetwire_audit: int
    cluster: str
    chain: str
    key: str
    rotations: list[Rotation]
    project: str | None = None


class AuditChain(msgspec.Struct):
    """A stretch of a chain."""

    cluster: str
    chain: str
    head: AuditHead
    key: str
    rotations: list[Rotation]
    entries: list[AuditEntry]
    checkpoints: list[AuditCheckpoint]

    @property
    def beginning(self) -> Beginning:
        """What an export of it begins with."""
        return Beginning(FORMAT, self.cluster, self.chain, self.key, self.rotations)


class Line(msgspec.Struct, omit_defaults=True):
    """Any further line of an export: exactly one of these."""

    entry: AuditEntry | None = None
    checkpoint: AuditCheckpoint | None = None
    end: AuditHead | None = None


class BadExport(FleetwireError):
    """A file is no export of an audit."""

    code = "bad-export"


class Verified(NamedTuple):
    """What was found of a chain. `key` is the public key (base64) that was trusted; `is_given`:
    by who asked, else because the server or the file says so itself.
    """

    chain: str
    verdict: Verdict
    key: str
    is_given: bool

    @property
    def is_good(self) -> bool:
        """Whether nothing is broken, and what there is may be believed."""
        return self.verdict.is_good and not self.is_strange

    @property
    def is_strange(self) -> bool:
        """Whether a key was given and nothing of the entries is signed by it, or by one that it
        vouches for: anybody can make up a chain that is whole in itself.
        """
        return self.is_given and self.verdict.entries > 0 and not self.verdict.signed

    @property
    def signed_at(self) -> str | None:
        """When the last signed entry was signed (RFC 3339); None where nothing is."""
        if not self.verdict.signed:
            return None
        at = _EPOCH + dt.timedelta(microseconds=self.verdict.signed_at)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Audit(Asking):
    """The audit of the server that a client talks to; apart from the client, because most of its
    users need none of it. Of a project, or of the whole system where `system` is true.
    """

    def __init__(self, client: Asking) -> None:
        self.connection = client.connection

    def entries(
        self, *, system: bool = False, query: dict[str, object] | None = None
    ) -> Iterator[AuditEntry]:
        """Yield entries, newest first."""
        return self._items(self._path(system=system), AuditEntry, query)

    def chain(
        self,
        *,
        project: str | None = None,
        system: bool = False,
        after: int = 0,
        limit: int = PAGE,
    ) -> AuditChain:
        """Return the entries of a chain behind this number."""
        query: dict[str, object] = {"after": after, "limit": limit}
        if not system:
            query["project"] = project
        return self._get(f"{self._path(system=system)}/chain", AuditChain, query)

    def verify(
        self,
        *,
        project: str | None = None,
        system: bool = False,
        key: bytes | None = None,
        known: Iterable[Head] = (),
    ) -> Verified:
        """Verify a chain, from its first entry to its last. `key` is the public key to trust,
        `known` what was seen of it before.
        """
        first = self.chain(project=project, system=system)
        seen = [*known, Head(first.head.number, unhex(first.head.hash))]
        entries = (read_entry(one) for one in self._chain_entries(first, project, system=system))
        return check(first.beginning, entries, first.checkpoints, key=key, known=seen)

    def export(self, *, project: str | None = None, system: bool = False) -> Iterator[bytes]:
        """Yield the lines of an export of a chain."""
        first = self.chain(project=project, system=system)
        beginning = first.beginning
        beginning.project = project
        yield _encode(beginning) + b"\n"
        for one in self._chain_entries(first, project, system=system):
            yield _encode(Line(entry=one)) + b"\n"
        for checkpoint in first.checkpoints:
            yield _encode(Line(checkpoint=checkpoint)) + b"\n"
        yield _encode(Line(end=first.head)) + b"\n"

    def _chain_entries(
        self, page: AuditChain, project: str | None, *, system: bool
    ) -> Iterator[AuditEntry]:
        """Yield the entries up to the head that the first page has told of: what is added
        meanwhile is for the next time.
        """
        last = page.head.number
        while page.entries:
            for one in page.entries:
                if one.number <= last:
                    yield one
            after = page.entries[-1].number
            if after >= last:
                return
            page = self.chain(project=project, system=system, after=after)

    @staticmethod
    def _path(*, system: bool) -> str:
        return f"{BASE}/system/audit" if system else f"{BASE}/audit"


class Export:
    """An export in a file, read line by line as often as needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.checkpoints: list[AuditCheckpoint] = []
        self.end: AuditHead | None = None
        lines = self._lines()
        first = next(lines, b"")
        try:
            self.beginning = msgspec.json.decode(first, type=Beginning)
        except msgspec.MsgspecError as error:
            raise self._bad(1, str(error)) from None
        if self.beginning.fleetwire_audit != FORMAT:
            raise self._bad(1, "its format is of a newer version")
        for line in self._rest():
            if line.checkpoint is not None:
                self.checkpoints.append(line.checkpoint)
            self.end = line.end or self.end

    def verify(self, *, key: bytes | None = None, known: Iterable[Head] = ()) -> Verified:
        """Verify it. `key` is the public key to trust, else the file's own."""
        seen = list(known)
        if self.end is not None:
            seen.append(Head(self.end.number, unhex(self.end.hash)))
        entries = (read_entry(one.entry) for one in self._rest() if one.entry is not None)
        return check(self.beginning, entries, self.checkpoints, key=key, known=seen)

    @property
    def is_whole(self) -> bool:
        """Whether it was written to its end."""
        return self.end is not None

    def heads(self) -> list[Head]:
        """Return the entries that it knows, without those in between."""
        found = [Head(one.number, unhex(one.hash)) for one in self.checkpoints]
        if self.end is not None:
            found.append(Head(self.end.number, unhex(self.end.hash)))
        return found

    def _rest(self) -> Iterator[Line]:
        lines = self._lines()
        next(lines, None)
        for number, line in enumerate(lines, 2):
            if self.end is not None and not line.strip():
                continue
            try:
                yield _line.decode(line)
            except msgspec.MsgspecError as error:
                raise self._bad(number, str(error)) from None

    def _lines(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as file:
                yield from file
        except OSError as error:
            raise BadExport(
                f"{self._path} cannot be read: {error.strerror}.", hint="Name another file."
            ) from error

    def _bad(self, number: int, why: str) -> BadExport:
        return BadExport(
            f"{self._path} is no export of an audit: line {number}: {why}.",
            hint="Name a file that `fleetwire audit export` wrote.",
        )


def check(
    beginning: Beginning,
    entries: Iterable[Sealed],
    checkpoints: Sequence[AuditCheckpoint],
    *,
    key: bytes | None,
    known: Iterable[Head],
) -> Verified:
    """Verify a chain. Without a key those are trusted that come with it: then it is whole in
    itself, and who made it is another question.
    """
    signed = [_checkpoint(one, beginning) for one in checkpoints]
    own = {_unbase64(beginning.key), *(one.checkpoint.key for one in signed)}
    verdict = audit.verify(
        entries,
        signed,
        cluster=beginning.cluster,
        chain=beginning.chain,
        keys=trusted(
            own if key is None else [key],
            [_rotation(one, beginning.cluster) for one in beginning.rotations],
            cluster=beginning.cluster,
            verifies=verifies,
        ),
        verifies=verifies,
        known=known,
    )
    shown = beginning.key if key is None else base64.b64encode(key).decode("ascii")
    return Verified(beginning.chain, verdict, shown, key is not None)


def verifies(key: bytes, data: bytes, signature: bytes) -> bool:
    """Say whether an Ed25519 signature is of this key over these bytes."""
    from nacl.exceptions import CryptoError  # noqa: PLC0415 - only who verifies pays for it
    from nacl.signing import VerifyKey  # noqa: PLC0415 - as above

    try:
        VerifyKey(key).verify(data, signature)
    except (CryptoError, ValueError):
        return False
    return True


def read_key(text: str) -> bytes:
    """Return a public key from base64. Raises BadExport."""
    key = _unbase64(text.strip())
    if len(key) != audit.HASH_BYTES:
        raise BadExport("That is no public key.", hint="It is 32 bytes, in base64.", field="key")
    return key


def read_entry(one: AuditEntry) -> Sealed:
    """Return an entry of the API, or of an export, as the core's."""
    entry = audit.Entry(
        number=one.number,
        at=_microseconds(one.at),
        action=one.action,
        actor_kind=one.actor.kind,
        actor=one.actor.id,
        actor_name=one.actor.name,
        via=one.actor.via,
        address=one.address,
        target_kind=one.target.kind,
        target=one.target.id,
        target_name=one.target.name,
        outcome=one.outcome,
        code=one.code,
        detail=one.detail,
    )
    return Sealed(entry, unhex(one.hash))


def unhex(text: str) -> bytes:
    """Return the bytes of hex; none where it is not."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _checkpoint(one: AuditCheckpoint, beginning: Beginning) -> SignedCheckpoint:
    said = audit.Checkpoint(
        beginning.cluster,
        beginning.chain,
        one.number,
        one.hash,
        _microseconds(one.at),
        _unbase64(one.key),
        one.cut,
    )
    return SignedCheckpoint(said, _unbase64(one.signature))


def _rotation(one: Rotation, cluster: str) -> SignedKey:
    new = NewKey(cluster, one.id, _unbase64(one.key), one.signed_by, _microseconds(one.issued_at))
    return SignedKey(new, _unbase64(one.signature))


def _microseconds(text: str) -> int:
    try:
        return (dt.datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND
    except (ValueError, TypeError) as error:
        raise BadAnswer(f"{text[:40]!r} is no time.", hint="Is the server newer?") from error


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _encode(value: Any) -> bytes:  # noqa: ANN401 - a struct of this module
    return msgspec.json.encode(value)


_line = msgspec.json.Decoder(Line)
