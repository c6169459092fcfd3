"""The server's settings: one frozen value, read once, from a file, the environment and flags.

A later source wins: built-in values, then the file (``--config`` or ``FLEETWIRE_SERVER_CONFIG``;
YAML, or TOML by its name), then variables ``FLEETWIRE_SERVER_*``, then flags. A name that is not
known is an error that suggests the one that was meant.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qs, urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from fleetwire.core import limits
from fleetwire.core.errors import FleetwireError
from fleetwire.core.retention import Keep
from fleetwire.server.master_key import KEY_FILE
from fleetwire.server.reach import is_loopback

_DAY_S: Final = 24 * 3600.0
_LEAST_DAYS: Final = limits.KEEP_LEAST_S / _DAY_S
_MOST_DAYS: Final = limits.KEEP_MOST_S / _DAY_S
PREFIX: Final = "FLEETWIRE_SERVER_"


class BadConfig(FleetwireError):
    """A setting is unknown or has a value that cannot be used."""

    code = "bad-config"


class Config(BaseModel):
    """What one server process does, and where."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Annotated[Path, Field(description="Folder of everything this server keeps, mode 0700")]
    database: Annotated[
        str | None,
        Field(description="sqlite:///PATH or postgresql://...; a file in the data folder if unset"),
    ] = None
    host: Annotated[
        str, Field(description="Address to listen on: only loopback without TLS or a proxy")
    ] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="TCP port; 0 takes a free one")] = 8080
    names: Annotated[
        tuple[str, ...],
        Field(description="More host names to answer to, besides those of loopback"),
    ] = ()
    tls: Annotated[
        Literal["off", "auto"],
        Field(description="auto: TLS with a CA of its own, made at the first start"),
    ] = "off"
    tls_cert: Annotated[
        Path | None, Field(description="TLS with this certificate and its chain (PEM)")
    ] = None
    tls_key: Annotated[Path | None, Field(description="The certificate's key (PEM)")] = None
    tls_ca: Annotated[
        Path | None,
        Field(description="The CA that agents pin, where machines do not know it (PEM)"),
    ] = None
    behind_proxy: Annotated[
        tuple[str, ...],
        Field(description="Addresses or CIDR blocks of the proxies that do the TLS for it"),
    ] = ()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Annotated[
        Literal["console", "json"] | None,
        Field(description="For people or for programs; by itself, console on a terminal"),
    ] = None
    parent_fd: Annotated[
        int | None, Field(ge=0, description="Leave when this descriptor reaches its end")
    ] = None
    show_password: Annotated[
        bool, Field(description="Print the first admin's password although stdout is no terminal")
    ] = False

    oidc_issuer: Annotated[
        str | None, Field(description="OpenID provider that people may log in at, an https URL")
    ] = None
    oidc_client_id: Annotated[str | None, Field(description="What this server is called there")] = (
        None
    )
    oidc_client_secret_file: Annotated[
        Path | None, Field(description="File that holds the client secret it was given there")
    ] = None
    oidc_name: Annotated[str, Field(description="What the login page calls the provider")] = (
        "OpenID"
    )
    oidc_scopes: Annotated[str, Field(description="What is asked for there")] = "openid profile"
    oidc_name_claim: Annotated[
        str, Field(description="What a new user is named by: a claim of the ID token")
    ] = "preferred_username"
    oidc_create_users: Annotated[
        bool,
        Field(description="Whoever the provider knows becomes a user, who may nothing yet"),
    ] = True
    master_key_file: Annotated[
        Path | None,
        Field(description="File of the key that secrets are encrypted with; in the data folder"),
    ] = None
    master_key: Annotated[
        SecretStr | None,
        Field(description="That key itself, base64 of 32 bytes: from the environment only"),
    ] = None

    keep_runs_days: Annotated[
        float,
        Field(
            ge=_LEAST_DAYS, le=_MOST_DAYS, description="Runs are deleted this long after their end"
        ),
    ] = limits.KEEP_RUNS_S / _DAY_S
    keep_logs_days: Annotated[
        float,
        Field(
            ge=_LEAST_DAYS, le=_MOST_DAYS, description="Logs go this long after their task's end"
        ),
    ] = limits.KEEP_LOGS_S / _DAY_S
    keep_events_days: Annotated[
        float,
        Field(ge=_LEAST_DAYS, le=_MOST_DAYS, description="The stories of nodes are kept this long"),
    ] = limits.KEEP_EVENTS_S / _DAY_S

    keep_audit_days: Annotated[
        float | None,
        Field(
            ge=_LEAST_DAYS,
            le=_MOST_DAYS,
            description="The audit is kept this long; for ever if unset",
        ),
    ] = None

    @property
    def keep_audit_s(self) -> float | None:
        """How long the audit is kept, None for ever."""
        return None if self.keep_audit_days is None else self.keep_audit_days * _DAY_S

    @property
    def keep(self) -> Keep:
        """How long what is kept."""
        return Keep(
            logs_s=self.keep_logs_days * _DAY_S,
            runs_s=self.keep_runs_days * _DAY_S,
            events_s=self.keep_events_days * _DAY_S,
        )

    @property
    def has_tls(self) -> bool:
        """Whether it speaks TLS itself."""
        return self.tls == "auto" or self.tls_cert is not None

    @property
    def master_key_path(self) -> Path:
        """Where the master key stands, or will."""
        return self.master_key_file or self.data / KEY_FILE

    @property
    def given_master_key(self) -> str | None:
        """The master key, where the environment gave it."""
        return None if self.master_key is None else self.master_key.get_secret_value()

    @property
    def database_url(self) -> str:
        """The database's URL."""
        return self.database or f"sqlite:///{self.data / 'fleetwire.db'}"


