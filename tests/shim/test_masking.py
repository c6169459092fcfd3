"""The masker: whatever is embedded, however it is encoded and cut, nothing of it comes out."""

from __future__ import annotations

import base64
import html
import itertools
import json
import shlex
from urllib.parse import quote, quote_from_bytes, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.shim.masking import MASK, Masker, Patterns
from fleetwire.shim.variants import EASY, LEAST, LONGEST, TWICE_MOST, patterns

KEY = (
    b"-----BEGIN PRIVATE KEY-----\n"
    + b"\n".join(base64.b64encode(bytes([n]) * 24 + bytes(range(24))) for n in range(4))
    + b"\n-----END PRIVATE KEY-----\n"
)


def maskable(secret: bytes) -> bool:
    return bool(patterns([secret]))


# A mask within a secret could make one out of the text around it: see the one test of it below.
plain = st.binary(min_size=LEAST, max_size=300).filter(lambda value: b"*" not in value)
worded = st.text(min_size=LEAST, max_size=60).map(str.encode).filter(lambda v: b"*" not in v)
secrets = st.lists(st.one_of(plain, worded).filter(maskable), min_size=1, max_size=3)
few_bytes = st.lists(st.sampled_from(b"ab\n"), min_size=0, max_size=60).map(bytes)
close = st.lists(
    st.lists(st.sampled_from(b"ab"), min_size=LEAST, max_size=EASY + 9).map(bytes),
    min_size=1,
    max_size=4,
)


def masked(known: Patterns, *chunks: bytes) -> bytes:
    masker = Masker(known)
    return b"".join([*map(masker.feed, chunks), masker.finish()])


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({min(each, len(data)) for each in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(at)]


def encodings(value: bytes) -> dict[str, bytes]:
    """What programs write, made by the programs' own means and not by ours."""
    forms = {
        "as it is": value,
        "hex": value.hex().encode(),
        "HEX": value.hex().upper().encode(),
        "url": quote_from_bytes(value, safe="").encode(),
        "url path": quote_from_bytes(value).encode(),
        "form": quote_plus(value).encode(),
        "url, every byte": b"".join(b"%%%02x" % byte for byte in value),
    }
    for before in range(3):
        for name, encode in (("b64", base64.b64encode), ("b64url", base64.urlsafe_b64encode)):
            core = encode(b"xyz"[:before] + value)
            forms[f"{name}, {before} before"] = core[
                -(-before * 8 // 6) : (before + len(value)) * 8 // 6
            ]
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return forms
    escaped = json.dumps(text)[1:-1]
    forms["json"] = escaped.encode()
    forms["json, utf-8"] = json.dumps(text, ensure_ascii=False)[1:-1].encode()
    forms["json, php"] = escaped.replace("/", r"\/").encode()
    forms["repr"] = repr(text)[1:-1].encode()
    forms["shell"] = shlex.quote(text).strip("'").encode() if "'" not in text else b""
    forms["encodeURIComponent"] = quote(text, safe="!'()*").encode()
    return forms


@given(secrets, st.data())
def test_no_form_of_a_secret_comes_out(values: list[bytes], data: st.DataObject) -> None:
    known = Patterns(values)
    whole = [value.strip(b"\r\n") for value in values]
    text = b""
    embedded = []
    for _ in range(data.draw(st.integers(1, 4))):
        form = data.draw(
            st.sampled_from(sorted(encodings(data.draw(st.sampled_from(whole))).values()))
        )
        text += data.draw(st.binary(max_size=20)) + form
        embedded += [form] if len(form) >= LEAST else []
    text += data.draw(st.binary(max_size=20))
    out = masked(known, *cut(text, data.draw(st.lists(st.integers(0, len(text)), max_size=12))))
    for form in embedded:
        assert form not in out
    for pattern in known.sorted:
        assert pattern not in out


@given(close, few_bytes, st.data())
def test_every_cutting_gives_the_same(
    values: list[bytes], text: bytes, data: st.DataObject
) -> None:
    known = Patterns(values)
    at_once = masked(known, text)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=20))
    assert masked(known, *cut(text, cuts)) == at_once
    assert masked(known, *(bytes([byte]) for byte in text)) == at_once
    assert at_once == by_the_rule(known, text)


def by_the_rule(known: Patterns, text: bytes) -> bytes:
    """The rule said slowly: mark every byte of every occurrence; a run of marks is one mask."""
    marks = [False] * len(text)
    for pattern in known.sorted:
        for at in range(len(text)):
            if text.startswith(pattern, at):
                marks[at : at + len(pattern)] = [True] * len(pattern)
    for at in range(len(text)):
        rest = text[at:]
        if len(rest) >= LEAST and any(p != rest and p.startswith(rest) for p in known.sorted):
            marks[at:] = [True] * len(rest)
    out = b""
    for at, byte in enumerate(text):
        if not marks[at]:
            out += bytes([byte])
        elif at == 0 or not marks[at - 1]:
            out += MASK
    return out


@given(secrets, st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=8))
def test_text_without_secrets_is_unchanged(
    values: list[bytes], text: bytes, cuts: list[int]
) -> None:
    known = Patterns(values)
    if known.spans(text) or len(text) - known.undecided(text) >= LEAST:
        return
    assert masked(known, *cut(text, cuts)) == text


@given(close, few_bytes, st.data())
def test_what_is_held_is_little_and_a_silence_shows_less_than_a_secret(
    values: list[bytes], text: bytes, data: st.DataObject
) -> None:
    known = Patterns(values)
    masker = Masker(known)
    out = b""
    for chunk in cut(text, data.draw(st.lists(st.integers(0, len(text)), max_size=8))):
        out += masker.feed(chunk)
        assert masker.held < LONGEST
        assert not known.spans(out)
        shown = masker.release()
        assert len(shown) < LEAST
        assert not masker.releasable
        out += shown
    out += masker.finish()
    # Cut by silences or not: a pattern never comes out whole.
    assert not known.spans(out)


