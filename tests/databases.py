"""The databases of tests: empty ones, and ones that have the schema already.

To make the schema takes longer than most tests: it is made once, by the migrations, and copied.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleetwire.server.nudges.memory import MemoryNudges
from fleetwire.server.store.engine import Database

FILE = "fleetwire.db"


class Databases:
    """Makes databases on the PostgreSQL server of this run (its URL), or SQLite files where there
    is none; `folder` is for what is copied.
    """

    def __init__(self, server: str | None, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._template = ""

    @contextmanager
    def empty(self, folder: Path) -> Iterator[str]:
        """Give the URL of one with nothing in it; a file would stand in this folder."""
        if self._server is None:
            yield f"sqlite:///{folder / FILE}"
            return
        with self._created(self._server) as url:
            yield url

    @contextmanager
    def ready(self, folder: Path) -> Iterator[str]:
        """Give the URL of one with the newest schema and no row; a file stands in this folder."""
        if self._server is None:
            self._template = self._template or self._made()
            folder.mkdir(mode=0o700, exist_ok=True)
            yield f"sqlite:///{shutil.copy(self._template, folder / FILE)}"
            return
        self._template = self._template or self._made_on(self._server)
        with self._created(self._server, self._template) as url:
            yield url

    def _made(self) -> str:
        path = self._folder / FILE
        _migrate(f"sqlite:///{path}")
        return str(path)

    def _made_on(self, server: str) -> str:
        import psycopg  # noqa: PLC0415 - SQLite's runs do not need it

        name = f"schema_{uuid.uuid4().hex}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        _migrate(_url(server, name))
        return name

    @contextmanager
    def _created(self, server: str, template: str = "template1") -> Iterator[str]:
        import psycopg  # noqa: PLC0415 - SQLite's runs do not need it

        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
            yield _url(server, name)
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _migrate(url: str) -> None:
    async def main() -> None:
        await Database.open(url, nudges=MemoryNudges(), clock=lambda: 0).close()

    asyncio.run(main())


def _url(server: str, name: str) -> str:
    """Return the URL of a database of this server."""
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415 - SQLite's runs do not need it

    parts = conninfo_to_dict(server)
    host, user = parts.get("host") or "localhost", parts.get("user") or "postgres"
    rest = "".join(f"&{key}={parts[key]}" for key in ("port", "password") if parts.get(key))
    return f"postgresql:///{name}?host={host}&user={user}{rest}"
