"""Copies of all that a server keeps, and what follows when one is put back (promise P26).

A backup is taken from a server that goes on serving: SQLite's own online copy of the record
first, of the log segments after it. Bytes of a log are durable before the record speaks of them
(5.7), so the logs of a backup hold at least all that its record promises.

What is put back is older than the world. The record is marked so (`domain.restore`) before any
server may use it: epochs go past all that were ever given, and what was waiting is held until the
nodes have said whether it ran since.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from fleetwire.core.errors import FleetwireError
from fleetwire.server import signing
from fleetwire.server.app import data_folder, now_us, shell_user
from fleetwire.server.config import Config
from fleetwire.server.domain import audit, cluster, restore
from fleetwire.server.files import CA, CA_KEY, TLS_FOLDER, sync, write_private
from fleetwire.server.nudges.memory import MemoryNudges
from fleetwire.server.store.engine import Database, Tx

FORMAT: Final = 1
MANIFEST: Final = "backup.json"
RECORD: Final = "fleetwire.db"
LOGS: Final = "logs"
SECRETS: Final = (
    "server-key", "server-key.next", "server-keys.json", "admin-password",
    f"{TLS_FOLDER}/{CA_KEY}", f"{TLS_FOLDER}/{CA}",
)  # fmt: skip


class BackupFailed(FleetwireError):
    """A backup cannot be made, or cannot be put back."""

    code = "backup-failed"


class Manifest(msgspec.Struct, frozen=True):
    """What stands in `backup.json`, which is written last. `at` is microseconds since 1970."""

    format: int
    at: int
    segments: list[str]


def backup(config: Config, to: Path) -> Manifest:
    """Copy a data folder into the new folder `to`, whole or not at all, while its server runs or
    not. Raises BackupFailed.
    """
    record = _record(config)
    if not record.exists():
        raise BackupFailed(
            f"There is no record at {record}.", hint="Name the server's folder with --data."
        )
    if to.exists():
        raise BackupFailed(f"{to} is there already.", hint="Name a folder that is not there yet.")
    draft = to.with_name(f"{to.name}.partial")
    try:
        if draft.exists():
            shutil.rmtree(draft)  # of a backup that was cut short
        (draft / LOGS).mkdir(mode=0o700, parents=True)
        draft.chmod(0o700)
        manifest = _copy_all(config.data, record, draft)
        draft.rename(to)
        sync(to.parent)
    except (OSError, sqlite3.Error) as error:
        raise BackupFailed(
            f"The backup to {to} failed: {error}.",
            hint="Nothing of it counts; mend the cause and begin again.",
        ) from error
    return manifest


def _copy_all(data: Path, record: Path, draft: Path) -> Manifest:
    at = now_us()
    _copy_database(record, draft / RECORD)
    logs = data / LOGS
    segments = []
    for path in sorted(logs.glob("*.db")):
        with contextlib.suppress(FileNotFoundError):  # retention deleted it just now
            _copy_database(path, draft / LOGS / path.name)
            segments.append(path.stem)
    for path in [*logs.glob("*.gone"), *(data / name for name in SECRETS)]:
        if path.exists():
            _copy_file(path, draft / path.relative_to(data))
    manifest = Manifest(FORMAT, at, segments)
    write_private(draft / MANIFEST, msgspec.json.encode(manifest))
    sync(draft / LOGS)
    return manifest


def put_back(source: Path, config: Config, *, nothing_since: bool) -> Manifest:
    """Make a data folder from a backup. Where anything may have happened since it was taken,
    mark the record so. Raises BackupFailed, and CannotStart while a server uses the folder.
    """
    record = _record(config)
    manifest = _read_manifest(source)
    with data_folder(config.data):
        there = sorted(path.name for path in config.data.iterdir() if path.name != "server.lock")
        if record.exists() and record.parent != config.data:
            there.append(str(record))
        if there:
            raise BackupFailed(
                f"{config.data} is not empty: it holds {', '.join(there[:5])}.",
                hint="Move it away first; a backup is put back into an empty folder.",
            )
        try:
            (config.data / LOGS).mkdir(mode=0o700)
            for path in [*source.glob(f"{LOGS}/*"), *(source / name for name in SECRETS)]:
                if path.is_file():
                    _copy_file(path, config.data / path.relative_to(source))
            # The record last: a folder without it is no server's, and can be filled again.
            draft = record.with_name(f"{record.name}.new")
            _copy_file(source / RECORD, draft)
            _check(draft)
            _mark(f"sqlite:///{draft}", nothing_since=nothing_since)
            _fold_journal(draft)
            draft.rename(record)
            sync(config.data)
        except (OSError, sqlite3.Error) as error:
            raise BackupFailed(
                f"The backup {source} could not be put back: {error}.",
                hint=f"Empty {config.data}, mend the cause and begin again.",
            ) from error
    return manifest


def mark_restored(config: Config) -> int:
    """Mark a record that was put back by other means (a dump of PostgreSQL, a copied disk) as
    older than the world; return its generation. No server may use it meanwhile.
    """
    if config.database_url.startswith("sqlite:"):
        with data_folder(config.data):
            return _mark(config.database_url)
    return _mark(config.database_url)


def rotate_signing_key(config: Config) -> str:
    """Put a new signing key in the place of the server's, which must not run; return its id."""
    if not config.data.is_dir():
        raise BackupFailed(f"There is no {config.data}.", hint="Name the server's --data folder.")
    with data_folder(config.data):
        cluster = asyncio.run(_cluster(config.database_url))
        return signing.rotate(config.data, cluster=cluster, now=now_us()).key_id


