"""Statements of the hot path: written in SQLAlchemy Core, run by the driver itself.

Core's way from a compiled statement to a row costs 60-100 us, the driver's 15: a run has some
twenty statements. So these are compiled once for each database and then given to the driver.
What comes back is what the driver returns: a boolean may be 0 or 1.

Errors are the driver's own; `engine` diagnoses them as it does Core's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from sqlalchemy import BindParameter, ClauseElement, Connection, String, bindparam
from sqlalchemy.engine import Dialect

AT_ONCE: Final = 512
"""Ids in one statement at most: below the parameter limits of both databases."""

ROWS_AT_ONCE: Final = 32
"""Rows of one statement that changes many, on SQLite. Its driver lets the interpreter's lock go
with every step, and a row would be a step: under load, most of its time is waiting for the lock.
"""

Ids: TypeAlias = list[BindParameter[str]]


class Compiled(NamedTuple):
    """SQL, the order of its parameters where the driver counts them, and the values that stand
    in the statement itself.
    """

    sql: str
    order: list[str] | None
    values: dict[str, Any]


class Prepared:
    """A statement with named parameters. `columns` are those that an INSERT or UPDATE sets."""

    def __init__(self, statement: ClauseElement, columns: Sequence[str] = ()) -> None:
        self._statement = statement
        self._columns = list(columns) or None
        self._known: dict[str, Compiled] = {}
        self._many: dict[int, str] = {}

    def rows(self, connection: Connection, parameters: Mapping[str, Any]) -> list[Any]:
        """Run it; return its rows as tuples."""
        return self._run(connection, parameters).fetchall()  # type: ignore[no-any-return]

    def first(self, connection: Connection, parameters: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a row
        """Run it; return its first row, or None."""
        return self._run(connection, parameters).fetchone()

    def change(self, connection: Connection, parameters: Mapping[str, Any]) -> int:
        """Run it; return how many rows it changed."""
        return int(self._run(connection, parameters).rowcount)

    def change_all(self, connection: Connection, many: Sequence[Mapping[str, Any]]) -> int:
        """Run it for each of `many`, no two for the same row; return how many rows were changed
        in all.
        """
        compiled = self._compiled(connection.dialect)
        driver = _driver(connection)
        arguments = [_arguments(compiled, one) for one in many]
        if compiled.order is None:
            cursor = driver.cursor()
            cursor.executemany(compiled.sql, arguments)
            return int(cursor.rowcount)
        changed = start = 0
        while left := len(arguments) - start:
            # Powers of two: few different statements for the driver to keep.
            size = min(ROWS_AT_ONCE, 1 << (left.bit_length() - 1))
            sql = self._many.get(size)
            if sql is None:
                sql = self._many[size] = of_many_rows(compiled.sql, size)
            given = tuple(itertools.chain.from_iterable(arguments[start : start + size]))
            changed += driver.execute(sql, given).rowcount
            start += size
        return changed

    def _run(self, connection: Connection, parameters: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a cursor
        return _execute(connection, self._compiled(connection.dialect), parameters)

    def _compiled(self, dialect: Dialect) -> Compiled:
        known = self._known.get(dialect.name)
        if known is None:
            known = self._known[dialect.name] = _compile(self._statement, dialect, self._columns)
        return known


class PreparedIn:
    """A statement over a list of ids, as a function of that list's parameters."""

    def __init__(self, statement: Callable[[Ids], ClauseElement]) -> None:
        self._statement = statement
        self._known: dict[tuple[str, int], Compiled] = {}

    def rows(
        self, connection: Connection, ids: Sequence[str], parameters: Mapping[str, Any] = {}
    ) -> list[Any]:
        """Run it, in parts if there are many ids; return its rows as tuples.

        The ids are filled up to a power of two by repeating the last one, so that few different
        statements have to be compiled here and planned there.
        """
        found: list[Any] = []
        for start in range(0, len(ids), AT_ONCE):
            part = list(ids[start : start + AT_ONCE])
            size = 1 << (len(part) - 1).bit_length()
            part += part[-1:] * (size - len(part))
            named = {f"id_{number}": id_ for number, id_ in enumerate(part)}
            compiled = self._compiled(connection.dialect, size)
            found += _execute(connection, compiled, {**parameters, **named}).fetchall()
        return found

    def _compiled(self, dialect: Dialect, size: int) -> Compiled:
        known = self._known.get((dialect.name, size))
        if known is None:
            ids: Ids = [bindparam(f"id_{number}", type_=String) for number in range(size)]
            known = self._known[dialect.name, size] = _compile(self._statement(ids), dialect, None)
        return known


def of_many_rows(sql: str, rows: int) -> str:
    """Return an INSERT of one row, or an UPDATE of one, as a statement of many rows. The values
    are counted, each `?` of it once for every row.
    """
    if rows == 1:
        return sql
    head, values, group = sql.rpartition(" VALUES ")
    if values:
        return f"{head}{values}{', '.join([group] * rows)}"
    first, *others = sql.split("?")
    named = first + "".join(f"many.column{n}{text}" for n, text in enumerate(others, 1))
    change, where, condition = named.partition(" WHERE ")
    group = f"({', '.join('?' * len(others))})"
    return f"{change} FROM (VALUES {', '.join([group] * rows)}) AS many{where}{condition}"


def _compile(statement: ClauseElement, dialect: Dialect, columns: list[str] | None) -> Compiled:
    compiled: Any = statement.compile(dialect=dialect, column_keys=columns)
    if compiled.post_compile_params:
        raise AssertionError(f"a list of values must be parameters or text: {compiled}")
    values = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
    order = list(compiled.positiontup) if compiled.positional else None
    return Compiled(str(compiled), order, values)


def _execute(connection: Connection, compiled: Compiled, parameters: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a cursor
    return _driver(connection).execute(compiled.sql, _arguments(compiled, parameters))


def _arguments(compiled: Compiled, parameters: Mapping[str, Any]) -> Any:  # noqa: ANN401 - as the driver wants them
    if compiled.values:
        parameters = {**compiled.values, **parameters}
    if compiled.order is None:
        return parameters
    return tuple(map(parameters.__getitem__, compiled.order))


def _driver(connection: Connection) -> Any:  # noqa: ANN401 - sqlite3's or psycopg's connection
    return connection.connection.dbapi_connection
