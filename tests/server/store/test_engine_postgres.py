"""What only a server apart can do to the engine: break the connection, at the worst moment."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Self

import pytest
import sqlalchemy as sa

from fleetwire.server.durable import postgres
from fleetwire.server.nudges.memory import MemoryNudges
from fleetwire.server.store.engine import CommitUnknown, Database, DatabaseUnavailable, Tx


def add(table: sa.Table, number: int) -> Callable[[Tx], int]:
    def use_case(tx: Tx) -> int:
        tx.connection.execute(table.insert(), {"number": number})
        return 1

    return use_case


def count(table: sa.Table) -> Callable[[sa.Connection], int | None]:
    return lambda c: c.scalar(sa.select(sa.func.count()).select_from(table))


def kill(database_url: str, what: str) -> None:
    import psycopg  # noqa: PLC0415 - SQLite's runs do not need it

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name = %s AND datname = current_database()",
            (f"fleetwire {what}",),
        )


def test_a_connection_lost_during_commit_is_unknown(
    with_database: Callable[..., None], table: sa.Table, database_url: str, nudges: MemoryNudges
) -> None:
    async def test(database: Database) -> None:
        commit = database._shell.commit

        def lose(connection: sa.Connection) -> None:
            kill(database_url, "writer")
            commit(connection)

        database._shell.commit = lose  # type: ignore[method-assign]
        async with nudges.listen("never") as listener:
            with pytest.raises(CommitUnknown):
                await database.write(lambda tx: (add(table, 1)(tx), tx.nudge("never")))
            database._shell.commit = commit  # type: ignore[method-assign]
            assert await listener.wait(0.01) == set()
        assert await database.write(add(table, 2)) == 1  # on a new connection
        assert await database.read(count(table)) == 1

    with_database(test)


def test_a_connection_lost_before_commit_stored_nothing(
    with_database: Callable[..., None], table: sa.Table, database_url: str
) -> None:
    async def test(database: Database) -> None:
        def lost(tx: Tx) -> None:
            add(table, 1)(tx)
            kill(database_url, "writer")
            add(table, 2)(tx)

        async with asyncio.TaskGroup() as group:
            for n in (10, 11):
                group.create_task(database.write(add(table, n)))
        with pytest.raises(DatabaseUnavailable):
            await database.write(lost)
        assert await database.write(add(table, 3)) == 1
        assert await database.read(count(table)) == 3

    with_database(test)


def test_a_reader_gets_a_new_connection(
    with_database: Callable[..., None], table: sa.Table, database_url: str
) -> None:
    async def test(database: Database) -> None:
        assert await database.read(count(table)) == 0
        kill(database_url, "reader")
        with pytest.raises(DatabaseUnavailable):
            await database.read(count(table))
        assert await database.read(count(table)) == 0

    with_database(test)


def test_a_server_that_is_not_there_is_named(nudges: MemoryNudges) -> None:
    with pytest.raises(DatabaseUnavailable) as error:
        Database.open("postgresql://fleet:secret@127.0.0.1:1/fleet", nudges=nudges, clock=lambda: 0)
    assert "secret" not in str(error.value)


class Between:
    """A socket between a client and PostgreSQL, which can end as a backend does that crashes."""

    def __init__(self, folder: Path, server: str) -> None:
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen()
        self._thread = threading.Thread(target=self._accept)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.crash()
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        self.client, _ = self._listener.accept()
        self.backend = socket.socket(socket.AF_UNIX)
        self.backend.connect(f"{self._server}/.s.PGSQL.5432")
        back = threading.Thread(target=self._pass_on, args=(self.backend, self.client))
        back.start()
        self._pass_on(self.client, self.backend)
        back.join()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass

    def crash(self) -> None:
        """Send the notice of a crash, and close."""
        fields = b"SWARNING\0C57P02\0Mterminating connection because of crash\0\0"
        try:
            self.client.sendall(b"N" + struct.pack(">I", len(fields) + 4) + fields)
        except OSError:
            return  # it has crashed before
        for end in (self.client, self.backend):
            end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.mark.parametrize("step", ["begin", "commit"])
def test_a_server_that_crashed_is_known_to_be_gone(
    tmp_path: Path, database_url: str, step: str
) -> None:
    from psycopg import Error  # noqa: PLC0415 - SQLite's runs do not need it
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415 - as above

    parts = conninfo_to_dict(database_url)
    host = str(parts["host"])
    if not host.startswith("/"):
        pytest.skip("this database is not reached by a socket of this machine")
    with Between(tmp_path, host) as between:
        url = f"postgresql:///{parts['dbname']}?host={tmp_path}&user={parts['user']}"
        with closing(postgres.connect(url, name="test")) as connection:
            postgres.command(connection, b"BEGIN; SAVEPOINT one")
            between.crash()
            if step == "commit":
                with pytest.raises(CommitUnknown):
                    postgres.commit(connection)
            else:
                with pytest.raises(Error) as raised:
                    postgres.command(connection, b"RELEASE one; SAVEPOINT one")
                assert postgres.is_lost(connection, raised.value)
                assert isinstance(postgres.diagnose(raised.value), DatabaseUnavailable)
