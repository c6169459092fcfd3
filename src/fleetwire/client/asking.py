"""One request, one typed answer: what the parts of `Client` have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, TypeVar
from urllib.parse import quote

import msgspec

from fleetwire.client import shapes
from fleetwire.client.connection import Answer, Connection
from fleetwire.client.errors import BadAnswer

T = TypeVar("T")

BASE: Final = "/api/v1"


class Asking:
    """Asks over `connection`, which the whole client makes."""

    connection: Connection

    def _get(self, path: str, kind: type[T], query: Mapping[str, object] | None = None) -> T:
        return read(self.connection.request("GET", path, query=query), kind)

    def _post(self, path: str, body: object, kind: type[T]) -> T:
        return read(self.connection.request("POST", path, body=msgspec.json.encode(body)), kind)

    def _send(self, method: str, path: str, body: object, kind: type[T]) -> T:
        """Make a change that may be sent again while the server is away."""
        encoded = msgspec.json.encode(body)
        return read(self.connection.request(method, path, body=encoded, repeatable=True), kind)

    def _items(
        self, path: str, kind: type[T], query: Mapping[str, object] | None = None
    ) -> Iterator[T]:
        cursor: str | None = None
        while True:
            page = self._get(path, shapes.Page[kind], {**(query or {}), "cursor": cursor})  # type: ignore[valid-type]
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return


def read(answer: Answer, kind: type[T]) -> T:
    """Return an answer as a value. Raises BadAnswer."""
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except msgspec.MsgspecError as error:
        if answer.headers.media_type() == "text/html":
            raise BadAnswer(
                "A web page answers instead of the API.",
                hint="Is the URL that of a Fleetwire server, without a further path?",
            ) from error
        raise BadAnswer(
            f"The server's answer cannot be read: {error}.",
            hint="Is the client older than the server? Update it.",
        ) from error


def segment(text: str) -> str:
    """Return a text as one segment of a path."""
    return quote(text, safe="", errors="replace")  # what is no text names nothing