async def _cluster(url: str) -> str:
    database = Database.open(url, nudges=MemoryNudges(), clock=now_us)
    try:
        found = await database.read(cluster.id_of)
    finally:
        await database.close()
    if found is None:
        raise BackupFailed("No server has ever run here.", hint="Start it once first.")
    return found


def _mark(url: str, *, nothing_since: bool = False) -> int:
    """Say in a record that it was put back, and is older than the world unless `nothing_since`;
    return its generation.
    """

    def put_back(tx: Tx) -> int:
        since = cluster.generation(tx) if nothing_since else restore.begin_doubt(tx)
        said = "yes" if nothing_since else "no"
        audit.say_by_shell(tx, "server.restore", user=shell_user(), nothing_since=said)
        return since

    async def mark() -> int:
        database = Database.open(url, nudges=MemoryNudges(), clock=now_us)
        try:
            return await database.write(put_back)
        finally:
            await database.close()

    return asyncio.run(mark())


def _record(config: Config) -> Path:
    if config.database is not None and not config.database.startswith("sqlite:///"):
        raise BackupFailed(
            "The record of this server is in PostgreSQL, which has its own backups.",
            hint="Use pg_dump and pg_restore, then `fleetwire server raise-generation`.",
        )
    return Path(config.database_url.removeprefix("sqlite:///"))


def _read_manifest(source: Path) -> Manifest:
    try:
        manifest = msgspec.json.decode((source / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise BackupFailed(
            f"{source} is no whole backup: {MANIFEST} cannot be read ({error}).",
            hint="Name a folder that `fleetwire server backup` made.",
        ) from error
    if manifest.format != FORMAT:
        raise BackupFailed(
            f"{source} has the format {manifest.format}, which this version does not know.",
            hint="Install a newer Fleetwire.",
        )
    return manifest


def _copy_database(source: Path, to: Path) -> None:
    """Copy a database as it is in one moment, whoever writes to it. Raises FileNotFoundError."""
    if not source.exists():
        raise FileNotFoundError(source)
    os.close(os.open(to, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    with _opened(source, "rw") as original, _opened(to, "rw") as copy:
        original.execute("PRAGMA query_only = ON")
        original.backup(copy)  # in one step: one snapshot
    _fold_journal(to)


def _fold_journal(path: Path) -> None:
    """Move the write-ahead log into the file, and the file onto the disk."""
    with _opened(path, "rw") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    sync(path)


def _check(path: Path) -> None:
    with _opened(path, "rw") as connection:
        (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if said != "ok":
        raise BackupFailed(f"The record of the backup is damaged: {said}.", hint="Use another one.")


@contextlib.contextmanager
def _opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=30.0)) as connection:
        yield connection


def _copy_file(source: Path, to: Path) -> None:
    to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with source.open("rb") as original, os.fdopen(descriptor, "wb") as copy:
        shutil.copyfileobj(original, copy, 1024 * 1024)
        copy.flush()
        os.fsync(copy.fileno())


def moment(at: int) -> str:
    """Return a time for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at / 1e6))
