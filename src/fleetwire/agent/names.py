"""The one table of settings' names: the native ones, and those of the systems whose agents this
one replaces, with how each value is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from fleetwire.agent.logs import LEVELS
from fleetwire.core import limits, pins


def _text(value: object) -> str:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise TypeError("must be a text")
    return str(value).strip()


def _whole(least: int, most: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise TypeError("must be a whole number")
        number = int(value)
        if not least <= number <= most:
            raise ValueError(f"must be {least} to {most}")
        return number

    return parse


def _number(least: float, most: float, scale: float = 1.0) -> Callable[[object], float]:
    def parse(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise TypeError("must be a number")
        number = float(value)
        if not least <= number <= most:
            raise ValueError(f"must be {least:g} to {most:g}")
        return number * scale

    return parse


def _choice(*choices: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if str(value).lower() not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return str(value).lower()

    return parse


def _url(value: object) -> str:
    text = _text(value)
    if not text:
        return ""
    if "://" not in text:
        text = f"http://{text}"
    parts = urlsplit(text)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    if scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must look like http://HOST:PORT or https://HOST:PORT")
    if "@" in parts.netloc:
        raise ValueError("must hold no user name or password: nothing would use them")
    _ = parts.port  # raises ValueError when it is no port
    path = parts.path.rstrip("/").removesuffix("/ws/agent")
    return f"{scheme}://{parts.netloc}{path}"


def _fingerprint(value: object) -> str:
    text = _text(value)
    try:
        return pins.parse(text) if text else ""
    except pins.BadFingerprint as error:
        raise ValueError("must look like sha256: and 64 hex digits") from error


def _labels(value: object) -> dict[str, str]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, Mapping):
        return {str(key): str(text) for key, text in value.items()}
    if not isinstance(value, list | tuple):
        raise TypeError("must be KEY=VALUE pairs")
    found: dict[str, str] = {}
    for pair in value:
        key, equals, text = str(pair).partition("=")
        if not equals or not key:
            raise ValueError(f"{pair!r} is not KEY=VALUE")
        found[key.strip()] = text.strip()
    return found


class Name(NamedTuple):
    """Another name for a setting, with its own unit if it has one."""

    name: str
    parse: Callable[[object], Any] | None = None


class Setting(NamedTuple):
    """A setting: the field, how its value is read, and its other names in the environment and
    in files (dots for nesting).
    """

    field: str
    parse: Callable[[object], Any]
    env: tuple[Name, ...] = ()
    file: tuple[Name, ...] = ()


_MEGABYTES: Final = Name("", lambda value: int(_number(1, 1024)(value) * limits.MIB))


def _megabytes(name: str) -> Name:
    return Name(name, _MEGABYTES.parse)


def _milliseconds(name: str) -> Name:
    return Name(name, _number(1, 3_600_000, 0.001))


NAMES: Final = (
    Setting(
        "server",
        _url,
        env=(
            Name("AGENT_CONNECTION_AGENT_SERVER_URL"),
            Name("AGENT_SERVER_URL"),
            Name("CONSOLE_BASE_URL"),
            Name("API_SERVER_URL"),
        ),
        file=(Name("agent_server_url"), Name("connection.agent_server_url"), Name("server.url")),
    ),
    Setting(
        "backup_server",
        _url,
        env=(Name("AGENT_CONNECTION_AGENT_SERVER_BACKUP_URL"), Name("AGENT_SERVER_BACKUP_URL")),
        file=(Name("agent_server_backup_url"), Name("connection.agent_server_backup_url")),
    ),
    Setting("state", _text, env=(Name("WORKSPACE_DIR"),), file=(Name("work_dir"),)),
    Setting(
        "name",
        _text,
        env=(
            Name("AGENT_IDENTIFICATION_AGENT_NAME"),
            Name("AGENT_NAME"),
            Name("NODE_NAME"),
            Name("NODE_ID"),
        ),
        file=(Name("agent_name"), Name("identification.agent_name")),
    ),
    Setting(
        "token",
        _text,
        env=(
            Name("FLEETWIRE_ENROLMENT_TOKEN"),
            Name("AGENT_IDENTIFICATION_AGENT_TOKEN"),
            Name("AGENT_TOKEN"),
            Name("NODE_TOKEN"),
        ),
        file=(Name("agent_token"), Name("identification.agent_token")),
    ),
    Setting("token_file", _text),
    Setting("labels", _labels),
    Setting(
        "max_concurrent",
        _whole(1, limits.CAPACITY),
        env=(Name("AGENT_TASK_MAX_CONCURRENT_TASKS"), Name("MAX_CONCURRENT_TASKS")),
        file=(Name("task.max_concurrent_tasks"), Name("task.max_concurrent")),
    ),
    Setting(
        "max_deadline_s",
        _number(1, limits.TIMEOUT_S),
        env=(Name("AGENT_TASK_MAX_EXECUTION_TIME_SEC"), Name("MAX_EXECUTION_TIME_SEC")),
        file=(Name("task.max_execution_time_sec"), Name("task.timeout")),
    ),
    Setting("spool_quota_bytes", _whole(limits.MIB, 2**50)),
    Setting(
        "heartbeat_s",
        _number(0.05, 60),
        env=(
            Name("AGENT_TASK_HEARTBEAT_INTERVAL"),
            Name("HEARTBEAT_INTERVAL"),
            Name("HEARTBEAT_INTERVAL_SEC"),
        ),
        file=(Name("task.heartbeat_interval"),),
    ),
    Setting(
        "backoff_initial_s",
        _number(0.01, 3600),
        env=(
            _milliseconds("AGENT_CONNECTION_WS_BACKOFF_INITIAL_MS"),
            _milliseconds("WS_BACKOFF_INITIAL_MS"),
        ),
        file=(
            _milliseconds("ws_backoff_initial_ms"),
            _milliseconds("connection.ws_backoff_initial_ms"),
        ),
    ),
    Setting(
        "backoff_max_s",
        _number(0.01, 3600),
        env=(
            _milliseconds("AGENT_CONNECTION_WS_BACKOFF_MAX_MS"),
            _milliseconds("WS_BACKOFF_MAX_MS"),
        ),
        file=(_milliseconds("ws_backoff_max_ms"), _milliseconds("connection.ws_backoff_max_ms")),
    ),
    Setting("keep_sealed_s", _number(0, 30 * 86400)),
    Setting("keep_sealed_bytes", _whole(0, 2**50)),
    Setting("tls_ca", _text),
    Setting("ca_fingerprint", _fingerprint),
    Setting("log_level", _choice(*LEVELS), file=(Name("logging.level"),)),
    Setting("log_format", _choice("text", "json")),
    Setting(
        "log_dir",
        _text,
        env=(Name("AGENT_LOGGING_LOG_DIR"), Name("LOG_DIR")),
        file=(Name("logging.log_dir"),),
    ),
    Setting(
        "log_max_bytes",
        _whole(64 * limits.KIB, 2**40),
        env=(_megabytes("AGENT_LOGGING_LOG_MAX_SIZE"), _megabytes("LOG_MAX_SIZE")),
        file=(
            _megabytes("log_max_size"),
            _megabytes("logging.log_max_size"),
            Name("logging.max_size"),
        ),
    ),
    Setting(
        "log_max_files",
        _whole(1, 1000),
        env=(Name("AGENT_LOGGING_LOG_MAX_FILES"), Name("LOG_MAX_FILES")),
        file=(
            Name("log_max_files"),
            Name("logging.log_max_files"),
            Name("logging.backup_count"),
        ),
    ),
    Setting("parent_fd", _whole(0, 2**20)),
    Setting("policy", _text),
    Setting("run_as", _text),
)
FIELDS: Final = {setting.field: setting for setting in NAMES}

# Settings of the systems this agent replaces that have no meaning here, and why. They are
# accepted, so that a file can be taken over as it is, and named once in the log.
_FOREVER: Final = "this agent never gives up connecting"
_SPOOL: Final = "output waits in spools counted in bytes (spool_quota_bytes)"
_LIVE: Final = "output is sent as it comes, within milliseconds"
_KEEP: Final = "finished attempts are kept until the server has them (keep_sealed_s)"
WITHOUT_EFFECT: Final = {
    "ws_max_retries": _FOREVER,
    "connection.ws_max_retries": _FOREVER,
    "ws_outbox_max_size": _SPOOL,
    "connection.ws_outbox_max_size": _SPOOL,
    "logging.log_batch_size": _LIVE,
    "logging.log_flush_interval": _LIVE,
    "task.cleanup.keep_tasks": _KEEP,
    "task.cleanup.keep_days": _KEEP,
    "log_max_age": "log files are kept by number and size (log_max_files)",
    "logging.log_max_age": "log files are kept by number and size (log_max_files)",
    "monitor.interval": "facts are sent on connect and when the server asks",
    "resource_limit.bandwidth_limit": "there is no file transfer yet to be limited",
}
ADAPTIVE: Final = "resource_adaptive."  # as a group: nothing here adapts yet
