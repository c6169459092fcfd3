"""docs/limits.md is the one table of limits: the same names, the same values, and a test each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from fleetwire.core import limits

UNITS = {"KIB", "MIB"}


class Row(NamedTuple):
    name: str
    value: str
    test: str | None


def rows(root: Path) -> list[Row]:
    """Read the tables: limits have four columns and a test, defaults have three and none."""
    found = []
    for line in (root / "docs/limits.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if name := re.fullmatch(r"`([A-Z_]+)`", cells[0].strip()):
            test = cells[3].rstrip("| ") if len(cells) == 4 else None
            found.append(Row(name[1], cells[1], test))
    return found


def test_table_and_code_name_the_same_limits(root: Path) -> None:
    in_code = {name: value for name, value in vars(limits).items() if name.isupper()}
    in_table = {row.name: row.value for row in rows(root)}
    assert in_table == {name: str(value) for name, value in in_code.items() if name not in UNITS}


def test_no_limit_stands_twice(root: Path) -> None:
    listed = [row.name for row in rows(root)]
    assert len(listed) == len(set(listed))


ROWS = [row for row in rows(Path(__file__).resolve().parents[2]) if row.test]


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_every_limit_has_a_test_marked_with_its_name(root: Path, row: Row) -> None:
    """`@pytest.mark.limit("selector_bytes")` stands at the test that tries the limit."""
    module = root / str(row.test)
    assert module.is_file(), f"{row.test} does not exist"
    text = module.read_text()
    assert "mark.limit(" in text
    assert f'"{row.name.lower()}"' in text, f"{row.test} has no test marked for {row.name}"
