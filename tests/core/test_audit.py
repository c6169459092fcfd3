from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from fleetwire.client.audit import verifies
from fleetwire.core import limits
from fleetwire.core.audit import (
    HASH_BYTES,
    SERVER,
    Act,
    Checkpoint,
    Entry,
    Head,
    Origin,
    Sealed,
    SignedCheckpoint,
    Target,
    Verdict,
    canonical,
    checkpoint_bytes,
    entry_of,
    follow,
    genesis,
    hash_of,
    key_id,
    trusted,
    verify,
)
from fleetwire.core.envelopes import NewKey, SignedKey, key_bytes

KEY = SigningKey(b"k" * 32)
PUBLIC = bytes(KEY.verify_key)
OTHER = SigningKey(b"o" * 32)
USER = Origin("user", "u1", "anna", "cookie", "192.0.2.1")

texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
acts = st.builds(
    Act,
    action=st.sampled_from(["run.create", "login", "secret.use"]),
    by=st.builds(Origin, st.sampled_from(["user", "node", "server"]), texts, texts, texts, texts),
    target=st.builds(Target, st.sampled_from(["", "node", "run"]), texts, texts),
    outcome=st.sampled_from(["done", "refused"]),
    code=texts,
    detail=st.dictionaries(texts, texts, max_size=3),
)


def chain(count: int, *, begin: int = 0) -> list[Sealed]:
    head = Head(begin, genesis("c", "p"))
    made = [Act("run.create", USER, "p", Target("run", f"r{n}")) for n in range(count)]
    return follow(head, made, at=1_000)


def signed(head: Head, *, by: SigningKey = KEY, **changed: Any) -> SignedCheckpoint:
    said = Checkpoint("c", "p", head.number, head.hash.hex(), 5_000, bytes(by.verify_key))
    said = msgspec.structs.replace(said, **changed)
    return SignedCheckpoint(said, by.sign(checkpoint_bytes(said)).signature)


def head(one: Sealed) -> Head:
    return Head(one.entry.number, one.hash)


def look(
    entries: list[Sealed], *checkpoints: SignedCheckpoint, known: tuple[Head, ...] = ()
) -> Verdict:
    return verify(
        iter(entries),
        checkpoints,
        cluster="c",
        chain="p",
        keys=frozenset({PUBLIC}),
        verifies=verifies,
        known=known,
    )


def made_anew(old: list[Sealed], place: int) -> list[Sealed]:
    """The chain with other entries from a place on, whole in itself."""
    before = Head(place, old[place - 1].hash if place else genesis("c", "p"))
    others = [Act("login", SERVER, "p")] * (len(old) - place)
    return [*old[:place], *follow(before, others, at=1_000)]


def broken(verdict: Verdict) -> tuple[int, str]:
    assert verdict.broken is not None
    assert not verdict.is_good
    return verdict.broken.number, verdict.broken.what


@given(st.lists(acts, max_size=8), st.integers(0, 8))
def test_what_was_written_in_several_commits_is_one_whole_chain(made: list[Act], cut: int) -> None:
    first = follow(Head(0, genesis("c", "p")), made[:cut], at=1)
    at = head(first[-1]) if first else Head(0, genesis("c", "p"))
    entries = first + follow(at, made[cut:], at=2)
    last = (signed(head(entries[-1])),) if entries else ()
    verdict = look(entries, *last)
    assert verdict.is_good
    assert verdict.entries == verdict.head.number == verdict.signed == len(made)


@given(acts, st.integers(1, 2**53), st.integers(0, 2**53))
def test_an_entry_that_was_stored_and_read_has_the_same_bytes(
    act: Act, number: int, at: int
) -> None:
    entry = entry_of(act, number=number, at=at)
    text = msgspec.json.encode(entry)
    again = msgspec.json.decode(text, type=Entry)
    assert canonical(again) == canonical(entry)
    assert hash_of(b"x" * 32, again) == hash_of(b"x" * 32, entry)


def test_the_canonical_bytes_are_those_of_the_first_release() -> None:
    entry = entry_of(
        Act("run.stop", USER, "p", Target("run", "r1"), detail={"b": "2", "a": "1"}),
        number=7,
        at=1_700_000_000_000_000,
    )
    assert canonical(entry) == (
        b"fleetwire audit entry 1\n"
        b'{"action":"run.stop","actor":"u1","actor_kind":"user","actor_name":"anna",'
        b'"address":"192.0.2.1","at":1700000000000000,"code":"","detail":{"a":"1","b":"2"},'
        b'"number":7,"outcome":"done","target":"r1","target_kind":"run","target_name":"",'
        b'"via":"cookie"}'
    )
    assert genesis("c", "p") != genesis("c", "q") != genesis("d", "p")
    assert len(genesis("c", "p")) == HASH_BYTES


