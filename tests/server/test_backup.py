"""Backups of a folder that is written to, and what may be put back where."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from fleetwire.server import backup
from fleetwire.server.app import CannotStart, data_folder
from fleetwire.server.backup import BackupFailed
from fleetwire.server.config import Config
from fleetwire.testing.heart import Serve


@pytest.fixture
def sqlite_only(database_url: str) -> None:
    if not database_url.startswith("sqlite:"):
        pytest.skip("not run: PostgreSQL has backups of its own")


def config(path: Path) -> Config:
    return Config(data=path)


@pytest.mark.usefixtures("sqlite_only")
async def test_a_backup_is_of_one_moment_and_its_logs_hold_what_it_promises(
    serve: Serve, tmp_path: Path
) -> None:
    async with serve() as one:
        node = await one.node("a")
        async with node.connected():
            stop = threading.Event()
            made: list[Path] = []

            def copy() -> None:
                while not stop.is_set() or not made:
                    to = tmp_path / f"backup-{len(made)}"
                    backup.backup(config(tmp_path), to)
                    made.append(to)

            copying = threading.Thread(target=copy)
            copying.start()
            try:
                for _ in range(15):
                    await one.wait_run(await one.submit())
            finally:
                stop.set()
                copying.join()
    for folder in made:
        _compare(folder)
    restored = config(tmp_path / "again")
    manifest = await put_back(made[-1], restored)
    assert manifest.segments
    _compare(restored.data)
    with closing(sqlite3.connect(restored.data / "fleetwire.db")) as record:
        facts = dict(record.execute("SELECT key, value FROM meta"))
        last = record.execute("SELECT action, via FROM audit_entries ORDER BY id DESC").fetchone()
    assert last == ("server.restore", "shell")
    assert "restored" in facts
    assert sum(key.startswith("doubt:") for key in facts) == 1


async def put_back(source: Path, to: Config) -> backup.Manifest:
    return await asyncio.to_thread(backup.put_back, source, to, nothing_since=False)


def _compare(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "fleetwire.db")) as record:
        promised = record.execute(
            "SELECT id, segment, log_length FROM attempts WHERE log_state = 'sealed'"
        ).fetchall()
    for attempt, segment, length in promised:
        with closing(sqlite3.connect(folder / "logs" / f"{segment}.db")) as logs:
            key = bytes.fromhex(attempt.replace("-", ""))
            (stored,) = logs.execute(
                "SELECT length FROM attempts WHERE attempt = ?", (key,)
            ).fetchone()
        assert stored == length
    assert (folder / "server-key").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.usefixtures("sqlite_only")
async def test_what_cannot_be_put_back_is_refused(serve: Serve, tmp_path: Path) -> None:
    async with serve():
        backup.backup(config(tmp_path), tmp_path / "b")
    with pytest.raises(BackupFailed, match="is there already"):
        backup.backup(config(tmp_path), tmp_path / "b")
    with pytest.raises(BackupFailed, match="no record"):
        backup.backup(config(tmp_path / "nowhere"), tmp_path / "c")
    with pytest.raises(BackupFailed, match="not empty"):
        await put_back(tmp_path / "b", config(tmp_path))
    with pytest.raises(BackupFailed, match="no whole backup"):
        await put_back(tmp_path / "logs", config(tmp_path / "d"))
    with data_folder(tmp_path / "e"), pytest.raises(CannotStart):
        await put_back(tmp_path / "b", config(tmp_path / "e"))
    record = tmp_path / "b" / "fleetwire.db"
    raw = bytearray(record.read_bytes())
    raw[4096 * 3 : 4096 * 9] = b"\xff" * (4096 * 6)
    record.write_bytes(raw)
    with pytest.raises(BackupFailed):
        await put_back(tmp_path / "b", config(tmp_path / "f"))
    postgres = Config(data=tmp_path, database="postgresql://host/name")
    with pytest.raises(BackupFailed, match="pg_dump"):
        backup.backup(postgres, tmp_path / "g")


def test_a_record_put_back_by_other_means_can_be_marked(tmp_path: Path) -> None:
    first = backup.mark_restored(config(tmp_path))
    assert backup.mark_restored(config(tmp_path)) > first
    with data_folder(tmp_path), pytest.raises(CannotStart):
        backup.mark_restored(config(tmp_path))
