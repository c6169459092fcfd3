"""The server's own log: one structured line an event, to stderr, for people or for programs.

Everything goes one way, the libraries' records too. No request is logged by default, and no
credential ever.
"""

from __future__ import annotations

import logging
import logging.config
import sys
from typing import Final, Literal

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from fleetwire.core.errors import FleetwireError
from fleetwire.core.visible import one_line

_LINE_CHARS: Final = 8192


def _visible(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Text of nodes and clients stands in lines for people: no terminal may obey it, and no part
    of it may look like another line.

    JSON needs none of this: it escapes what is not ASCII.
    """
    return {
        name: one_line(value, _LINE_CHARS) if isinstance(value, str) else value
        for name, value in event.items()
    }


def log_failure(
    logger: FilteringBoundLogger, event: str, error: Exception, **where: object
) -> None:
    """Log an error that its task outlives. A `FleetwireError` says itself what happened and what
    to do; any other is a fault of ours, and has its traceback.
    """
    if isinstance(error, FleetwireError):
        logger.warning(event, error=str(error), **where)
    else:
        logger.error(event, exc_info=error, **where)


def is_news(record: logging.LogRecord) -> bool:
    """uvicorn reports each answer that has no end as an error. The front door has said already
    that it cut it short, and why.
    """
    return record.msg != "ASGI callable returned without completing response."


def set_up(level: str, form: Literal["console", "json"] | None) -> None:
    """Configure structlog and the standard library's logging, once per process."""
    form = form or ("console" if sys.stderr.isatty() else "json")
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    last: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if form == "json"
        else [_visible, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # uvicorn tells of every socket and of its own start and end: only its warnings matter here.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(is_news)
    logging.getLogger("alembic").setLevel(logging.WARNING)