FIELDS = [name for name in Entry.__struct_fields__ if name != "number"]


@given(st.integers(0, 9), st.sampled_from(FIELDS))
def test_a_changed_entry_is_found_whatever_was_changed(place: int, field: str) -> None:
    entries = chain(10)
    entry = entries[place].entry
    other: Any = {"x": "y"} if field == "detail" else 7 if field == "at" else "forged"
    changed = msgspec.structs.replace(entry, **{field: other})
    entries[place] = entries[place]._replace(entry=changed)
    assert broken(look(entries)) == (place + 1, "changed")


@given(st.integers(0, 8))
def test_a_changed_entry_with_a_hash_of_its_own_is_found_at_the_next(place: int) -> None:
    entries = chain(10)
    before = entries[place - 1].hash if place else genesis("c", "p")
    entry = msgspec.structs.replace(entries[place].entry, actor="somebody else")
    entries[place] = Sealed(entry, hash_of(before, entry))
    assert broken(look(entries)) == (place + 2, "changed")


@given(st.integers(0, 9), st.integers(1, 9))
def test_removed_entries_are_named(place: int, count: int) -> None:
    entries = chain(20)
    del entries[place : place + count]
    verdict = look(entries)
    assert broken(verdict) == (place + 1, "removed")
    assert verdict.broken is not None
    assert verdict.broken.last == place + count


@given(st.integers(0, 8), st.integers(1, 9))
def test_a_moved_entry_is_told_from_a_removed_one(place: int, further: int) -> None:
    entries = chain(20)
    entries.insert(place + further, entries.pop(place))
    assert broken(look(entries)) == (place + 1, "moved")


@given(st.integers(1, 9))
def test_an_inserted_entry_is_found(place: int) -> None:
    entries = chain(10)
    entry = msgspec.structs.replace(entries[place - 1].entry, number=place + 1, actor="forger")
    entries.insert(place, Sealed(entry, hash_of(entries[place - 1].hash, entry)))
    assert broken(look(entries)) == (place + 1, "inserted")


@given(st.integers(0, 9), st.integers(0, 9))
def test_a_cut_end_is_found_by_a_checkpoint(left: int, at: int) -> None:
    entries = chain(10)
    verdict = look(entries[:left], signed(head(entries[at])))
    if at < left:
        assert verdict.is_good
        assert verdict.signed == at + 1
    else:
        assert broken(verdict) == (left + 1, "truncated")
        assert verdict.broken is not None
        assert verdict.broken.last == at + 1


@given(st.integers(0, 9), st.integers(0, 9))
def test_what_was_made_anew_from_some_place_on_is_found_by_a_checkpoint(
    place: int, at: int
) -> None:
    """Whoever has the database and not the key can make a chain that is whole in itself."""
    entries = chain(10)
    marks = [signed(head(entries[at])), signed(head(entries[4]))]
    verdict = look(made_anew(entries, place), *marks)
    covered = {one for one in (at, 4) if one >= place}
    if not covered:
        assert verdict.is_good
        return
    number, what = broken(verdict)
    assert what == "rewritten"
    assert verdict.broken is not None
    assert number <= place + 1 <= verdict.broken.last == min(covered) + 1


def test_what_somebody_has_seen_before_counts_as_a_checkpoint_does() -> None:
    entries = chain(10)
    seen = head(entries[7])
    assert look(entries, known=(seen,)).is_good
    assert broken(look(entries[:5], known=(seen,))) == (6, "truncated")
    assert broken(look(made_anew(entries, 5), known=(seen,))) == (1, "rewritten")


@given(
    st.integers(0, 10),
    st.integers(0, 9),
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=4),
)
def test_what_was_seen_before_is_compared_whatever_checkpoints_say(
    place: int, at: int, signs: list[tuple[int, bool]]
) -> None:
    """The key signs the chain that was made anew, too: who saw the old one still knows better."""
    old = chain(10)
    new = made_anew(old, place)
    marks = [signed(head((new if is_new else old)[number])) for number, is_new in signs]
    verdict = look(new, *marks, known=(head(old[at]),))
    wrong = {number for number, is_new in [(at, False), *signs] if number >= place and not is_new}
    if not wrong:
        assert verdict.is_good
        return
    number, what = broken(verdict)
    assert what == "rewritten"
    assert verdict.broken is not None
    assert number <= verdict.broken.last == min(wrong) + 1
    if "seen before" in verdict.broken.text or not any(is_new for _, is_new in signs):
        assert number <= place + 1


