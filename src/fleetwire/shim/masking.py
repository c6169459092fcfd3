"""Secrets out of the output before anything of it touches a disk.

Pure: bytes in, bytes out; the pump gives the time. The rule: of all occurrences of all patterns
(`variants.patterns`) in a stream, those that overlap or touch become one `***`. It says nothing
of how the stream arrives, so neither does the result: every cutting into chunks gives the same.

To know an occurrence one has to have seen its end. So what may be the beginning of one is held
back: the longest end of the stream that is a proper beginning of a pattern. That is nothing for
most output, and never LONGEST bytes. While the task writes nothing, a beginning of fewer than
LEAST bytes is let go (`release`), so that a prompt appears; it is remembered, and if the rest
comes later the rest is masked. A longer one stays until more comes or the stream ends: where it
ends with one, that is masked as well, because a task that was killed in the middle of a secret
has shown most of it.

How it is fast without anything but the standard library. A pattern of EASY bytes has, wherever it
stands in a chunk, a whole *word* of the chunk, WORD bytes from a multiple of WORD on: one of
WORD words, by its place. So a chunk is looked at as numbers, word by word, and one set says of each
whether it can be of a secret: the cost hardly depends on what the output is, or on how many the
patterns are. Shorter patterns, of which there are few, are known by a *gram*, GRAM of their bytes
in a row that begin with a byte that is rare in text: few bytes serve as such beginnings for all of
them, and `re` runs over everything else with its table of bytes. Only where a word or a gram stands
are patterns compared.
"""

import re
import sys
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator

from fleetwire.shim.variants import EASY, LEAST, LONGEST, patterns

MASK = b"***"
GRAM = 6
WORD = (EASY + 1) // 2
_BITS = tuple(1 << place for place in range(LONGEST))  # one number each, however often it is kept
_FEW = 4  # a word of fewer different bytes stands in much that is no secret

# How often a byte comes in a hundred thousand of output, roughly: logs, source, hexadecimal.
_COMMON = {byte: 13_000 - 600 * rank for rank, byte in enumerate(b" etaoinsrlcdumpgfhy")}
_LETTER, _DIGIT, _CAPITAL, _SIGN, _REST = 800, 2_500, 500, 900, 100


