"""The audit: who did what, when, from where, on what, and with which outcome (P25).

Each project has a chain of entries, and the whole system has one. An entry's hash is

    SHA-256(hash of the entry before it || canonical bytes of the entry)

and the first one follows the chain's `genesis`, which names cluster and chain. So nothing in a
chain can be changed, removed, doubled or moved without its hashes saying so, unless everything
behind is made anew; and that a checkpoint says, which is signed with the server's key. What is
behind the last checkpoint that somebody else has is as trustworthy as the server's database.

Canonical bytes are a domain line and JSON with sorted keys. A field that a later version adds is
to be left out of them where it says nothing: then old hashes still fit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

import msgspec

from fleetwire.core import limits
from fleetwire.core.envelopes import SignedKey, key_bytes
from fleetwire.core.visible import one_line

SYSTEM: Final = "system"
"""The chain of what belongs to no project; the others are called by their project's id."""

ENTRY_DOMAIN: Final = b"fleetwire audit entry 1\n"
CHAIN_DOMAIN: Final = b"fleetwire audit chain 1\n"
CHECKPOINT_DOMAIN: Final = b"fleetwire audit checkpoint 1\n"
HASH_BYTES: Final = 32

Action: TypeAlias = Literal[
    "run.create",
    "run.stop",
    "node.enrol",
    "node.change",
    "node.approve",
    "node.release",
    "node.delete",
    "node.quarantine",
    "node.refuse",
    "node.foreign-ids",
    "enrolment-token.create",
    "enrolment-token.delete",
    "secret.set",
    "secret.delete",
    "secret.use",
    "role.set",
    "project.create",
    "project.delete",
    "user.create",
    "user.change",
    "user.password",
    "user.totp-end",
    "login",
    "logout",
    "session.end",
    "password.change",
    "totp.begin",
    "totp.confirm",
    "totp.end",
    "token.create",
    "token.delete",
    "breaker.close",
    "server.restore",
    "server.signing-key",
    "server.master-key",
    "server.forget-secrets",
    "audit.cut",
    "read",
]
"""What can be done. `read` is there only as a refusal: what was not shown."""

ACTIONS: Final[frozenset[str]] = frozenset(get_args(Action))
Fault: TypeAlias = Literal[
    "changed", "removed", "moved", "inserted", "truncated", "rewritten", "forged"
]
ActorKind: TypeAlias = Literal["user", "node", "server", "stranger"]
Outcome: TypeAlias = Literal["done", "refused"]

_sorted = msgspec.json.Encoder(order="sorted").encode


class Origin(msgspec.Struct, frozen=True):
    """Who does something, and from where. `id` and `name` are the user's or the node's, `via` is
    `cookie`, `token:ID`, `link` or `shell`, `address` a network address; "" where there is none.
    """

    kind: ActorKind
    id: str = ""
    name: str = ""
    via: str = ""
    address: str = ""


SERVER: Final = Origin("server")
"""What the server does by itself."""


class Target(msgspec.Struct, frozen=True):
    """What something was done to, such as Target("node", its id, its name)."""

    kind: str = ""
    id: str = ""
    name: str = ""


NOTHING: Final = Target()


class Act(msgspec.Struct, frozen=True):
    """Something that was done or refused, before it has its place in a chain. `code` is why it was
    refused; `detail` what else is worth knowing, and never a secret: no value, token, password,
    argument or environment.
    """

    action: Action
    by: Origin
    chain: str = SYSTEM
    target: Target = NOTHING
    outcome: Outcome = "done"
    code: str = ""
    detail: Mapping[str, str] = {}


class Entry(msgspec.Struct, frozen=True):
    """One entry of a chain: its number, from 1, and an `Act`. `at` is microseconds since 1970.

    New fields only at the end and with a default, which must not be among the canonical bytes (by
    value: `omit_defaults` of msgspec goes by identity).
    """

    number: int
    at: int
    action: str
    actor_kind: str
    actor: str = ""
    actor_name: str = ""
    via: str = ""
    address: str = ""
    target_kind: str = ""
    target: str = ""
    target_name: str = ""
    outcome: str = "done"
    code: str = ""
    detail: dict[str, str] = {}


class Sealed(NamedTuple):
    """An entry and its hash (32 bytes)."""

    entry: Entry
    hash: bytes


class Head(NamedTuple):
    """The last entry of a chain: its number, 0 before the first, and its hash."""

    number: int
    hash: bytes


class Checkpoint(msgspec.Struct, frozen=True):
    """What the server's key says of a chain: that the entry of this number has this hash (hex).
    With `cut` the server itself has deleted what was before, as its settings say, up to this
    entry. `key` is the public key that signs, 32 bytes.
    """

    cluster: str
    chain: str
    number: int
    hash: str
    at: int
    key: bytes
    cut: bool = False


class SignedCheckpoint(msgspec.Struct, frozen=True):
    """A checkpoint with its Ed25519 signature, 64 bytes."""

    checkpoint: Checkpoint
    signature: bytes


