"""The console shows text of nodes as text: nothing in its sources makes HTML or code of a value."""

from __future__ import annotations

import re
from pathlib import Path

FORBIDDEN = re.compile(
    r"v-html|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
    r"|srcdoc|javascript:"
)
# An address made of data: only our own functions of paths, which escape each part, make one.
BOUND = re.compile(r"""(?:\s|:|v-bind:)(?::|v-bind:)(?:href|src|to|action|formaction)="([^"]*)\"""")


def sources(root: Path) -> list[Path]:
    web = root / "web/src"
    return [path for kind in ("*.vue", "*.ts") for path in web.rglob(kind)]


def test_no_value_becomes_html_or_code(root: Path) -> None:
    found = [
        f"{path.relative_to(root)}: {match[0]}"
        for path in sources(root)
        if "generated" not in path.parts and not path.name.endswith(".test.ts")
        for match in FORBIDDEN.finditer(path.read_text())
    ]
    assert found == []


def test_no_value_becomes_an_address(root: Path) -> None:
    found = [
        f"{path.relative_to(root)}: {match[0].strip()}"
        for path in sources(root)
        if "generated" not in path.parts
        for match in BOUND.finditer(path.read_text())
        if not match[1].startswith(("api.", "pages."))
    ]
    assert found == []
