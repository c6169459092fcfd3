"""Words that may stand nowhere, and the looks that would find them."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote_from_bytes

import psutil

SHORTEST = 8


def forms(value: bytes) -> Iterator[bytes]:
    """How it might have been written down: made here by Python's means, not by the masker's."""
    lines = [line for line in value.splitlines() if len(line) >= SHORTEST]
    for part in {value.strip(b"\r\n"), *lines}:
        yield part
        yield part.hex().encode()
        yield part.hex().upper().encode()
        yield quote_from_bytes(part, safe="").encode()
        yield json.dumps(part.decode("latin-1"))[1:-1].encode()
        for before in range(3):
            encoded = base64.b64encode(bytes(before) + part)
            core = encoded[-(-before * 8 // 6) : (before + len(part)) * 8 // 6]
            yield core[:40]
            yield core[:40].replace(b"+", b"-").replace(b"/", b"_")


class Canaries:
    """Values by what they are called, each with the files that may hold it (their ends)."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self._homes: dict[str, tuple[str, ...]] = {}
        self._names: dict[bytes, str] = {}

    def add(self, name: str, value: str | bytes, *homes: str) -> None:
        whole = value.encode() if isinstance(value, str) else value
        assert len(whole.strip()) >= SHORTEST, name
        self.values[name] = whole
        self._homes[name] = homes
        self._names = {**self._names, **dict.fromkeys(forms(whole), name)}  # another thread looks

    def within(self, data: bytes) -> set[str]:
        """Return the names of those that stand in there."""
        return {name for form, name in self._names.items() if form in data}

    def files(self, folder: Path) -> dict[str, set[str]]:
        """Return which files of a folder hold one that they may not."""
        found = {}
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file() and not path.is_symlink():
                    names = {
                        name
                        for name in self.within(path.read_bytes())
                        if not str(path).endswith(self._homes[name])
                    }
                    if names:
                        found[str(path.relative_to(folder))] = names
        return found

    def tables(self, url: str) -> dict[str, set[str]]:
        """Return which tables of a PostgreSQL database hold one, in text or in bytes."""
        import psycopg  # noqa: PLC0415 - SQLite's runs do not need it

        found = {}
        with psycopg.connect(url) as connection:
            names = connection.execute(
                "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
                "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            ).fetchall()
            assert names
            for (table,) in names:
                with connection.cursor().copy(f"COPY {table} TO STDOUT") as copy:
                    rows = b"".join(bytes(row) for row in copy)
                if there := self.within(rows.replace(rb"\\", b"\\")):
                    found[table] = there
        return found


class Watch(threading.Thread):
    """Looks all the time at all argument lists, and at all environments but those of tasks."""

    def __init__(self, canaries: Canaries) -> None:
        super().__init__(daemon=True)
        self._canaries = canaries
        self.found: dict[str, set[str]] = {}
        self.ended = threading.Event()
        self._known: dict[int, bytes] = {}

    def run(self) -> None:
        while not self.ended.wait(0.04):  # an interpreter's start alone takes longer
            self.look()

    def look(self) -> None:
        """Look at every process, and search what executes something else than before."""
        for pid in psutil.pids():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                if self._known.get(pid) != words:
                    self._known[pid] = words
                    env = Path(f"/proc/{pid}/environ").read_bytes()
                    is_task = b"FLEETWIRE_ATTEMPT=" in env
                    text = words if is_task or pid == os.getpid() else words + env
                    if there := self._canaries.within(text):
                        self.found[f"{pid}: {words[:200]!r}"] = there

    def end(self) -> Mapping[str, set[str]]:
        """Stop looking; return what was found where. What lives now is looked at once more, for
        the values that were not known when it began.
        """
        self.ended.set()
        self.join()
        assert len(self._known) > 20
        self._known.clear()
        self.look()
        return self.found
