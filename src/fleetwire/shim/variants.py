"""The forms in which a secret may stand in output: what the masker looks for.

Pure: bytes in, patterns out. Every form is a plain string of bytes (no expression that could run
wild), at least LEAST bytes long, so that ordinary text is not masked by chance, and at most
LONGEST, so that little ever has to be held back: a longer form is cut into pieces that cover it.

Two encodings one after the other are looked for where programs do so: base64, percent-encoding
and JSON strings, in any order (a JSON document in a JSON string, a Kubernetes secret that holds
JSON, base64 in an address). Not for a secret that is longer than TWICE_MOST.

What is not here is not masked: a secret encoded three times, compressed, encrypted, reversed, or
written a few characters at a time with others between. A task that wants to show what it was
given can; masking is against accidents (docs/security.md, "Secrets").
"""

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator

LEAST = 8
"""A secret, a line of one, or a form with fewer bytes is not looked for."""

LONGEST = 128
TWICE_MOST = 4096
"""A longer secret is not looked for encoded twice: that would be too many patterns."""

EASY = 15
"""Patterns of so many bytes cost least to look for (`masking`): shorter ones are avoided."""

_WRAPS = (76, 64)  # columns: base64(1) and MIME; openssl and PEM
_ARMOUR = re.compile(rb"-----(BEGIN|END) [A-Z0-9 ]+-----")  # says nothing, and stands in many texts
# What is never percent-encoded (RFC 3986, 2.3), and what some leave as it is besides.
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_KEPT = (b"", b"/", b"!'()*", b"!'()*/", b"*")  # Python twice, encodeURIComponent, paths, forms
_SHELL_PLAIN = re.compile(rb"([^A-Za-z0-9_./:=@%+,\x80-\xff-])")
_SAFE = (b"", b"/", b"!'()*")  # the same, for what is encoded twice
_ALPHABETS = (base64.b64encode, base64.urlsafe_b64encode)
_UNICODE = re.compile(r"\\u([0-9a-f]{4})")


def patterns(secrets: Iterable[bytes]) -> frozenset[bytes]:
    """All that has to be masked for these secrets, each LEAST to LONGEST bytes long."""
    found: set[bytes] = set()
    for secret in secrets:
        for part in _parts(secret):
            for form in _forms(part):
                found.update(_pieces(form))
            if len(secret) <= TWICE_MOST:
                for form in _twice(part):
                    found.update(_pieces(form))
    return frozenset(found)


def _parts(secret: bytes) -> set[bytes]:
    """The secret without the line ends around it, and each of its lines by itself."""
    whole = secret.strip(b"\r\n")
    lines = {line for line in re.split(rb"[\r\n]+", whole) if not _ARMOUR.fullmatch(line)}
    return {part for part in {whole, *lines} if len(part) >= LEAST}


def _forms(part: bytes) -> Iterator[bytes]:
    yield part
    yield part.hex().encode()
    yield part.hex().upper().encode()
    yield from _lines(part)
    yield from _shell(part)
    yield from _every_byte(part)
    yield from _base64(part)
    yield from _percent(part)
    yield from _json(part)


def _twice(part: bytes) -> Iterator[bytes]:
    """Encoded as programs do that pass on what another has encoded."""
    for alphabet in _ALPHABETS:
        for inner in {*_cores(part, alphabet), *_rows(part, alphabet)}:
            yield from _cores(inner, alphabet)
            yield _quoted(inner)  # in an address
            yield inner.replace(b"/", rb"\/")
        yield from _rows(alphabet(part), alphabet)
    escaped = {*_json(part), *(_quoted(part, kept) for kept in _SAFE)} if _is_text(part) else set()
    for inner in escaped - {part}:
        for alphabet in _ALPHABETS:
            yield from _cores(inner, alphabet)
        yield from (_quoted(inner, kept) for kept in _SAFE)
        yield from _json(inner)


