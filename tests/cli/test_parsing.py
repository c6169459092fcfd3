from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.cli.app import find, parser_of
from fleetwire.cli.commands import COMMANDS
from fleetwire.cli.errors import UsageError
from fleetwire.cli.parsing import count, duration, pair, size
from fleetwire.cli.run import request_of, shell_of
from fleetwire.core import specs


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("2h", 7200), ("1h30m", 5400), ("500ms", 0.5), ("1.5h", 5400),
     ("2d", 172800), ("45", 45), ("0.5", 0.5)],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "10x", "-5s", "1h 30m", "h1", "10m!", "inf", "nan", "1e3"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not a duration"):
        duration(text)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_durations_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


def test_counts_and_pairs() -> None:
    assert count("3") == 3
    assert pair("A=b=c") == ("A", "b=c")
    assert pair("A=") == ("A", "")
    for text in ("0", "-1", "x", "", "1.5", "\u0663"):
        with pytest.raises(argparse.ArgumentTypeError):
            count(text)
    for text in ("A", "=b", ""):
        with pytest.raises(argparse.ArgumentTypeError):
            pair(text)


def read(*words: str) -> argparse.Namespace:
    words, _, tail = " ".join(words).partition(" -- ")
    values = parser_of(COMMANDS["run"]).read(words.split())
    values.tail = tail.split() if tail else []
    return values


def test_words_are_joined_for_the_shell_as_ssh_does() -> None:
    request = request_of(read("--on os=linux -- echo a && echo b"))
    assert request.spec.script == "echo a && echo b\n"
    assert request.spec.shell == "sh"
    assert request.selector == "os=linux"


def test_all_flags_of_run(tmp_path: Path) -> None:
    script = tmp_path / "s"
    script.write_text("#!/usr/bin/env bash\necho $1\n")
    request = request_of(
        read(f"--node a --node b --any 1 --script {script} --env A=1 --env B= --timeout 10m",
             "--name nightly --tty -- one two")
    )  # fmt: skip
    assert request.nodes == ("a", "b")
    assert request.any == 1
    assert request.name == "nightly"
    spec = request.spec
    assert (spec.shell, spec.args, spec.env) == ("bash", ("one", "two"), {"A": "1", "B": ""})
    assert (spec.timeout, spec.tty) == (600, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("-- true", "Say where to run"),
        ("--on a --node b -- true", "not both"),
        ("--on a", "Say what to run"),
        ("--on a --script /nowhere/x", "cannot be read"),
    ],
)
def test_a_run_that_says_too_little_or_too_much(words: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        request_of(read(f" {words}"))


@pytest.mark.parametrize(
    ("first", "shell"),
    [("#!/bin/sh -e", "sh"), ("#!/bin/bash", "bash"), ("#!/usr/bin/env python3", "python"),
     ("#! /usr/bin/bash -eu", "bash"), ("#!/usr/bin/env -S bash", "bash"), ("echo", "sh"),
     ("#!", "sh"), ("#!/usr/bin/pwsh", "powershell")],
)  # fmt: skip
def test_the_shell_by_the_first_line(first: str, shell: str) -> None:
    assert shell_of(f"{first}\n") == shell


def test_find_takes_the_longest_command() -> None:
    assert find(["runs", "show", "x"])[0].name == "runs show"
    assert find(["runs", "--limit", "3"]) == (COMMANDS["runs"], ["--limit", "3"])


@pytest.mark.parametrize(
    ("words", "told"),
    [(["rnus"], "Did you mean `fleetwire runs`"), (["runs", "shwo"], "`fleetwire runs show`"),
     (["zzz"], "There are: agent, audit, completion")],
)  # fmt: skip
def test_unknown_commands_are_named_with_a_suggestion(words: list[str], told: str) -> None:
    with pytest.raises(UsageError) as failure:
        find(words)
    assert told in str(failure.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [("--nod x", "Did you mean --node"), ("--shell bsh", "Did you mean bash"),
     ("ls -la", "Put -- before the command"), ("--timeout soon", "not a duration"),
     ("--timeout", "expected one argument"), ("--an 3", "Did you mean --any")],
)  # fmt: skip
def test_unknown_options_and_values(words: str, told: str) -> None:
    with pytest.raises(UsageError) as failure:
        read(words)
    assert told in str(failure.value)


def test_a_run_of_a_script_file_is_called_like_the_file(tmp_path: Path) -> None:
    file = tmp_path / "nightly.sh"
    file.write_text("#!/bin/sh\nLC_ALL=C\ndf\n")
    assert request_of(read(f"--on os --script {file}")).name == "nightly.sh"
    assert request_of(read(f"--on os --name mine --script {file}")).name == "mine"
    assert request_of(read("--on os -- df")).name is None


@pytest.mark.parametrize(
    ("text", "count_"),
    [("0", 0), ("512M", 512 << 20), ("2g", 2 << 30), ("100KiB", 100 << 10), ("1TB", 1 << 40)],
)
def test_sizes(text: str, count_: int) -> None:
    assert size(text) == count_


@pytest.mark.parametrize("text", ["", "M", "-1", "1.5G", "1X", "\u0661", "9" * 16])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not a size"):
        size(text)


def test_the_flags_of_a_confined_run() -> None:
    words = "--on os --as www --memory 64M --cpus 0.5 --cpu-time 1m --processes 9 --files 64"
    spec = request_of(read(f"{words} --file-size 1K --core-size 0 -- df")).spec
    assert specs.run_as(spec) == "www"
    assert specs.resources(spec) == specs.Resources(
        memory=64 << 20, cpus=0.5, cpu_time=60, processes=9, files=64, file_size=1024, core=0
    )
    assert not specs.is_confined(request_of(read("--on os -- df")).spec)
