"""The agent's own log: JSON lines in logs/agent.log with rotation, text or JSON on stderr.

Plain `logging` and a formatter, not structlog: importing structlog takes 20 MiB and half a
second in this daemon (it brings rich, dataclasses and inspect along), for what is 30 lines here.
Fields are given as `extra={"fields": {...}}`.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from logging.handlers import RotatingFileHandler
from typing import Any, Final

import msgspec

from fleetwire.core.visible import one_line, visible_json, visible_text

LEVELS: Final = ("debug", "info", "warning", "error")
_LINE_CHARS: Final = 8192
_encode: Final = msgspec.json.Encoder(enc_hook=str).encode


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, fields, and the traceback if any."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 (logging's)
        """Return the time in UTC."""
        return time.strftime(datefmt or "%H:%M:%S", time.gmtime(record.created))

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        entry: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return visible_json(_encode(entry).decode())


class TextFormatter(logging.Formatter):
    """A line for a person: time, level, message, fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with the traceback below it if there is one."""
        fields = "".join(f" {key}={value}" for key, value in getattr(record, "fields", {}).items())
        line = (
            f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower():<7} "
            # What a peer or a file says may stand in it: no line of it may look like another one.
            f"{one_line(record.getMessage() + fields, _LINE_CHARS)}"
        )
        if record.exc_info:
            # An error may hold such text, too: nothing of it stands where a time begins a line.
            line += "\n" + visible_text(self.formatException(record.exc_info))
            line = line.replace("\n", "\n    ")
        return line


def configure(  # each argument is a setting of AgentConfig
    folder: str, *, level: str, style: str, max_bytes: int, max_files: int
) -> None:
    """Send the log of this process to `folder`/agent.log and to stderr."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    rotating = _File(
        os.path.join(folder, "agent.log"),
        maxBytes=max_bytes,
        backupCount=max_files,
        encoding="utf-8",
        delay=True,
    )
    rotating.namer = lambda name: f"{name}.gz"
    rotating.rotator = _compress
    rotating.setFormatter(JsonFormatter())
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.addHandler(rotating)
    root.addHandler(console)
    root.setLevel(level.upper())
    # The library's frame-by-frame log is of use to its own authors only.
    logging.getLogger("websockets").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


class _File(RotatingFileHandler):
    """A full disk takes no log; stderr has had the line, and needs no traceback for it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


def _compress(source: str, destination: str) -> None:
    import gzip  # noqa: PLC0415 (needed once in many days)
    import shutil  # noqa: PLC0415 (as above)

    with open(source, "rb") as plain, gzip.open(destination, "wb") as packed:
        shutil.copyfileobj(plain, packed)
    os.unlink(source)
