"""`fleetwire completion`: shell scripts that ask `fleetwire completion --words`.

The scripts are a few lines that never need to change: what can come next is found here, from
the same table and parsers that read the command line. Node names and run ids are asked of the
server, for at most a moment; where that fails there are simply no suggestions.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Final

from fleetwire.cli.app import Leaf, parser_of
from fleetwire.cli.commands import COMMANDS, below
from fleetwire.cli.parsing import Option, Parser
from fleetwire.core.visible import one_line

SHELLS: Final = ("bash", "zsh", "fish")
ASK_S: Final = 0.5
FILES: Final = ":files"
FOLDERS: Final = ":folders"
_WORD: Final = re.compile(r"[A-Za-z0-9._:@/=+-]+")

_BASH: Final = """\
_fleetwire() {
    local IFS=$'\\n' cur="${COMP_WORDS[COMP_CWORD]}"
    local found
    found=$(fleetwire completion --words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    case "$found" in
        :files) compopt -o filenames; COMPREPLY=($(compgen -f -- "$cur")) ;;
        :folders) compopt -o filenames; COMPREPLY=($(compgen -d -- "$cur")) ;;
        *) COMPREPLY=($(compgen -W "$(cut -f1 <<<"$found")" -- "$cur")) ;;
    esac
}
complete -F _fleetwire fleetwire
"""

_ZSH: Final = """\
#compdef fleetwire
_fleetwire() {
    local -a found described
    found=("${(@f)$(fleetwire completion --words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    case "${found[1]}" in
        :files) _files; return ;;
        :folders) _files -/; return ;;
    esac
    local line
    for line in $found; do
        [[ -n $line ]] && described+=("${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}")
    done
    _describe fleetwire described
}
if [ "$funcstack[1]" = "_fleetwire" ]; then _fleetwire "$@"; else compdef _fleetwire fleetwire; fi
"""

_FISH: Final = """\
function __fleetwire
    set -l words (commandline -opc) (commandline -ct)
    set -l found (fleetwire completion --words -- $words[2..-1] 2>/dev/null)
    switch "$found[1]"
        case ':files'
            __fish_complete_path (commandline -ct)
        case ':folders'
            __fish_complete_directories (commandline -ct)
        case '*'
            printf '%s\\n' $found
    end
end
complete -c fleetwire -f -a '(__fleetwire)'
"""

_SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def configure(parser: Parser) -> None:
    """Describe the arguments."""
    parser.tail = "[-- WORD ...]"
    parser.examples += [
        "fleetwire completion bash > ~/.local/share/bash-completion/completions/fleetwire",
        "fleetwire completion zsh > ~/.zfunc/_fleetwire",
        "fleetwire completion fish > ~/.config/fish/completions/fleetwire.fish",
    ]
    parser.positional("shell", nargs="?", choices=SHELLS, help="bash, zsh or fish")
    parser.option("--words", action="store_true", help="what may follow these words (for shells)")


def call(values: argparse.Namespace) -> int:
    """Print a script, or what can come next."""
    if values.words:
        for word, told in candidates(values.tail or [""]):
            sys.stdout.write(f"{word}\t{told}\n" if told else f"{word}\n")
        return 0
    if values.shell is None:
        from fleetwire.cli.errors import UsageError

        raise UsageError("For which shell?", hint="fleetwire completion bash, zsh or fish")
    sys.stdout.write(_SCRIPTS[values.shell])
    return 0


def candidates(words: list[str]) -> Iterator[tuple[str, str]]:
    """Yield what may stand for the last of these words, each with a few words about it."""
    *before, current = words
    for word, told in _possible(before, current):
        # Shells expand what they are given: no word of somebody else may hold more than a name.
        if word.startswith((current, ":")) and _WORD.fullmatch(word):
            yield word, one_line(told)


def _possible(before: list[str], current: str) -> Iterator[tuple[str, str]]:
    if not before:
        for command in COMMANDS.values():
            if len(command.words) == 1:
                yield command.words[0], command.summary
        return
    if before[0] not in COMMANDS or "--" in before:
        return
    command = COMMANDS[before[0]]
    rest = before[1:]
    children = below(before[0])
    if rest and f"{before[0]} {rest[0]}" in COMMANDS:
        command = COMMANDS[f"{before[0]} {rest[0]}"]
        rest = rest[1:]
    elif children and not rest:
        for child in children:
            yield child.words[-1], child.summary
    parser = parser_of(command)
    by_name = {name: option for option in parser.arguments for name in option.names}
    last = by_name.get(rest[-1]) if rest else None
    if last is not None and last.metavar is not None:
        yield from _values(last)
        return
    if current.startswith("-"):
        for option in parser.arguments:
            if not option.positional:
                yield option.names[0], option.help
        return
    for option in parser.arguments:
        if option.positional:
            yield from _values(option)


def _values(option: Option) -> Iterator[tuple[str, str]]:
    for choice in option.choices:
        yield choice, ""
    if option.completes == "file":
        yield FILES, ""
    elif option.completes == "folder":
        yield FOLDERS, ""
    elif option.completes is not None:
        from fleetwire.core.errors import FleetwireError

        # A shell waits at each press of the key: no server, no suggestions, no word about it.
        with contextlib.suppress(FleetwireError):
            yield from _asked(option.completes)


def _asked(what: str) -> Iterator[tuple[str, str]]:
    from itertools import islice

    from fleetwire.cli.connect import connect
    from fleetwire.cli.show import short

    with connect(patience=0.0, timeout=ASK_S) as client:
        if what == "node":
            for node in islice(client.nodes(), 500):
                yield one_line(node.name), node.link
        else:
            for run in islice(client.runs(page=30), 30):
                yield short(run.id), one_line(run.name or run.outcome or run.state)


LEAVES = {"completion": Leaf(configure, call)}
