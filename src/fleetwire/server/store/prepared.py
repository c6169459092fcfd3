"""Statements of the hot paths, compiled once.

SQLAlchemy Core spends about 45 us of CPU on a small statement, most of it on finding the
compiled form and on its parameters; SQLite needs 7 us for it. A `Prepared` keeps the text and
the order of the parameters, and costs about 20 us. Use it where a statement runs per message;
everywhere else plain Core reads better.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import sqlalchemy


class _Text(NamedTuple):
    sql: str
    order: tuple[str, ...] | None  # names in order, where the driver counts its parameters
    fixed: dict[str, Any]  # values that the statement itself holds
    convert: list[tuple[str, Callable[[Any], Any]]]  # to what the driver takes, by name


class Prepared:
    """A Core statement whose parameters are all `bindparam`s or constants.

    Rows come as the driver gives them: no column type converts them (a boolean of SQLite is an
    int, JSON is text). Statements with IN lists cannot be prepared.
    """

    def __init__(self, statement: sqlalchemy.Executable) -> None:
        self._statement = statement
        self._texts: dict[str, _Text] = {}  # by name of the database

    def __call__(
        self, connection: sqlalchemy.Connection, values: dict[str, Any]
    ) -> sqlalchemy.CursorResult[Any]:
        """Run it with `values` by name. Raises KeyError where one is missing."""
        text = self._texts.get(connection.dialect.name)
        if text is None:
            text = self._texts[connection.dialect.name] = self._compile(connection, values)
        given = {**text.fixed, **values} if text.fixed else values
        if text.convert:
            given = dict(given)
            for name, convert in text.convert:
                given[name] = convert(given[name])
        if text.order is None:
            return connection.exec_driver_sql(text.sql, given)
        return connection.exec_driver_sql(text.sql, tuple([given[name] for name in text.order]))

    def _compile(self, connection: sqlalchemy.Connection, values: dict[str, Any]) -> _Text:
        dialect = connection.dialect
        compiled = self._statement.compile(  # type: ignore[attr-defined]  # every Executable has it
            dialect=dialect, column_keys=list(values)
        )
        fixed = {
            name: bind.effective_value
            for name, bind in compiled.binds.items()
            if not bind.required and bind.key not in values
        }
        convert = []
        for name, bind in compiled.binds.items():
            if bind.expanding:
                raise TypeError(f"{self._statement} has a list as a parameter: run it by Core")
            processor = bind.type.dialect_impl(dialect).bind_processor(dialect)
            if processor is not None:
                convert.append((name, processor))
        order = tuple(compiled.positiontup) if compiled.positional else None
        return _Text(compiled.string, order, fixed, convert)