def genesis(cluster: str, chain: str) -> bytes:
    """Return what the first entry of a chain follows."""
    return hashlib.sha256(CHAIN_DOMAIN + _sorted([cluster, chain])).digest()


def canonical(entry: Entry) -> bytes:
    """Return the bytes of an entry that its hash is made of."""
    return ENTRY_DOMAIN + _sorted(entry)


def hash_of(previous: bytes, entry: Entry) -> bytes:
    """Return the hash of an entry that follows the one with the hash `previous`."""
    return hashlib.sha256(previous + canonical(entry)).digest()


def entry_of(act: Act, *, number: int, at: int) -> Entry:
    """Return an act as an entry, its text such as may be stored and shown."""
    by, target = act.by, act.target
    return Entry(
        number=number,
        at=at,
        action=act.action,
        actor_kind=by.kind,
        actor=_text(by.id),
        actor_name=_text(by.name),
        via=_text(by.via),
        address=_text(by.address),
        target_kind=target.kind,
        target=_text(target.id),
        target_name=_text(target.name),
        outcome=act.outcome,
        code=_text(act.code),
        detail={key: _text(text, limits.AUDIT_TEXT_CHARS) for key, text in act.detail.items()},
    )


def follow(head: Head, acts: Sequence[Act], *, at: int) -> list[Sealed]:
    """Return acts as the entries that follow a chain's head, in their order."""
    made = []
    number, previous = head
    for act in acts:
        number += 1
        entry = entry_of(act, number=number, at=at)
        previous = hash_of(previous, entry)
        made.append(Sealed(entry, previous))
    return made


def checkpoint_bytes(checkpoint: Checkpoint) -> bytes:
    """Return the bytes that the server's key signs."""
    return CHECKPOINT_DOMAIN + _sorted(checkpoint)


def key_id(key: bytes) -> str:
    """Return what a public key is called."""
    return hashlib.sha256(key).hexdigest()[:16]


def trusted(
    given: Iterable[bytes],
    rotations: Sequence[SignedKey],
    *,
    cluster: str,
    verifies: Callable[[bytes, bytes, bytes], bool],
) -> frozenset[bytes]:
    """Return the public keys that are vouched for, by one another, from those that are given.
    `verifies` takes a key, bytes and a signature; `rotations` are oldest first.
    """
    keys = {key_id(key): key for key in given}
    for one in rotations:
        old = keys.get(one.new.signed_by)
        is_sound = key_id(one.new.key) == one.new.id and one.new.cluster == cluster
        if old is not None and is_sound and verifies(old, key_bytes(one.new), one.signature):
            keys[one.new.id] = one.new.key
    return frozenset(keys.values())


class Broken(NamedTuple):
    """The first place where a chain does not hold: the number of its entry, and what is wrong.

    `changed`: it does not follow from the one before: it or that one is not what it was;
    `removed`: it, up to `last`, is not there; `moved`: it stands further behind;
    `inserted`: there is one of this number already; `truncated`: it, up to `last`, is gone from
    the end; `rewritten`: all fits together, and is not what was signed (somewhere up to `last`);
    `forged`: a checkpoint is not signed by the key it names, or is of another chain.
    """

    number: int
    what: Fault
    text: str
    last: int = 0


class Verdict(NamedTuple):
    """What verification found. `first` and `last` are the numbers of the entries there are (0
    where there are none), `head` the last one's hash, `signed` the number of the last entry that a
    checkpoint with a trusted key covers, `signed_at` when; `strange` counts checkpoints whose key
    nobody vouches for: they say nothing.
    """

    broken: Broken | None
    entries: int
    first: int
    head: Head
    signed: int
    signed_at: int
    strange: int

    @property
    def is_good(self) -> bool:
        """Whether nothing is broken."""
        return self.broken is None


def verify(  # each argument is one thing that is compared
    entries: Iterable[Sealed],
    checkpoints: Iterable[SignedCheckpoint],
    *,
    cluster: str,
    chain: str,
    keys: frozenset[bytes],
    verifies: Callable[[bytes, bytes, bytes], bool],
    known: Iterable[Head] = (),
) -> Verdict:
    """Verify a chain from its first entry to its last; say where it breaks first.

    `keys` are the public keys that are trusted (see `trusted`), `verifies` takes a key, bytes and
    a signature. `known` are entries that somebody has seen before and can vouch for, as a
    checkpoint does. Holds no more than the checkpoints in memory, and up to the first break each
    entry only once.
    """
    check = _Check(cluster, chain)
    check.take_checkpoints(checkpoints, keys, verifies)
    check.take_known(known)
    rest = iter(entries)
    for sealed in rest:
        if not check.take(sealed):
            check.look_further(rest)
            break
    else:
        check.end()
    return check.verdict()


class _Mark(NamedTuple):
    """What is known of an entry from outside of the chain."""

    hash: bytes
    at: int
    is_signed: bool


