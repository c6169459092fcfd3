"""From words to values: a thin layer over argparse (docs/decisions/0101-cli-parser.md).

argparse does the parsing; help and errors are ours, so that they are the same on every Python
and every error says what to type instead.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple, NoReturn

from fleetwire.cli.errors import UsageError

Completes = Literal["node", "run", "file", "folder"] | None

OUTPUTS: Final = ("text", "json", "jsonl")
WIDTH: Final = 92
"""Columns of a story in help; what is broken shorter stays as it is."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Option(NamedTuple):
    """What help and completion know of one option or argument."""

    names: tuple[str, ...]
    metavar: str | None
    help: str
    choices: tuple[str, ...]
    completes: Completes
    positional: bool

    @property
    def shown(self) -> str:
        """The option as help shows it."""
        words = [self.metavar or ""] if self.positional else [", ".join(self.names)]
        if self.metavar and not self.positional:
            words.append(self.metavar)
        return " ".join(words)


class _Formatter(argparse.HelpFormatter):
    """argparse makes one for each argument and asks for the terminal's width by a module that
    costs 4 ms to import; our help does not use it.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=80)


class Parser(argparse.ArgumentParser):
    """The arguments of one command."""

    def __init__(self, name: str, summary: str) -> None:
        super().__init__(
            prog=f"fleetwire {name}", add_help=False, allow_abbrev=False, formatter_class=_Formatter
        )
        self.name = name
        self.summary = summary
        self.arguments: list[Option] = []
        self.examples: list[str] = []
        self.story = ""
        self.tail = ""

    def option(
        self,
        *names: str,
        help: str,  # noqa: A002 - as argparse
        metavar: str | None = None,
        choices: Sequence[str] = (),
        completes: Completes = None,
        **more: Any,  # noqa: ANN401 - passed on to argparse
    ) -> None:
        """Add an option; further keywords are argparse's."""
        if choices:
            metavar = metavar or "|".join(choices)
            more["type"] = one_of(choices)
        if metavar is not None:
            more["metavar"] = metavar
        super().add_argument(*names, **more)
        self.arguments.append(Option(names, metavar, help, tuple(choices), completes, False))

    def positional(
        self,
        name: str,
        *,
        help: str,  # noqa: A002 - as argparse
        metavar: str | None = None,
        choices: Sequence[str] = (),
        completes: Completes = None,
        **more: Any,  # noqa: ANN401 - passed on to argparse
    ) -> None:
        """Add a positional argument; further keywords are argparse's."""
        metavar = metavar or name.upper()
        if choices:
            more["type"] = one_of(choices)
        super().add_argument(name, metavar=metavar, **more)
        shown = f"[{metavar}]" if more.get("nargs") == "?" else metavar
        self.arguments.append(Option((), shown, help, tuple(choices), completes, True))

    def common(self) -> None:
        """Add what every command has."""
        self.option(
            "--output", choices=OUTPUTS, default="text", help="text for people, json for programs"
        )
        self.option("--help", "-h", action="store_true", help="show this help")

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found, with the way to the help."""
        text = re.sub(r"^argument ([^:]+): ", r"\1: ", message)
        raise UsageError(f"{text[:1].upper()}{text[1:].rstrip('.')}.", hint=self._help_hint())

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """Return the values of these words, or raise UsageError."""
        if "--help" in words or "-h" in words:
            # Help wins over what is missing.
            return argparse.Namespace(help=True)
        values, unknown = self.parse_known_args(list(words))
        if unknown:
            word = unknown[0]
            if word.startswith("-"):
                known = [name for option in self.arguments for name in option.names]
                nearest = suggestion(word.partition("=")[0], known)
                raise UsageError(
                    f"`fleetwire {self.name}` has no option {shown_word(word)}.",
                    hint=(f"Did you mean {nearest}? " if nearest else "") + self._help_hint(),
                )
            if self.name == "run":
                raise UsageError(
                    f"Unexpected word {shown_word(word)}.",
                    hint="Put -- before the command: fleetwire run --on SELECTOR -- COMMAND ...",
                )
            raise UsageError(f"Unexpected word {shown_word(word)}.", hint=self._help_hint())
        return values

    def format_help(self) -> str:
        """Return the help of this command."""
        positional = [option for option in self.arguments if option.positional]
        options = [option for option in self.arguments if not option.positional]
        usage = " ".join(
            ["fleetwire", self.name, *(f"{o.metavar}" for o in positional), "[options]", self.tail]
        )
        lines = [usage.strip(), "", f"{self.summary[:1].upper()}{self.summary[1:]}."]
        if self.story:
            import textwrap

            lines.append("")
            for line in self.story.strip().split("\n"):
                lines += textwrap.wrap(line, WIDTH) or [""]
        rows = [(option.shown, option.help) for option in (*positional, *options)]
        width = max(len(left) for left, _ in rows if len(left) <= 30)
        lines.append("")
        for left, right in rows:
            if len(left) > width:
                lines += [f"  {left}", f"  {'':{width}}  {right}"]
            else:
                lines.append(f"  {left:{width}}  {right}")
        lines += ["", "Examples:" if len(self.examples) > 1 else "Example:"]
        lines += [f"  {example}" for example in self.examples]
        return "\n".join(lines) + "\n"

    def _help_hint(self) -> str:
        return f"See `fleetwire {self.name} --help`."


def suggestion(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that was most likely meant."""
    import difflib

    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return nearest[0] if nearest else None


def shown_word(word: str) -> str:
    """Return a word of the command line as it may stand in a message."""
    return repr(word if len(word) <= 60 else f"{word[:57]}...")


def one_of(choices: Sequence[str]) -> Callable[[str], str]:
    """Return a converter that takes only the choices, and names the nearest one."""

    def convert(text: str) -> str:
        if text in choices:
            return text
        nearest = suggestion(text, choices)
        meant = f" Did you mean {nearest}?" if nearest else ""
        raise argparse.ArgumentTypeError(
            f"{shown_word(text)} is not one of {', '.join(choices)}.{meant}"
        )

    return convert


def duration(text: str) -> float:
    """Return the seconds of `90s`, `10m`, `1h30m`, `2d`, `500ms` or a plain number of seconds."""
    try:
        return _plain_seconds(text)
    except ValueError:
        pass
    seconds = 0.0
    end = 0
    for match in _DURATION.finditer(text):
        if match.start() != end:
            break
        seconds += float(match[1]) * _UNITS[match[2]]
        end = match.end()
    if end == 0 or end != len(text):
        raise argparse.ArgumentTypeError(
            f"{shown_word(text)} is not a duration. Write 90s, 10m, 2h or 1h30m."
        )
    return seconds


def _plain_seconds(text: str) -> float:
    if not re.fullmatch(r"\d+(?:\.\d+)?", text, re.ASCII):
        raise ValueError(text)
    return float(text)


def count(text: str) -> int:
    """Return a whole number of at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{shown_word(text)} is not a number of 1 or more.")
    return int(text)


def size(text: str) -> int:
    """Return the bytes of `512M`, `2G`, `100K` or a plain number of bytes."""
    found = re.fullmatch(r"(\d{1,15})([KMGT]?)i?B?", text, re.ASCII | re.IGNORECASE)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{shown_word(text)} is not a size. Write 512M, 2G or a number of bytes."
        )
    return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[found[2].upper()]


def pair(text: str) -> tuple[str, str]:
    """Return key and value of `KEY=VALUE`."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise argparse.ArgumentTypeError(f"{shown_word(text)} is not KEY=VALUE.")
    return key, value
