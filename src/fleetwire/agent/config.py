"""The agent's settings: one frozen struct, read once, from file, environment and flags, in
rising priority. Unknown keys are errors with a suggestion.

The names stand in `names`: the native ones, and those of the systems whose agents this one
replaces, so that their files and unit files keep working.
"""

from __future__ import annotations

import difflib
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from fleetwire.agent import platforms
from fleetwire.agent.errors import ConfigError
from fleetwire.agent.names import ADAPTIVE, FIELDS, NAMES, WITHOUT_EFFECT
from fleetwire.core import limits

ENV_PREFIX: Final = "FLEETWIRE_AGENT_"


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set. Units are in the names; `""` and None mean: not set.

    `server`, `backup_server`: http(s)://HOST:PORT. `state`: the state directory. `token`,
    `token_file`: the one-time enrolment token, needed once. `ca_fingerprint`: of the server's CA,
    to be pinned; `tls_ca`: a file of CAs to verify by. `max_deadline_s` caps every order's
    time-out. `spool_quota_bytes`: what all live attempts may keep that the server lacks; None:
    the smaller of 1 GiB and 10 % of the free disk. `heartbeat_s`: None: what the server says.
    `policy`: the local policy's file, which must be there; "": /etc/fleetwire/policy.yaml, where
    it is there. `run_as`: the user of tasks whose order names none; "": the agent's own.
    `parent_fd`: leave when this descriptor reaches its end. `notices`: accepted settings that
    have no effect here, and why; they go to the log.
    """

    server: str
    state: str
    name: str
    backup_server: str = ""
    token: str = ""
    token_file: str = ""
    labels: dict[str, str] = {}
    max_concurrent: int = 5
    max_deadline_s: float = limits.TIMEOUT_S
    spool_quota_bytes: int | None = None
    heartbeat_s: float | None = None
    backoff_initial_s: float = 1.0
    backoff_max_s: float = 60.0
    keep_sealed_s: float = limits.SEALED_KEEP_S
    keep_sealed_bytes: int = limits.SEALED_KEEP_BYTES
    tls_ca: str = ""
    ca_fingerprint: str = ""
    log_level: str = "info"
    log_format: str = "text"
    log_dir: str = ""
    log_max_bytes: int = 10 * limits.MIB
    log_max_files: int = 5
    parent_fd: int | None = None
    policy: str = ""
    run_as: str = ""
    notices: tuple[str, ...] = ()


def load(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    path: str | None,
) -> AgentConfig:
    """Return the settings. `flags` has field names (`labels` a list of KEY=VALUE), None for what
    was not given; `path` is the YAML file, else AGENT_CONFIG_FILE names it. Raises ConfigError.
    """
    values: dict[str, Any] = {}
    notices: list[str] = []
    path = path or environ.get("FLEETWIRE_AGENT_CONFIG") or environ.get("AGENT_CONFIG_FILE")
    if path:
        values |= _from_file(path, notices)
    values |= _from_environment(environ)
    for field, value in flags.items():
        if value is None or value in ([], ()):
            continue
        setting = FIELDS.get(field)
        if setting is None:
            raise AssertionError(f"the command line has a flag that is no setting: {field}")
        values[field] = _parsed(f"--{field.replace('_', '-')}", setting.parse, value)
    if not values.get("server"):
        raise ConfigError(
            "No server is set.",
            hint="Give --server http://HOST:PORT, or `server:` in the file, or "
            f"{ENV_PREFIX}SERVER.",
            field="server",
        )
    values.setdefault("state", platforms.default_state())
    values["state"] = os.path.abspath(os.path.expanduser(values["state"]))
    values["name"] = values.get("name") or socket.gethostname()
    values["log_dir"] = values.get("log_dir") or os.path.join(values["state"], "logs")
    return AgentConfig(**values, notices=tuple(notices))


def _from_file(path: str, notices: list[str]) -> dict[str, Any]:
    import yaml  # noqa: PLC0415 (only who has a file pays for it)

    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except OSError as error:
        raise ConfigError(
            f"The settings file {path} cannot be read: {error.strerror}.",
            hint="Check the path and its rights.",
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(
            f"The settings file {path} is not YAML: {error}.", hint="Mend the line it names."
        ) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is no mapping of names to values.", hint="Write `server: URL`.")
    names = {s.field: (s, s.parse) for s in NAMES} | {
        alias.name: (setting, alias.parse or setting.parse)
        for setting in NAMES
        for alias in setting.file
    }
    found: dict[str, Any] = {}
    said: dict[str, str] = {}
    for key, value in _flatten(content):
        if key in WITHOUT_EFFECT or key.startswith(ADAPTIVE):
            why = WITHOUT_EFFECT.get(key, "nothing here adapts to load yet")
            notices.append(f"{key} has no effect: {why}")
            continue
        if key not in names:
            raise _unknown(f"{path} has the unknown key {key!r}.", key, [*names, *WITHOUT_EFFECT])
        setting, parse = names[key]
        if setting.field in said:
            raise ConfigError(
                f"{path} sets {setting.field} twice: as {said[setting.field]} and as {key}.",
                hint="Keep one of them.",
                field=setting.field,
            )
        said[setting.field] = key
        found[setting.field] = _parsed(f"{key} in {path}", parse, value)
    return found


def _flatten(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name != "labels":
            yield from _flatten(value, f"{name}.")
        else:
            yield name, value


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    native = {f"{ENV_PREFIX}{setting.field.upper()}": setting for setting in NAMES}
    found: dict[str, Any] = {}
    # Other programs' names first: our own win over them.
    for setting in NAMES:
        for alias in reversed(setting.env):
            if environ.get(alias.name):
                parse = alias.parse or setting.parse
                found[setting.field] = _parsed(alias.name, parse, environ[alias.name])
    for name, value in environ.items():
        if not name.startswith(ENV_PREFIX) or name == f"{ENV_PREFIX}CONFIG":
            continue
        if name not in native:
            raise _unknown(f"The environment has the unknown name {name}.", name, list(native))
        if value:
            found[native[name].field] = _parsed(name, native[name].parse, value)
    return found


def _parsed(where: str, parse: Callable[[object], Any], value: object) -> Any:  # noqa: ANN401 (each setting has its own type)
    try:
        return parse(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{where} is {str(value)[:80]!r}: {error}.", hint="Correct it.", field=where
        ) from error


def _unknown(detail: str, key: str, known: list[str]) -> ConfigError:
    near = difflib.get_close_matches(key, known, n=1)
    return ConfigError(
        detail,
        hint=f"Did you mean {near[0]}?" if near else "docs/guide names every setting.",
        field=key,
    )
