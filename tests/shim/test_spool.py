"""The format: what is readable is exactly what was written whole, wherever the file is cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetwire.shim import frames, spool
from fleetwire.shim.frames import Frame
from fleetwire.shim.writer import SpoolWriter

Parts = list[tuple[int, Any]]
Log = list[tuple[Any, int]]

# Files, not arithmetic: how long one example takes is the machine's matter. In memory where there
# is such a place, because a sync per example would be most of the time.
unhurried = settings(deadline=None)
MEMORY = next((path for path in ("/dev/shm",) if os.path.isdir(path)), None)

PARTS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=400)),
        st.tuples(st.just(0), st.integers(1, 1 << 33)),
    ),
    max_size=12,
)


@contextmanager
def written(parts: Parts, piece: int = 512) -> Iterator[tuple[str, SpoolWriter]]:
    """A spool with these parts, appended one by one."""
    with TemporaryDirectory(dir=MEMORY) as folder:
        directory = os.open(folder, os.O_RDONLY)
        writer = SpoolWriter(directory, piece=piece, quota=1 << 40)
        for stream, what in parts:
            assert append(writer, stream, what)
        writer.close()
        os.close(directory)
        yield folder, writer


def append(writer: SpoolWriter, stream: int, what: bytes | int) -> bool:
    if isinstance(what, int):
        return writer.append_gap(what)
    return writer.append([(stream, memoryview(what))])


def read_all(folder: str, offset: int = 0, limit: int = 1 << 20) -> list[Frame]:
    reader = spool.SpoolReader(folder)
    found = []
    while got := reader.read(offset, limit):
        found += got
        offset = got[-1].offset + got[-1].length
    assert reader.read(offset, limit) == []
    reader.close()
    return found


def flat(found: list[Frame]) -> Log:
    """The log as a list: a byte with its stream, or a gap with its length."""
    out = []
    for frame in found:
        if frame.gap:
            out.append(("gap", frame.gap))
        else:
            out += [(frame.stream, byte) for byte in bytes(frame.payload)]
    return out


def gaps_joined(items: Log) -> Log:
    """Neighbouring gaps as one: a cut or a length beyond 32 bits splits them."""
    out = []
    for item in items:
        if out and item[0] == "gap" and out[-1][0] == "gap":
            out[-1] = ("gap", out[-1][1] + item[1])
        else:
            out.append(item)
    return out


def expected(parts: Parts) -> Log:
    out = []
    for stream, what in parts:
        out += [("gap", what)] if stream == 0 else [(stream, byte) for byte in what]
    return gaps_joined(out)


def size(parts: Parts) -> int:
    return sum(what if stream == 0 else len(what) for stream, what in parts)


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.slow
@unhurried
@given(PARTS, st.integers(1, 2000))
def test_what_is_written_is_read(parts: Parts, limit: int) -> None:
    with written(parts) as (folder, writer):
        found = read_all(folder, limit=limit)
        assert gaps_joined(flat(found)) == expected(parts)
        assert spool.SpoolReader(folder).length() == writer.length == size(parts)
        offsets = [frame.offset for frame in found]
        assert offsets == [sum(f.length for f in found[:i]) for i in range(len(found))]


@unhurried
@given(PARTS.filter(bool), st.data())
def test_reading_may_begin_anywhere(parts: Parts, data: st.DataObject) -> None:
    with written(parts) as (folder, writer):
        offset = data.draw(st.integers(0, writer.length))
        reader = spool.SpoolReader(folder)
        found = reader.read(offset, 1 << 20)
        whole = read_all(folder)
        assert (found == []) == (offset == writer.length)
        if found:
            assert found[0].offset == offset
            tail = [f for f in whole if f.offset + f.length > offset]
            tail[0] = tail[0].cut(offset)
            assert found == tail[: len(found)]
        assert reader.read(writer.length + 1, 10) == []
        reader.close()


@unhurried
@given(PARTS.filter(bool), st.data())
def test_a_torn_tail_leaves_the_whole_frames(parts: Parts, data: st.DataObject) -> None:
    with written(parts, piece=1 << 30) as (folder, _):
        (name,) = spool.pieces(folder)
        path = Path(folder, spool.piece_name(name))
        whole = read_all(folder)
        cut = data.draw(st.integers(0, path.stat().st_size))
        os.truncate(path, cut)
        kept = []
        used = 0
        for frame in whole:
            used += frames.HEADER_BYTES + len(frame.payload)
            if used <= cut:
                kept.append(frame)
        assert read_all(folder) == kept
        assert spool.SpoolReader(folder).length() == sum(frame.length for frame in kept)


@unhurried
@given(PARTS.filter(bool), st.data())
def test_a_flipped_bit_ends_the_log_before_its_frame(parts: Parts, data: st.DataObject) -> None:
    with written(parts) as (folder, _):
        whole = read_all(folder)
        piece = data.draw(st.sampled_from(spool.pieces(folder)))
        path = Path(folder, spool.piece_name(piece))
        content = bytearray(path.read_bytes())
        if not content:
            return  # the empty successor of a full piece
        bit = data.draw(st.integers(0, len(content) * 8 - 1))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        kept = []
        position = 0
        for frame in whole:
            if frame.offset < piece:
                kept.append(frame)
                continue
            position += frames.HEADER_BYTES + len(frame.payload)
            if position > bit // 8:
                break
            kept.append(frame)
        assert read_all(folder) == kept
        reader = spool.SpoolReader(folder)
        assert reader.length() == sum(frame.length for frame in kept)
        assert reader.read(whole[-1].offset + 1, 100) == [] or kept == whole
        reader.close()


@unhurried
@given(PARTS, st.data())
def test_trim_deletes_what_is_durable_and_never_the_newest(
    parts: Parts, data: st.DataObject
) -> None:
    with written(parts) as (folder, writer):
        durable = data.draw(st.integers(0, writer.length + 10))
        before = {p: Path(folder, spool.piece_name(p)).stat().st_size for p in spool.pieces(folder)}
        reader = spool.SpoolReader(folder)
        reader.read(0, 100)
        freed = reader.trim(durable)
        left = spool.pieces(folder)
        gone = before.keys() - set(left)
        assert freed == sum(before[p] for p in gone)
        assert reader.trim(durable) == 0
        if before:
            assert left[-1] == max(before)
            names = sorted(before)
            assert all(names[names.index(p) + 1] <= durable for p in gone)
            assert len(left) == 1 or left[1] > durable
            at = max(durable, left[0])
            if durable <= writer.length:
                for each in (reader, spool.SpoolReader(folder)):
                    got = each.read(at, 1 << 20)
                    assert (got == []) == (at == writer.length)
                    assert each.length() == writer.length
                    each.close()
            if left[0] > 0:
                with pytest.raises(spool.SpoolTrimmed) as caught:
                    reader.read(left[0] - 1, 10)
                assert caught.value.first == left[0]
        reader.close()


@unhurried
@given(st.lists(st.tuples(PARTS, st.booleans()), max_size=5))
def test_a_reader_follows_a_writer(rounds: list[tuple[Parts, bool]]) -> None:
    with TemporaryDirectory(dir=MEMORY) as folder:
        directory = os.open(folder, os.O_RDONLY)
        writer = SpoolWriter(directory, piece=300, quota=1 << 40)
        reader = spool.SpoolReader(folder)
        assert (reader.length(), reader.read(0, 10), reader.trim(5)) == (0, [], 0)
        offset = 0
        got = []
        for parts, trims in rounds:
            for stream, what in parts:
                append(writer, stream, what)
            assert reader.length() == writer.length
            while found := reader.read(offset, 97):
                got += found
                offset = found[-1].offset + found[-1].length
            if trims:
                reader.trim(offset)
        assert gaps_joined(flat(got)) == expected([p for parts, _ in rounds for p in parts])
        reader.close()
        writer.close()
        os.close(directory)


def test_another_reader_trims_below_this_one() -> None:
    with written([(1, b"x" * 400)] * 6) as (folder, writer):
        mine, other = spool.SpoolReader(folder), spool.SpoolReader(folder)
        mine.read(0, 10)
        other.trim(writer.length)
        assert mine.read(400, 10)[0].offset == 400  # of what it still holds open
        with pytest.raises(spool.SpoolTrimmed):
            mine.read(0, 10)
        with pytest.raises(spool.SpoolTrimmed):
            mine.read(800, 10)  # the end of its piece; the next one has gone too
        mine.close()
        assert mine.length() == writer.length
        mine.close()


def test_a_frame_larger_than_the_limit_is_given_whole() -> None:
    with written([(1, b"a" * 50_000), (2, b"b")]) as (folder, _):
        reader = spool.SpoolReader(folder)
        (frame,) = reader.read(0, 10)
        assert bytes(frame.payload) == b"a" * 50_000
        reader.close()


def test_large_parts_are_cut_into_frames() -> None:
    with written([(1, b"a" * (frames.MAX_PAYLOAD * 2 + 5))], piece=1 << 30) as (folder, _):
        lengths = [frame.length for frame in read_all(folder)]
        assert lengths == [frames.MAX_PAYLOAD, frames.MAX_PAYLOAD, 5]


def test_a_header_that_claims_too_much_is_no_frame() -> None:
    payload = memoryview(b"x" * (frames.MAX_PAYLOAD + 1))
    data = frames.header(1, len(payload), 0, 0, payload) + bytes(payload)
    assert frames.parse(memoryview(data), 0, 0) is None
    at_the_limit = payload[1:]
    data = frames.header(1, len(at_the_limit), 0, 0, at_the_limit) + bytes(at_the_limit)
    assert isinstance(frames.parse(memoryview(data), 0, 0), tuple)


def test_an_empty_frame_is_no_frame() -> None:
    nothing = memoryview(b"")
    assert frames.parse(memoryview(frames.header(1, 0, 0, 0, nothing)), 0, 0) is None


def test_the_bytes_of_a_frame() -> None:
    data = frames.header(2, 3, 9, 17, memoryview(b"abc"))
    assert data[:24] == bytes.fromhex("464c 02 00 03000000 0900000000000000 1100000000000000")
    assert len(data) == frames.HEADER_BYTES