@pytest.mark.parametrize("first", [0, 1])
def test_two_checkpoints_that_contradict_each_other_are_not_both_kept(first: int) -> None:
    entries = chain(5)
    marks = [signed(head(entries[3])), signed(Head(4, b"x" * 32))]
    assert broken(look(entries, marks[first], marks[1 - first])) == (1, "rewritten")


@pytest.mark.parametrize("left", [0, 4])
def test_what_was_seen_where_retention_has_cut_is_compared_with_the_cut(left: int) -> None:
    entries = chain(10)
    rest, cut = entries[10 - left :], head(entries[9 - left])
    verdict = look(rest, signed(cut, cut=True), known=(cut,))
    assert verdict.is_good
    assert verdict.head == head(entries[9])
    other = Head(cut.number, b"x" * 32)
    assert broken(look(rest, signed(cut, cut=True), known=(other,))) == (1, "rewritten")


@pytest.mark.parametrize(
    "changed", [{"number": 4}, {"hash": "00" * 32}, {"cluster": "d"}, {"chain": "q"}, {"cut": True}]
)
def test_a_checkpoint_that_was_changed_is_forged(changed: dict[str, Any]) -> None:
    entries = chain(5)
    true = signed(head(entries[2]))
    said = msgspec.structs.replace(true.checkpoint, **changed)
    number = changed.get("number", 3)
    assert broken(look(entries, SignedCheckpoint(said, true.signature))) == (number, "forged")


def test_a_checkpoint_of_another_chain_proves_nothing_here() -> None:
    entries = chain(5)
    assert broken(look(entries, signed(head(entries[2]), chain="q"))) == (3, "forged")


def test_a_checkpoint_by_a_key_that_nobody_vouches_for_says_nothing() -> None:
    entries = chain(5)
    verdict = look(entries, signed(Head(3, b"x" * 32), by=OTHER))
    assert verdict.is_good
    assert (verdict.signed, verdict.strange) == (0, 1)


def test_what_retention_has_deleted_has_a_signed_checkpoint_in_its_place() -> None:
    entries = chain(10)
    place = head(entries[5])
    verdict = look(entries[6:], signed(place, cut=True))
    assert verdict.is_good
    assert (verdict.first, verdict.entries) == (7, 4)
    # A plain checkpoint, which anybody with the database can leave as the first one, does not do.
    assert broken(look(entries[6:], signed(place))) == (1, "removed")
    assert broken(look(entries[7:], signed(place, cut=True)))[1] == "removed"
    assert look([], signed(head(entries[9]), cut=True)).is_good
    assert broken(look([], signed(place, cut=True), signed(head(entries[9])))) == (7, "truncated")


def test_a_key_is_vouched_for_by_the_one_before_it() -> None:
    new = NewKey("c", key_id(bytes(OTHER.verify_key)), bytes(OTHER.verify_key), key_id(PUBLIC), 1)
    word = SignedKey(new, KEY.sign(key_bytes(new)).signature)
    both = trusted([PUBLIC], [word], cluster="c", verifies=verifies)
    assert both == {PUBLIC, bytes(OTHER.verify_key)}
    forged = SignedKey(new, OTHER.sign(key_bytes(new)).signature)
    assert trusted([PUBLIC], [forged], cluster="c", verifies=verifies) == {PUBLIC}
    assert trusted([PUBLIC], [word], cluster="d", verifies=verifies) == {PUBLIC}
    assert trusted([], [word], cluster="c", verifies=verifies) == frozenset()


def test_text_of_strangers_is_bounded_and_visible() -> None:
    long = "x" * 10_000
    by = Origin("stranger", name=f"\x1b[2J\0{long}", address=long)
    entry = entry_of(Act("login", by, detail={"why": f"a\nb \ud800{long}"}), number=1, at=1)
    assert len(entry.actor_name) == len(entry.address) == limits.AUDIT_NAME_CHARS
    assert entry.actor_name.startswith(r"\x1b[2J\x00")
    assert len(entry.detail["why"]) == limits.AUDIT_TEXT_CHARS
    assert entry.detail["why"].startswith("a b ")
    canonical(entry)