def _every_byte(part: bytes) -> Iterator[bytes]:
    """With every byte, or unit of UTF-16, escaped."""
    for digits in (b"%%%02X", b"%%%02x"):
        yield b"".join(digits % byte for byte in part)
    if _is_text(part):
        units = _utf16(part.decode())
        for each in ("\\u%04x", "\\u%04X"):
            yield "".join(each % unit for unit in units).encode()


def _lines(part: bytes) -> Iterator[bytes]:
    """As a terminal writes line ends, and as a file from elsewhere has them."""
    unix = part.replace(b"\r\n", b"\n")
    yield unix
    yield unix.replace(b"\n", b"\r\n")


def _base64(part: bytes) -> Iterator[bytes]:
    for alphabet in _ALPHABETS:
        yield from _cores(part, alphabet)
        yield from _rows(part, alphabet)


def _cores(part: bytes, alphabet: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """At each alignment, without the characters that hold bits of a neighbour: a character holds
    6 bits, and those are not ours to know.
    """
    for before in range(3):
        encoded = alphabet(bytes(before) + part)
        yield encoded[(before * 8 + 5) // 6 : (before + len(part)) * 8 // 6]


def _rows(part: bytes, alphabet: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """Wrapped, the rows counted from its beginning: otherwise where they end is unknown."""
    whole = alphabet(part)[: len(part) * 8 // 6]
    for width in _WRAPS:
        for start in range(0, len(whole) if len(whole) > width else 0, width):
            row = whole[start : start + width]
            if len(row) >= EASY:
                yield row
            else:  # with the row before it, by either line end
                before_it = whole[start - EASY : start]
                yield before_it + b"\n" + row
                yield before_it + b"\r\n" + row


def _percent(part: bytes) -> Iterator[bytes]:
    for digits in (b"%%%02X", b"%%%02x"):
        for kept in _KEPT:
            quoted = _quoted(part, kept, digits)
            yield quoted
            yield quoted.replace(b"%20", b"+")


def _quoted(part: bytes, kept: bytes = b"", digits: bytes = b"%%%02X") -> bytes:
    plain = _UNRESERVED.union(kept)
    return b"".join(bytes([byte]) if byte in plain else digits % byte for byte in part)


def _json(part: bytes) -> Iterator[bytes]:
    if not _is_text(part):
        return
    text = part.decode()
    ascii_only = json.dumps(text)[1:-1]
    as_it_is = json.dumps(text, ensure_ascii=False)[1:-1]
    html_safe = re.sub(r"[<>&'\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", as_it_is)
    forms = {ascii_only, as_it_is, html_safe}
    forms |= {re.sub(r"[<>&']", lambda found: f"\\u{ord(found[0]):04x}", ascii_only)}
    forms |= {form.replace("/", "\\/") for form in forms}
    for form in forms:
        yield form.encode()
        yield _UNICODE.sub(lambda found: f"\\u{found[1].upper()}", form).encode()
    # As Python, and most languages with backslashes, show a string.
    for shown in (repr(text), repr(text.encode())[1:]):
        yield shown[1:-1].encode()


def _is_text(part: bytes) -> bool:
    try:
        part.decode()
    except UnicodeDecodeError:
        return False
    return True


def _utf16(text: str) -> list[int]:
    data = text.encode("utf-16-be")
    return [data[at] << 8 | data[at + 1] for at in range(0, len(data), 2)]


def _shell(part: bytes) -> Iterator[bytes]:
    yield part.replace(b"'", b"'\"'\"'")  # between single quotes, as Python does it
    yield part.replace(b"'", rb"'\''")  # and as shells do
    yield _SHELL_PLAIN.sub(rb"\\\1", part)  # printf %q
    yield re.sub(rb'([\\"$`])', rb"\\\1", part)  # between double quotes


def _pieces(form: bytes) -> Iterator[bytes]:
    """The form, or pieces that together cover it where it is long."""
    if len(form) < LEAST:
        return
    for start in range(0, max(len(form) - LONGEST, 0), LONGEST):
        yield form[start : start + LONGEST]
    yield form[-LONGEST:]  # may lie over the one before it