class _Check:
    """One verification under way."""

    def __init__(self, cluster: str, chain: str) -> None:
        self._cluster = cluster
        self._chain = chain
        self._previous = genesis(cluster, chain)
        self._number = 0
        self._first = 0
        self._count = 0
        # All that is known of an entry has to agree with it: none of it stands in for another.
        self._marks: dict[int, list[_Mark]] = {}
        self._cuts: dict[int, bytes] = {}
        self._signed = self._signed_at = self._strange = 0
        self._marked = 0  # the last entry that something from outside agrees with
        self._seen = 0  # the last one that agrees with what was seen before
        self._broken: Broken | None = None

    def take_checkpoints(
        self,
        checkpoints: Iterable[SignedCheckpoint],
        keys: frozenset[bytes],
        verifies: Callable[[bytes, bytes, bytes], bool],
    ) -> None:
        """Check the signatures; what is forged breaks the chain unless something else does so
        before.
        """
        for one in checkpoints:
            said = one.checkpoint
            if said.key not in keys:
                self._strange += 1
                continue
            is_signed = verifies(said.key, checkpoint_bytes(said), one.signature)
            is_ours = (said.cluster, said.chain) == (self._cluster, self._chain)
            hash_ = _hash(said.hash)
            if not (is_signed and is_ours) or hash_ is None:
                what = "is not signed by the key it names" if is_ours else "is of another chain"
                self._break(said.number, "forged", f"the checkpoint at {said.number} {what}")
                continue
            if said.cut:
                self._cuts[said.number] = hash_
            self._mark(said.number, _Mark(hash_, said.at, is_signed=True))

    def take_known(self, known: Iterable[Head]) -> None:
        for number, hash_ in known:
            if number:
                self._mark(number, _Mark(hash_, 0, is_signed=False))

    def _mark(self, number: int, mark: _Mark) -> None:
        self._marks.setdefault(number, []).append(mark)

    def take(self, sealed: Sealed) -> bool:
        """Take the next entry; say whether it follows."""
        number, said = sealed.entry.number, sealed.hash
        begins = not self._count and number > 1 and number - 1 in self._cuts
        if begins and not self._begin_behind(number - 1):
            return False
        expected = self._number + 1
        if number > expected:
            text = f"entries {expected} to {number - 1} are not there"
            self._break(expected, "removed", text, number - 1)
            return False
        if number < expected:
            text = f"there are two entries {number}, or it stands in the wrong place"
            self._break(number, "inserted", text)
            return False
        if hash_of(self._previous, sealed.entry) != said:
            text = f"entry {number} is not what it was when it was written, or the one before it"
            self._break(number, "changed", text)
            return False
        self._previous = said
        self._number = number
        self._first = self._first or number
        self._count += 1
        return self._compare(number)

    def _begin_behind(self, cut: int) -> bool:
        """Take the entry of this number, which was deleted, from its checkpoint."""
        self._previous, self._number = self._cuts[cut], cut
        if not self._agrees(cut):
            return False
        self._marked = cut
        return True

    def _compare(self, number: int) -> bool:
        if number not in self._marks:
            return True
        if not self._agrees(number):
            return False
        self._marked = number
        for mark in self._marks[number]:
            if mark.is_signed:
                self._signed, self._signed_at = number, mark.at
            else:
                self._seen = number
        return True

    def _agrees(self, number: int) -> bool:
        """Whether the entry of this number is the one of all its marks."""
        for mark in self._marks.get(number, ()):
            if mark.hash != self._previous:
                # A signature says nothing of what was seen: the key may have signed both.
                since = (self._marked if mark.is_signed else self._seen) + 1
                who = "signed" if mark.is_signed else "seen before"
                text = f"entries {since} to {number} are not those that were {who}"
                self._break(since, "rewritten", text, number)
                return False
        return True

    def look_further(self, rest: Iterable[Sealed]) -> None:
        """Tell an entry that was moved from one that was removed."""
        broken = self._broken
        if broken is None or broken.what != "removed":
            return
        if any(sealed.entry.number == broken.number for sealed in rest):
            self._broken = Broken(
                broken.number, "moved", f"entry {broken.number} stands in the wrong place"
            )

    def end(self) -> None:
        """There is no further entry: no checkpoint may know of one."""
        if not self._count and self._cuts and not self._begin_behind(max(self._cuts)):
            return
        further = max(self._marks, default=0)
        if further > self._number:
            first = self._number + 1
            text = f"entries {first} to {further} are gone from the end"
            self._break(first, "truncated", text, further)

    def verdict(self) -> Verdict:
        return Verdict(
            self._broken,
            self._count,
            self._first,
            Head(self._number, self._previous),
            self._signed,
            self._signed_at,
            self._strange,
        )

    def _break(
        self,
        number: int,
        what: Fault,
        text: str,
        last: int = 0,
    ) -> None:
        if self._broken is None or number < self._broken.number:
            self._broken = Broken(number, what, text, last)


def _hash(text: str) -> bytes | None:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        return None
    return found if len(found) == HASH_BYTES else None


def _text(text: str, most: int = limits.AUDIT_NAME_CHARS) -> str:
    # What can be printed is visible already: most texts are, and a run has ten of them.
    return text if text.isprintable() and len(text) <= most else one_line(text, most)