def load(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    config_file: str | Path | None = None,
) -> Config:
    """Return the settings. `flags` that are None count as not given. Raises BadConfig."""
    environ = os.environ if environ is None else environ
    _check_arguments(flags or {})
    file = config_file or environ.get(f"{PREFIX}CONFIG")
    values: dict[str, Any] = {"data": default_data(environ)}
    if file:
        values |= _known(_read_file(Path(file)), f"the file {file}")
    from_environment = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environ.items()
        if name.startswith(PREFIX) and name != f"{PREFIX}CONFIG"
    }
    values |= _known(from_environment, f"the environment ({PREFIX}*)")
    values |= {name: value for name, value in (flags or {}).items() if value is not None}
    for name in ("names", "behind_proxy"):
        if isinstance(values.get(name), str):
            values[name] = [one.strip() for one in values[name].split(",") if one.strip()]
    try:
        config = Config(**values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(step) for step in first["loc"])
        raise BadConfig(
            f"The setting {name} cannot be used: {first['msg']}.",
            hint="fleetwire server --help lists the settings.",
            field=name,
        ) from None
    check_listening(config)
    return config.model_copy(update={"data": config.data.expanduser().absolute()})


def _check_arguments(flags: Mapping[str, Any]) -> None:
    """Raise BadConfig for a password among the arguments: every user of the machine sees them."""
    database = urlsplit(flags.get("database") or "")
    if database.password is not None or "password" in parse_qs(database.query):
        raise BadConfig(
            "--database has a password, which everybody on this machine can read among the "
            "arguments of the process.",
            hint=f"Set {PREFIX}DATABASE in the environment, write `database` into the settings "
            "file, or keep the password in ~/.pgpass.",
            field="database",
        )


def default_data(environ: Mapping[str, str]) -> Path:
    """Return the data folder where none is given: the service's own for root, else the user's."""
    if os.geteuid() == 0 and "XDG_DATA_HOME" not in environ:
        return Path("/var/lib/fleetwire")
    home = environ.get("XDG_DATA_HOME") or Path(environ.get("HOME", "~")) / ".local/share"
    return Path(home) / "fleetwire"


def check_listening(config: Config) -> None:
    """Raise BadConfig for settings of TLS that contradict each other, and for an address that
    another machine could reach without TLS.
    """
    if (config.tls_cert is None) != (config.tls_key is None):
        missing = "tls_key" if config.tls_key is None else "tls_cert"
        raise BadConfig(
            "A certificate needs its key, and a key its certificate.",
            hint=f"Give --{missing.replace('_', '-')} as well.",
            field=missing,
        )
    if config.tls == "auto" and config.tls_cert is not None:
        raise BadConfig(
            "The server cannot have a certificate of its own and a given one.",
            hint="Leave out --tls auto, or --tls-cert and --tls-key.",
            field="tls",
        )
    if config.tls_ca is not None and config.tls == "auto":
        raise BadConfig(
            "With --tls auto agents pin the server's own CA.",
            hint="Leave out --tls-ca.",
            field="tls_ca",
        )
    for text in config.behind_proxy:
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            raise BadConfig(
                f"{text!r} is no address of a proxy: {error}.",
                hint="Give addresses or CIDR blocks: --behind-proxy 10.0.0.5,10.1.0.0/24.",
                field="behind_proxy",
            ) from None
    if not (config.has_tls or config.behind_proxy or is_loopback(config.host)):
        raise BadConfig(
            f"The server cannot listen on {config.host!r} without TLS: passwords, tokens and "
            "scripts would cross the network readable by anybody.",
            hint="Give --tls auto (a CA of its own), or --tls-cert and --tls-key, or "
            "--behind-proxy ADDRESS where a proxy does it; or listen on 127.0.0.1.",
            field="host",
        )


def _known(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    for name in values:
        if name not in Config.model_fields:
            near = difflib.get_close_matches(name, Config.model_fields, n=1)
            raise BadConfig(
                f"{where} has the setting {name!r}, which is not known.",
                hint=f"Did you mean {near[0]!r}?" if near else "fleetwire server --help lists all.",
                field=name,
            )
    return dict(values)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
        read = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise BadConfig(
            f"The settings file {path} cannot be read: {error}.", hint="Mend it, or leave it out."
        ) from error
    if read is None:
        return {}
    if not isinstance(read, dict):
        raise BadConfig(f"The settings file {path} is no table.", hint="Write NAME: VALUE lines.")
    return read
