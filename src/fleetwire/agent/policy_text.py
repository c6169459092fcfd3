"""The text of a local policy, read into a value. Every key is known, else the file is refused with
the line and what to do: a policy that is half understood is none.

    exec: allow                 # allow | deny; also: containers, files, terminal, updates
    users:                      # also: interpreters, paths, environment, signers
      allow: [deploy, nobody]   # nobody else; without `allow`, everybody
      deny: [root]              # wins over `allow`
    max_concurrent: 4
    max_output: 100M
    max_timeout: 2h
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from typing import Final, NoReturn

import yaml

from fleetwire.core import limits
from fleetwire.core.errors import FleetwireError
from fleetwire.core.policy import ACTIONS, LISTS, Action, Entry, Listing, ListName, Most, Policy
from fleetwire.core.policy import Switch as Switched

_MOST: Final = ("max_concurrent", "max_output", "max_timeout")
_KEYS: Final = (*ACTIONS, *LISTS, *_MOST)
_SIZE: Final = re.compile(r"(\d{1,18})([KMGT]?)")
_TIME: Final = re.compile(r"(\d{1,9})([smhd]?)")
_SIZES: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_TIMES: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class BadPolicy(FleetwireError):
    """A policy that cannot be read. `line` counts from 1; 0 where it is not about a line."""

    code = "bad-policy"

    def __init__(self, detail: str, *, line: int = 0, hint: str = "") -> None:
        super().__init__(f"line {line}: {detail}" if line else detail, hint=hint)
        self.line = line


def read(data: bytes) -> Policy:
    """Return the policy that a file of these bytes holds. Raises BadPolicy."""
    if len(data) > limits.POLICY_BYTES:
        raise BadPolicy(
            f"it has more than {limits.POLICY_BYTES} bytes", hint="Say it with fewer names."
        )
    try:
        text = data.decode("utf-8")
        # Tokens first: no alias is ever expanded, and nothing deep is built.
        _check_tokens(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise BadPolicy("it is not UTF-8 text", hint="Save it as UTF-8.") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        problem = error.problem or "it is not YAML"
        raise BadPolicy(problem, line=line, hint="Mend the line.") from error
    except yaml.YAMLError as error:
        raise BadPolicy("it has a character that YAML does not know", hint="Remove it.") from error
    if root is None:
        # Also what a file is for the instant in which an editor writes it anew.
        raise BadPolicy("it is empty", hint="To allow everything, delete it or write exec: allow.")
    return _policy(root)


def _check_tokens(text: str) -> None:
    depth = 0
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        line = token.start_mark.line + 1
        if isinstance(token, yaml.AliasToken | yaml.AnchorToken | yaml.TagToken):
            raise BadPolicy(
                "aliases, anchors and tags are not read", line=line, hint="Write the value itself."
            )
        if isinstance(
            token,
            yaml.BlockMappingStartToken
            | yaml.BlockSequenceStartToken
            | yaml.FlowMappingStartToken
            | yaml.FlowSequenceStartToken,
        ):
            depth += 1
            if depth > limits.POLICY_DEPTH:
                raise BadPolicy("it is nested too deep", line=line, hint="Use at most lists.")
        elif isinstance(
            token, yaml.BlockEndToken | yaml.FlowMappingEndToken | yaml.FlowSequenceEndToken
        ):
            depth -= 1


def _policy(root: yaml.Node) -> Policy:
    actions: dict[Action, Switched] = {}
    lists: dict[ListName, Listing] = {}
    most: dict[str, Most] = {}
    for key, value in _pairs(root, _KEYS, "a mapping of names to values"):
        line = value.start_mark.line + 1
        for action in ACTIONS:
            if key == action:
                word = _word(value, "allow or deny")
                if word not in {"allow", "deny"}:
                    _refuse(value, f"{key} is {word[:80]!r}", "Write allow or deny.")
                actions[action] = Switched(word == "allow", line)
        for name in LISTS:
            if key == name:
                lists[name] = _listing(name, value)
        if key in _MOST:
            most[key] = Most(_most(key, value), line)
    return Policy(actions=actions, lists=lists, **most)


def _listing(name: ListName, node: yaml.Node) -> Listing:
    allow: tuple[Entry, ...] | None = None
    deny: tuple[Entry, ...] = ()
    line = 0
    for key, value in _pairs(node, ("allow", "deny"), "`allow: [...]` and `deny: [...]`"):
        entries = tuple(_entries(name, value))
        if key == "allow":
            allow, line = entries, value.start_mark.line + 1
        else:
            deny = entries
    return Listing(allow, deny, line)


def _entries(name: ListName, node: yaml.Node) -> Iterable[Entry]:
    if not isinstance(node, yaml.SequenceNode):
        _refuse(node, "a list is needed here", "Write [one, another].")
    for each in node.value:
        text = _word(each, "a name")
        if not text or "\0" in text:
            _refuse(each, "a name is empty", "Remove it.")
        if name == "paths" and (not text.startswith("/") or os.path.normpath(text) != text):
            _refuse(each, f"{text[:80]!r} is no plain absolute path", "Write it like /srv/app.")
        if name == "environment" and "*" in text[:-1]:
            _refuse(each, f"{text[:80]!r} has a * before its end", "Use * as the last character.")
        yield Entry(text, each.start_mark.line + 1)


def _most(key: str, node: yaml.Node) -> float:
    text = _word(node, "a number")
    pattern, units = (_TIME, _TIMES) if key == "max_timeout" else (_SIZE, _SIZES)
    found = pattern.fullmatch(text)
    number = int(found[1]) * units[found[2]] if found else 0
    most = {"max_concurrent": limits.CAPACITY, "max_timeout": round(limits.TIMEOUT_S)}.get(
        key, limits.POLICY_OUTPUT_BYTES
    )
    if not 1 <= number <= most or (key == "max_concurrent" and not text.isdecimal()):
        example = {"max_timeout": "90s, 10m or 2h", "max_output": "100M"}.get(key, "4")
        _refuse(node, f"{key} is {text[:80]!r}", f"Write 1 to {most}, for example {example}.")
    return number


def _pairs(node: yaml.Node, known: Iterable[str], what: str) -> Iterable[tuple[str, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        _refuse(node, f"{what} is needed here", "See docs/security.md for an example.")
    known = list(known)
    seen: set[str] = set()
    for key_node, value in node.value:
        key = _word(key_node, "a name")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known are {', '.join(known)}."
            _refuse(key_node, f"unknown key {key[:80]!r}", hint)
        if key in seen:
            _refuse(key_node, f"{key} is said twice", "Keep one of them.")
        seen.add(key)
        yield key, value


def _word(node: yaml.Node, what: str) -> str:
    if not isinstance(node, yaml.ScalarNode):
        _refuse(node, f"{what} is needed here", "Write one word.")
    text = node.value
    if not isinstance(text, str):
        raise AssertionError("a scalar of YAML is a text")  # noqa: TRY004 (unreachable)
    return text


def _refuse(node: yaml.Node, detail: str, hint: str) -> NoReturn:
    raise BadPolicy(detail, line=node.start_mark.line + 1, hint=hint)