def test_a_secret_cut_by_a_silence_shows_less_than_eight_bytes_of_itself() -> None:
    masker = Masker(Patterns([b"hunter2-hunter2-hunter2"]))
    assert masker.feed(b"> hunter2") == b"> "
    assert masker.release() == b"hunter2"
    assert masker.feed(b"-hunter2-hunter2!") == b"***!"
    assert masker.feed(b"> hunter2-") == b"> "
    assert not masker.releasable
    assert masker.release() == b""
    assert masker.finish() == MASK


def test_a_multi_line_secret_is_masked_whole_by_line_and_as_a_terminal_writes_it() -> None:
    known = Patterns([KEY])
    lines = KEY.split(b"\n")
    assert masked(known, b"key: " + KEY) == b"key: ***\n"
    assert masked(known, KEY.replace(b"\n", b"\r\n")) == b"***\r\n"
    assert masked(known, b"grep says " + lines[2]) == b"grep says ***"
    assert masked(known, lines[0] + b"\nnot a key\n") == lines[0] + b"\nnot a key\n"


@pytest.mark.parametrize("columns", [76, 64])
@pytest.mark.parametrize("size", [30, 57, 60, 96, 115, 500])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_wrapped_base64_of_a_secret_is_masked(columns: int, size: int, end: bytes) -> None:
    value = bytes((n * n + 5 * n) % 251 for n in range(size))
    whole = base64.b64encode(value + b"\n")
    rows = end.join(whole[at : at + columns] for at in range(0, len(whole), columns))
    left = masked(Patterns([value]), rows).replace(MASK, b"").replace(end, b"")
    assert len(left) <= 4, left  # the last character and the padding hold bits of the newline


def test_overlapping_secrets_leave_nothing_of_each_other() -> None:
    known = Patterns([b"abcdefghij", b"ghijklmnop"])
    assert masked(known, b"<abcdefghijklmnop>") == b"<***>"
    assert masked(known, b"<abcdefghijghijklmnop>") == b"<***>"


def test_a_long_secret_is_one_mask_and_its_parts_are_masked_too() -> None:
    value = bytes((7 * n * n + n) % 255 + 1 for n in range(3000)).replace(b"\n", b"n")
    known = Patterns([value])
    assert masked(known, b"a" + value + b"b") == b"a***b"
    assert len(masked(known, value[:2000])) < 3 + LONGEST
    assert max(map(len, patterns([value]))) <= LONGEST


def test_short_secrets_are_not_looked_for() -> None:
    assert not maskable(b"1234567\n")
    assert maskable(b"12345678\n")
    assert not maskable(b"\n" * 9)
    assert not Patterns([b"1234567"])
    assert masked(Patterns([]), b"anything") == b"anything"


# What two programs write, one after the other, each by its own means.
STEPS = {
    "base64": base64.b64encode,
    "base64url": base64.urlsafe_b64encode,
    "base64 of a line": lambda value: base64.b64encode(value + b"\n"),
    "json": lambda value: json.dumps(value.decode()).encode(),
    "json, utf-8": lambda value: json.dumps(value.decode(), ensure_ascii=False).encode(),
    "url": lambda value: quote(value.decode(), safe="").encode(),
    "url path": lambda value: quote(value.decode()).encode(),
    "field": lambda value: b'{"password": %s, "n": 1}' % json.dumps(value.decode()).encode(),
    "login": lambda value: b"user:" + value,
}
SPECIAL = 'c/7f3a+"quoted" \\ 9c é'.encode()


@pytest.mark.parametrize("value", [b"correct+horse/battery", SPECIAL, KEY], ids=range(3))
def test_a_secret_that_is_encoded_twice_is_masked(value: bytes) -> None:
    known, whole = Patterns([value]), value.strip()
    for first, then in itertools.product(STEPS, repeat=2):
        text = STEPS[then](STEPS[first](whole))
        shown = masked(known, b"<" + text + b">")
        assert b"***" in shown, (first, then)
        # What is left are the words around it, and characters that hold bits of them.
        around = STEPS[then](STEPS[first](b""))
        assert len(shown) - len(b"<***>") <= len(around) + 16, (first, then, shown)


@given(st.binary(min_size=LEAST, max_size=200).filter(lambda v: b"*" not in v), st.data())
def test_base64_of_base64_is_masked_at_every_alignment(value: bytes, data: st.DataObject) -> None:
    around = st.binary(max_size=5)
    inner = base64.b64encode(data.draw(around) + value + data.draw(around))
    text = base64.b64encode(data.draw(around) + inner + data.draw(around))
    if not maskable(value.strip(b"\r\n")):
        return
    shown = masked(Patterns([value]), text)
    assert shown != text
    # The longest thing that is left is shorter than the least secret, encoded twice.
    assert max(map(len, shown.split(MASK))) <= 24


def test_what_is_not_promised_is_known() -> None:
    """Encoded three times, or reversed, or long and encoded twice: docs/security.md says so."""
    value = b"correct horse battery"
    known = Patterns([value])
    thrice = base64.b64encode(base64.b64encode(base64.b64encode(value)))
    assert masked(known, thrice) == thrice
    assert masked(known, html.escape("x").encode() + value[::-1]) == b"x" + value[::-1]
    long = bytes((7 * n * n + n) % 255 + 1 for n in range(TWICE_MOST + 1))
    twice = base64.b64encode(base64.b64encode(long))
    assert masked(Patterns([long]), twice) == twice