class Patterns:
    """What is looked for, prepared: shared by the streams of one attempt."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        self.sorted = sorted(patterns(secrets))
        self._words: dict[int, int] = {}  # where in patterns it stands: a bit for each place
        self._beginnings = frozenset(pattern[:LEAST] for pattern in self.sorted)
        self._by_gram: dict[bytes, list[tuple[int, bytes]]] = defaultdict(list)
        for pattern in self.sorted:
            for start in _word_starts(pattern) if len(pattern) >= EASY else ():
                word = int.from_bytes(pattern[start : start + WORD], sys.byteorder)
                self._words[word] = self._words.get(word, 0) | _BITS[start]
        for pattern, start in _anchors([each for each in self.sorted if len(each) < EASY]):
            self._by_gram[pattern[start : start + GRAM]].append((start, pattern))
        self._grams = re.compile(_expression(self._by_gram), re.DOTALL) if self._by_gram else None
        pairs: dict[int, set[int]] = defaultdict(set)
        for pattern in self.sorted:
            pairs[pattern[0]].add(pattern[1])
        self._starts = re.compile(
            _either(
                _class({first}) + b"(?=" + _class(seconds) + rb"|\Z)"
                for first, seconds in pairs.items()
            ),
            re.DOTALL,
        )

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self.sorted)

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Where something is to be masked: from, to; in order, neither overlapping nor touching."""
        found: list[tuple[int, int]] = []
        for at, offset, pattern in self._candidates(data):
            start = at - offset
            if start < 0 or not data.startswith(pattern, start):
                continue
            end = start + len(pattern)
            if found and found[-1][0] <= start <= found[-1][1]:
                found[-1] = found[-1][0], max(found[-1][1], end)  # a flood of them stays small
            else:
                found.append((start, end))
        found.sort()
        merged: list[tuple[int, int]] = []
        for start, end in found:
            if merged and start <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(end, merged[-1][1])
            else:
                merged.append((start, end))
        return merged

    def _candidates(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Where something of a pattern stands: there, how far in the pattern, and the pattern."""
        words = memoryview(data)[: len(data) // WORD * WORD].cast("Q")
        if not self._words.keys().isdisjoint(words):
            for number, word in enumerate(words):
                if word in self._words:
                    yield from self._of_word(data, number * WORD, self._words[word])
        if self._grams is not None:
            for match in self._grams.finditer(data):
                at = match.start()
                for offset, pattern in self._by_gram[data[at : at + GRAM]]:
                    yield at, offset, pattern

    def _of_word(self, data: bytes, at: int, places: int) -> Iterator[tuple[int, int, bytes]]:
        """The same for one word; `places` are where it may stand in a pattern."""
        while places:
            offset = (places & -places).bit_length() - 1
            places &= places - 1
            start = at - offset
            if start >= 0 and data[start : start + LEAST] in self._beginnings:
                longest = self._longest(data[start : start + LONGEST])
                if longest is not None:
                    yield at, offset, longest

    def _longest(self, text: bytes) -> bytes | None:
        """The longest pattern that `text` begins with: it covers all others."""
        while len(text) >= LEAST:
            at = bisect_right(self.sorted, text) - 1
            if at < 0:
                return None
            below = self.sorted[at]
            if text.startswith(below):
                return below
            # Of all patterns this one has the most in common with the text; those that the text
            # begins with lie within that.
            text = text[: _common(text, below)]
        return None

    def undecided(self, data: bytes) -> int:
        """Where the longest end of `data` begins that is a proper beginning of a pattern."""
        for match in self._starts.finditer(data, max(len(data) - LONGEST + 1, 0)):
            if self._begins_one(data[match.start() :]):
                return match.start()
        return len(data)

    def _begins_one(self, text: bytes) -> bool:
        at = bisect_left(self.sorted, text)
        if at < len(self.sorted) and self.sorted[at] == text:
            at += 1  # that one is complete; longer ones stand behind it
        return at < len(self.sorted) and self.sorted[at].startswith(text)


class Masker:
    """One stream of output."""

    def __init__(self, known: Patterns) -> None:
        self._known = known
        self._held = b""  # the end of the stream, from where it is undecided on
        self._shown = 0  # so much of its beginning is out already, as text or within a mask
        self._masked = False  # whether the last that went out was a mask

    @property
    def held(self) -> int:
        """How many bytes are held back."""
        return len(self._held) - self._shown

    @property
    def releasable(self) -> bool:
        """Whether something is held back that may go when the task falls silent."""
        return self.held > 0 and len(self._held) < LEAST

    def feed(self, chunk: bytes | memoryview) -> bytes:
        """Take what came; return what may be stored now."""
        data = self._held + bytes(chunk)
        keep = self._known.undecided(data)
        return self._advance(data, self._known.spans(data), keep)

    def release(self) -> bytes:
        """The task is silent: return what is held back, if that is little. It is remembered."""
        if not self.releasable:
            return b""
        text = self._held[self._shown :]
        self._shown = len(self._held)
        self._masked = False
        return text

    def finish(self) -> bytes:
        """The stream has ended: return the rest; nothing may be fed any more."""
        data = self._held
        return self._advance(data, [(0, len(data))] if len(data) >= LEAST else [], len(data))

    def _advance(self, data: bytes, spans: list[tuple[int, int]], keep: int) -> bytes:
        """Return what comes of `data` up to `keep`; what lies behind is held back."""
        out = []
        at = self._shown
        for start, end in spans:
            if start >= keep:
                break
            if end <= at:
                continue
            if start > at:
                out.append(data[at:start])
                self._masked = False
            if not self._masked:
                out.append(MASK)
                self._masked = True
            at = max(at, end)
        if at < keep:
            out.append(data[at:keep])
            self._masked = False
            at = keep
        self._held = data[keep:]
        self._shown = at - keep
        return b"".join(out)


def _common(one: bytes, other: bytes) -> int:
    """How many bytes they have in common at their beginning; they differ."""
    size = min(len(one), len(other))
    different = int.from_bytes(one[:size], "big") ^ int.from_bytes(other[:size], "big")
    return size - (different.bit_length() + 7) // 8


def _word_starts(pattern: bytes) -> Iterator[int]:
    """Where the words of a pattern begin that it is known by: one for each place, by WORD, at
    which the pattern may stand. From its middle, because addresses, keys and documents begin and
    end as many others do; the first of two that says more than a row of spaces.
    """
    middle = (len(pattern) - EASY) // 2
    for start in range(middle, middle + WORD):
        later = start + WORD
        is_poor = len(set(pattern[start : start + WORD])) < _FEW
        yield later if is_poor and later + WORD <= len(pattern) else start


def _anchors(known: list[bytes]) -> list[tuple[bytes, int]]:
    """For each pattern where its gram begins; so that few and rare bytes begin them all."""
    open_ = set(known)
    chosen: set[int] = set()
    while open_:
        gains: dict[int, int] = defaultdict(int)
        for pattern in open_:
            for byte in set(pattern[: len(pattern) - GRAM + 1]):
                gains[byte] += 1
        best = min(gains, key=lambda byte: (_frequency(byte) / gains[byte], byte))
        chosen.add(best)
        open_ = {each for each in open_ if best not in each[: len(each) - GRAM + 1]}
    return [(each, _rarest(each, chosen)) for each in known]


def _rarest(pattern: bytes, chosen: set[int]) -> int:
    starts = [at for at in range(len(pattern) - GRAM + 1) if pattern[at] in chosen]
    return min(starts, key=lambda at: _frequency(pattern[at]))


def _frequency(byte: int) -> int:
    character = chr(byte)
    if byte in _COMMON:
        return _COMMON[byte]
    if byte >= 128:
        return _REST
    if character.isdigit():
        return _DIGIT
    if character.isalpha():
        return _LETTER if character.islower() else _CAPITAL
    return _SIGN if character.isprintable() or byte in b"\n\t\r" else _REST


def _expression(grams: Iterable[bytes]) -> bytes:
    """One byte that begins a gram, the rest of it ahead: so that grams may overlap."""
    rests: dict[int, list[bytes]] = defaultdict(list)
    for gram in sorted(grams):
        rests[gram[0]].append(gram[1:])
    return _either(_class({first}) + b"(?=" + _trie(ends) + b")" for first, ends in rests.items())


def _trie(words: list[bytes]) -> bytes:
    """An expression for any of these words (sorted, of one length), branching by byte."""
    if len(words) == 1:
        return re.escape(words[0])
    branches: dict[int, list[bytes]] = defaultdict(list)
    for word in words:
        branches[word[0]].append(word[1:])
    if len(words[0]) == 1:
        return _class(branches)
    return b"(?:" + _either(_class({byte}) + _trie(rest) for byte, rest in branches.items()) + b")"


def _class(bytes_: Iterable[int]) -> bytes:
    each = [re.escape(bytes([byte])) for byte in sorted(bytes_)]
    return each[0] if len(each) == 1 else b"[" + b"".join(each) + b"]"


def _either(expressions: Iterable[bytes]) -> bytes:
    return b"|".join(expressions) or rb"(?!)"
