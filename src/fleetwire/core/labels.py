"""Labels and the selector language over them (interfaces, 1).

    expression  = all { "||" all }
    all         = one { ( "," | "&&" ) one }
    one         = "(" expression ")" | "!" key | key [ test ]
    test        = ( "=" | "==" | "!=" ) value | [ "not" ] "in" "(" value { "," value } ")"

`,` means `&&` and binds tighter than `||`. `!=` and `notin` also match an absent key. An
unquoted value may hold the globs `*` and `?`; a value in double quotes is taken literally.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from fleetwire.core import limits
from fleetwire.core.errors import BadLabel, BadSelector

Selector = Callable[[Mapping[str, str]], bool]

_KEY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?")
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<word>[A-Za-z0-9._/*?:@%+~-]+)
      | "(?P<quoted>[^"\\]*(?:\\["\\][^"\\]*)*)"
      | (?P<sign>\|\||&&|!=|==|=|!|,|\(|\))
    )""",
    re.VERBOSE,
)
_END: Final = "end"


def check_labels(labels: Mapping[str, str]) -> None:
    """Raise BadLabel when a key or a value has a wrong form or there are too many."""
    if len(labels) > limits.LABELS_PER_NODE:
        raise BadLabel(
            f"{len(labels)} labels are too many.",
            hint=f"A node has at most {limits.LABELS_PER_NODE}.",
            field="labels",
        )
    for key, value in labels.items():
        if len(key) > limits.LABEL_KEY_CHARS or not _KEY.fullmatch(key):
            raise BadLabel(
                f"{key[:80]!r} is not a label key.",
                hint="Use letters, digits and . _ / - inside, at most 63 characters.",
                field="labels",
            )
        if len(value) > limits.LABEL_VALUE_CHARS or not value.isprintable():
            raise BadLabel(
                f"The value of label {key!r} is too long or has unprintable characters.",
                hint="Use at most 255 printable characters.",
                field=f"labels.{key}",
            )


def glob_matches(pattern: str, text: str) -> bool:
    """Match `*` (any run) and `?` (any one) in time O(len(pattern) * len(text)), never worse."""
    at = mark = 0
    star = -1
    i = 0
    while at < len(text):
        if i < len(pattern) and pattern[i] == "*":
            star, mark = i, at
            i += 1
        elif i < len(pattern) and (pattern[i] == "?" or pattern[i] == text[at]):
            i += 1
            at += 1
        elif star >= 0:
            i = star + 1
            mark += 1
            at = mark
        else:
            return False
    return all(char == "*" for char in pattern[i:])


def parse_selector(text: str) -> Selector:
    """Return a predicate over labels, or raise BadSelector with the position of the mistake."""
    if len(text.encode("utf-8", "surrogatepass")) > limits.SELECTOR_BYTES:
        raise BadSelector(
            f"The selector is longer than {limits.SELECTOR_BYTES} bytes",
            position=limits.SELECTOR_BYTES,
            hint="Give the nodes a common label instead of naming each.",
        )
    parser = _Parser(text)
    selector = parser.expression(0)
    parser.expect(_END, "an operator or the end")
    return selector


class _Parser:
    """Recursive descent, depth-limited; `kind` and `value` are the token under the cursor."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._next = 0
        self.kind = ""
        self.value = ""
        self.at = 0
        self.literal = False
        self.advance()

    def advance(self) -> None:
        match = _TOKEN.match(self._text, self._next)
        if match is None:
            rest = self._text[self._next :]
            self.at = self._next + len(rest) - len(rest.lstrip())
            if self.at < len(self._text):
                char = self._text[self.at]
                hint = "A quoted value ends with the same quote." if char == '"' else ""
                raise BadSelector(f"Unexpected {char!r}", position=self.at, hint=hint)
            self.kind, self.value, self.literal = _END, "", False
            return
        self._next = match.end()
        self.kind = str(match.lastgroup)
        self.value = match.group(self.kind)
        self.at = match.start(self.kind)
        self.literal = self.kind == "quoted"
        if self.kind == "sign":
            self.kind = self.value
        elif self.literal:
            self.kind, self.value = "word", re.sub(r"\\(.)", r"\1", self.value)

    def fail(self, wanted: str) -> BadSelector:
        found = "the end" if self.kind == _END else repr(self.value)
        return BadSelector(
            f"Expected {wanted}, found {found}",
            position=self.at,
            hint="Examples: os=linux   role in (web, db), !retired   (a=1 || b=2), name=web-*",
        )

    def expect(self, kind: str, wanted: str) -> str:
        if self.kind != kind:
            raise self.fail(wanted)
        value = self.value
        if kind != _END:
            self.advance()
        return value

    def expression(self, depth: int) -> Selector:
        parts = [self.all_of(depth)]
        while self.kind == "||":
            self.advance()
            parts.append(self.all_of(depth))
        return parts[0] if len(parts) == 1 else lambda labels: any(part(labels) for part in parts)

    def all_of(self, depth: int) -> Selector:
        parts = [self.one(depth)]
        while self.kind in {",", "&&"}:
            self.advance()
            parts.append(self.one(depth))
        return parts[0] if len(parts) == 1 else lambda labels: all(part(labels) for part in parts)

    def one(self, depth: int) -> Selector:
        if self.kind == "(":
            if depth + 1 > limits.SELECTOR_DEPTH:
                raise BadSelector(
                    f"More than {limits.SELECTOR_DEPTH} nested parentheses", position=self.at
                )
            self.advance()
            inner = self.expression(depth + 1)
            self.expect(")", "')'")
            return inner
        if self.kind == "!":
            self.advance()
            absent = self.key()
            return lambda labels: absent not in labels
        return self.test(self.key())

    def key(self) -> str:
        at = self.at
        key = self.expect("word", "a label key")
        if len(key) > limits.LABEL_KEY_CHARS or not _KEY.fullmatch(key):
            raise BadSelector(f"{key[:80]!r} is not a label key", position=at)
        return key

    def test(self, key: str) -> Selector:
        if self.kind in {"=", "=="}:
            self.advance()
            matches = self.a_value()
            return lambda labels: key in labels and matches(labels[key])
        if self.kind == "!=":
            self.advance()
            differs = self.a_value()
            return lambda labels: key not in labels or not differs(labels[key])
        if self.kind == "word" and self.value in {"in", "notin"} and not self.literal:
            wanted = self.value == "in"
            self.advance()
            values = self.values()
            return lambda labels: (
                (key in labels and any(value(labels[key]) for value in values)) is wanted
            )
        return lambda labels: key in labels

    def values(self) -> list[Callable[[str], bool]]:
        self.expect("(", "'('")
        values = [self.a_value()]
        while self.kind == ",":
            self.advance()
            values.append(self.a_value())
        self.expect(")", "',' or ')'")
        return values

    def a_value(self) -> Callable[[str], bool]:
        literal = self.literal
        value = self.expect("word", "a value")
        if literal or ("*" not in value and "?" not in value):
            return lambda text: text == value
        return lambda text: glob_matches(value, text)
