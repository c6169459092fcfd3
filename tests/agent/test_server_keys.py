"""What a node keeps of its server's words: in force at once, and durable as soon as can be."""

from __future__ import annotations

import errno
from pathlib import Path

import msgspec
import pytest
from nacl.signing import SigningKey

from fleetwire.agent import enrol, identity
from fleetwire.agent.identity import Identity
from fleetwire.agent.server_keys import ServerKeys
from fleetwire.core.envelopes import NewKey, SignedKey, key_bytes
from fleetwire.core.stops import SignedWord, StopsWord, word_bytes

KEY, NEXT = SigningKey(b"k" * 32), SigningKey(b"n" * 32)
WORD = SignedWord(StopsWord("c", 1), "k", KEY.sign(word_bytes(StopsWord("c", 1))).signature)
STEP = NewKey("c", "n", bytes(NEXT.verify_key), "k", 1)
CHAIN = [SignedKey(STEP, KEY.sign(key_bytes(STEP)).signature)]


class Disk:
    """Saves, or is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self.saves = 0
        self._save = identity.save
        monkeypatch.setattr(identity, "save", self.save)

    def save(self, state: str, known: Identity) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.saves += 1
        self._save(state, known)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def keys(tmp_path: Path, disk: Disk) -> ServerKeys:  # noqa: ARG001 (what it saves on)
    known = msgspec.structs.replace(
        enrol.new_identity(), node="n1", cluster="c", server_keys={"k": bytes(KEY.verify_key)}
    )
    return ServerKeys(str(tmp_path), known)


def kept(tmp_path: Path) -> Identity:
    found = identity.load(str(tmp_path))
    assert found is not None
    return found


def test_a_word_that_could_not_be_kept_is_kept_at_the_next_one(
    tmp_path: Path, keys: ServerKeys, disk: Disk
) -> None:
    disk.full = True
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            keys.hear_of_stops(WORD)
        assert keys.signs_stops  # in force all the same
    disk.full = False
    keys.hear_of_stops(WORD)
    assert kept(tmp_path).signs_stops
    assert disk.saves == 1
    keys.hear_of_stops(WORD)
    assert disk.saves == 1


def test_a_new_key_that_is_kept_keeps_the_word_too(
    tmp_path: Path, keys: ServerKeys, disk: Disk
) -> None:
    disk.full = True
    with pytest.raises(OSError, match="No space left"):
        keys.hear_of_stops(WORD)
    with pytest.raises(OSError, match="No space left"):
        keys.hear(CHAIN)
    assert list(keys.known) == ["k"]  # a key counts only once it is durable
    disk.full = False
    keys.hear(CHAIN)
    assert list(keys.known) == ["k", "n"]
    assert kept(tmp_path).signs_stops
    keys.hear_of_stops(WORD)
    assert disk.saves == 1


def test_a_word_that_another_key_signed_changes_nothing(keys: ServerKeys, disk: Disk) -> None:
    signature = NEXT.sign(word_bytes(StopsWord("c", 1))).signature
    keys.hear_of_stops(SignedWord(StopsWord("c", 1), "k", signature))
    keys.hear_of_stops(SignedWord(StopsWord("d", 1), "k", WORD.signature))
    assert not keys.signs_stops
    assert disk.saves == 0
