"""The record: the only SQL of the server, one file per noun, over `engine.Database`.

``tables`` is the schema, ``migrations`` its history. Queries and use cases are plain functions
of a `Connection` or an `engine.Tx`; they run on the engine's threads, never in the event loop.

Common SQL only (architecture 6). Rows that a use case reads in order to change them are read
`FOR UPDATE`: SQLite has one writer and leaves the clause out, PostgreSQL locks.
"""

from sqlalchemy import Connection

__all__ = ["Connection"]
