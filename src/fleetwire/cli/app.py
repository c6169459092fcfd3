"""From argv to an exit code: find the command, import its module, call it, explain errors.

No traceback is ever shown: an expected error is three parts (what, why, what to do), an
unexpected one is a short line and the file that holds the details.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from fleetwire.cli.commands import COMMANDS, GROUPS, Command, below
from fleetwire.cli.errors import DETACHED, FAILED, USAGE, UsageError, exit_code_of
from fleetwire.core.errors import FleetwireError

if TYPE_CHECKING:
    import argparse

    from fleetwire.cli.parsing import Parser


class Leaf(NamedTuple):
    """What a command's module gives: `LEAVES = {name: Leaf(configure, call)}`."""

    configure: Callable[[Parser], None]
    call: Callable[[argparse.Namespace], int]


def run(words: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. Streams are those of `sys`."""
    words = list(sys.argv[1:] if words is None else words)
    _open_closed_streams()
    try:
        code = _call(words)
        sys.stdout.flush()  # here, where it can be explained, and not when Python leaves
        return code
    except FleetwireError as error:
        _explain(error)
        return exit_code_of(error)
    except KeyboardInterrupt:
        _say("Interrupted.")
        return DETACHED
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`): not an error of ours. Python would
        # complain again when it flushes at exit, so that stdout goes nowhere from here on.
        _write_nowhere()
        return FAILED
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            return _fault(error)
        _write_nowhere()
        _say(f"fleetwire: Nothing more can be written: {os.strerror(error.errno)}.")
        _say("Free some space, or send the output elsewhere.")
        return FAILED
    except Exception as error:  # noqa: BLE001 - the last resort: details go to a file
        return _fault(error)


def _fault(error: Exception) -> int:
    _say(f"fleetwire: {type(error).__name__}: {error}")
    _say(f"This is a fault of Fleetwire. The details are in {_keep_details()}.")
    return FAILED


def _write_nowhere() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _open_closed_streams() -> None:
    """Give a stream that was closed for us (`>&-`) to /dev/null. Python leaves it None, and the
    next file that is opened would take its number.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def leaf_of(command: Command) -> Leaf:
    """Import a command's module and return its part for this command."""
    leaves: dict[str, Leaf] = importlib.import_module(command.module).LEAVES
    return leaves[command.name]


def parser_of(command: Command) -> Parser:
    """Return the parser of a command, ready to read words."""
    from fleetwire.cli.parsing import Parser

    parser = Parser(command.name, command.summary)
    leaf_of(command).configure(parser)
    parser.common()
    return parser


def find(words: Sequence[str]) -> tuple[Command, list[str]]:
    """Return the command that these words begin with, and the rest of them."""
    noun = words[0]
    command = COMMANDS.get(noun)
    if command is None:
        raise _unknown(noun, sorted({name.partition(" ")[0] for name in COMMANDS}), "fleetwire")
    rest = list(words[1:])
    children = below(noun)
    if children and rest and not rest[0].startswith("-"):
        child = COMMANDS.get(f"{noun} {rest[0]}")
        if child is None:
            raise _unknown(rest[0], [one.words[-1] for one in children], f"fleetwire {noun}")
        return child, rest[1:]
    return command, rest


def _call(words: list[str]) -> int:
    if not words or words[0] in {"--help", "-h", "help"}:
        if words[1:] and words[0] == "help":
            return _call([*words[1:], "--help"])
        sys.stdout.write(overview())
        return USAGE if not words else 0
    if words[0] in {"--version", "-V", "version"}:
        from fleetwire import __version__

        sys.stdout.write(f"fleetwire {__version__}\n")
        return 0
    if words[0].startswith("-"):
        raise UsageError(
            f"There is no option {words[0]!r} before the command.",
            hint="Options follow their command; `fleetwire --help` lists the commands.",
        )
    command, rest = find(words)
    parser = parser_of(command)
    tail: list[str] = []
    if parser.tail and "--" in rest:
        cut = rest.index("--")
        rest, tail = rest[:cut], rest[cut + 1 :]
    values = parser.read(rest)
    if values.help:
        sys.stdout.write(parser.format_help() + _children_help(command))
        return 0
    if parser.tail:
        values.tail = tail
    return leaf_of(command).call(values)


def overview() -> str:
    """Return what `fleetwire --help` prints."""
    import textwrap

    lines = ["fleetwire COMMAND [options]", "", "Command a fleet of machines.", ""]
    for title, nouns in GROUPS:
        lines.append(f"{title}:")
        for noun in nouns:
            lines.append(f"  {noun:12}{COMMANDS[noun].summary}")
            children = ", ".join(child.words[-1] for child in below(noun))
            if children:
                more = textwrap.wrap(f"also: {noun} {children}", 84, break_on_hyphens=False)
                lines += [f"  {'':12}{line}" for line in more]
        lines.append("")
    lines += [
        "`fleetwire COMMAND --help` shows its options and an example.",
        "",
        "Example:",
        "  fleetwire run --on 'os=linux' -- uname -a",
        "",
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 server not reachable, 4 not allowed,",
        "5 lost, refused or expired, 130 detached. One node, one task: the script's own.",
    ]
    return "\n".join(lines) + "\n"


def _children_help(command: Command) -> str:
    children = below(command.words[0]) if len(command.words) == 1 else []
    if not children:
        return ""
    rows = [f"  fleetwire {child.name:14}  {child.summary}" for child in children]
    return "\n".join(["", "Commands below it:", *rows]) + "\n"


def _unknown(word: str, known: Sequence[str], prefix: str) -> UsageError:
    from fleetwire.cli.parsing import shown_word, suggestion

    nearest = suggestion(word, known)
    hint = f"Did you mean `{prefix} {nearest}`? " if nearest else ""
    return UsageError(
        f"`{prefix}` has no command {shown_word(word)}.",
        hint=f"{hint}There are: {', '.join(known)}.",
    )


def _explain(error: FleetwireError) -> None:
    _say(f"fleetwire: {error.detail}")
    labels = getattr(error, "labels", None)
    listed = isinstance(labels, dict) and bool(labels)
    if error.hint and not listed:
        _say(error.hint)
    if isinstance(labels, dict) and listed:
        _say("Labels that exist:")
        for key in sorted(labels):
            values = labels[key]
            text = ", ".join(map(str, values)) if isinstance(values, list) else str(values)
            _say(f"  {key} = {text}")


def _say(line: str) -> None:
    """Write a line to stderr, text of others made visible; where nobody can read it any more, that
    is no further error.
    """
    from fleetwire.cli.visible import visible_text

    try:
        sys.stderr.write(f"{visible_text(line)}\n")
        sys.stderr.flush()
    except OSError:
        return


def _keep_details() -> str:
    """Write the traceback of the current exception to a private file and return its path."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile(
        "w", prefix="fleetwire-", suffix=".log", delete=False, encoding="utf-8"
    ) as file:
        file.write(f"{sys.version}\n{sys.argv}\n\n{traceback.format_exc()}")
    return file.name
