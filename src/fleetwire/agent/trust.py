"""Whom this agent takes for its server: the pinned CA, or the CAs that the machine knows.

A fingerprint that an administrator copied here is the only beginning of trust (promises, 2): the
CA's certificate is fetched from the server and kept, as `ca.pem` in the state directory, only if it
has that fingerprint. From then on certificate and host name are verified by it alone. Without a
fingerprint nothing is believed that the machine's CAs (or `tls_ca`) do not vouch for.

Plain HTTP is for this machine only. All of it blocks, and is done before the event loop starts.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import ssl
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from fleetwire.agent.config import AgentConfig
from fleetwire.agent.errors import ConfigError
from fleetwire.agent.files import write_atomically
from fleetwire.core import pins
from fleetwire.core.errors import FleetwireError

NAME: Final = "ca.pem"
_TIMEOUT_S: Final = 10.0
_WAIT_MAX_S: Final = 30.0
_log = logging.getLogger(__name__)


class Trust(NamedTuple):
    """`file`: CAs to verify by, "" for those that the machine knows. `ca`: the fingerprint of the
    one CA that is trusted, "" where it is not one: what a hello is bound to.
    """

    file: str = ""
    ca: str = ""

    def context(self) -> ssl.SSLContext:
        """Return what verifies certificate and host name so."""
        return ssl.create_default_context(cafile=self.file or None)

    def objection(self, server: str, error: ssl.SSLCertVerificationError) -> str:
        """Say why a server's certificate was refused, and what to do."""
        why = error.verify_message or str(error)
        if self.ca:
            return (
                f"{server} does not prove to be the pinned server ({self.ca}): {why}. Somebody "
                "may be in between, the name dialled may be none of its certificate's, or its CA "
                f"was made anew (then remove {self.file or NAME} and give the new fingerprint)"
            )
        return (
            f"the certificate of {server} is not to be trusted: {why}. For a server with a CA of "
            "its own give --ca-fingerprint, as the server's console shows it"
        )


def settle(config: AgentConfig, *, pause: Callable[[float], None]) -> Trust:
    """Return whom to trust; the first time with a fingerprint, fetch and keep its CA, trying for
    ever while the server cannot be reached (`pause` waits, and may raise to end that).

    Raises ConfigError, pins.WrongAuthority.
    """
    servers = [server for server in (config.server, config.backup_server) if server]
    for server in servers:
        _check_plain(server)
    if all(server.startswith("http:") for server in servers):
        return Trust()
    path = os.path.join(config.state, NAME)
    kept = _kept(path)
    if kept is not None and config.ca_fingerprint not in {"", kept}:
        raise ConfigError(
            f"This agent has pinned the CA {kept}, and was given {config.ca_fingerprint} now.",
            hint=f"If the server's CA was made anew on purpose, remove {path} and start again.",
            field="ca_fingerprint",
        )
    if kept is None and config.ca_fingerprint:
        pem = _fetch_from_any(servers, config.ca_fingerprint, pause)
        write_atomically(path, pem.encode("ascii"), mode=0o600)
        kept = config.ca_fingerprint
        _log.info("pinned the CA %s", kept)
    if kept is not None:
        return Trust(path, kept)
    return Trust(config.tls_ca, _only_one(config.tls_ca))


def fetch(server: str) -> str:
    """Return what a server shows as its CA: not verified, and nothing is said to it.
    Raises OSError.
    """
    import http.client  # noqa: PLC0415 (once in a node's life)

    parts = urlsplit(server)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # It is the fingerprint that verifies what comes.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(
        parts.hostname or "", parts.port, timeout=_TIMEOUT_S, context=context
    )
    try:
        connection.request("GET", parts.path + pins.CA_PATH)
        response = connection.getresponse()
        body = response.read(pins.CA_BYTES)
    except http.client.HTTPException as error:
        raise ConnectionError(f"it does not speak HTTP ({type(error).__name__})") from error
    finally:
        connection.close()
    if response.status >= 500:
        raise ConnectionError(f"it answered {response.status}")
    return body.decode("ascii", errors="replace")


def _fetch_from_any(servers: list[str], pinned: str, pause: Callable[[float], None]) -> str:
    wait = 0.2
    while True:
        for server in servers:
            if server.startswith("http:"):
                continue
            try:
                return pins.check(fetch(server), pinned, server=server)
            except OSError as error:
                _log.warning(
                    "cannot ask %s for its CA yet: %s; trying again in %.1f s", server, error, wait
                )
        pause(wait)
        wait = min(wait * 2, _WAIT_MAX_S)


def _kept(path: str) -> str | None:
    try:
        with open(path, encoding="ascii") as file:
            return pins.fingerprint(file.read())
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, FleetwireError) as error:
        raise ConfigError(
            f"The pinned CA in {path} cannot be read: {error}.",
            hint="Remove it, and give --ca-fingerprint again.",
        ) from error


def _only_one(path: str) -> str:
    if not path:
        return ""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read()
        return pins.fingerprint(text) if len(pins.certificates(text)) == 1 else ""
    except (OSError, FleetwireError) as error:
        raise ConfigError(
            f"The CAs in {path} cannot be read: {error}.", hint="Check --tls-ca.", field="tls_ca"
        ) from error


def _check_plain(server: str) -> None:
    parts = urlsplit(server)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return
    try:
        if ipaddress.ip_address(parts.hostname or "").is_loopback:
            return
    except ValueError:
        pass  # a name that others may answer to
    raise ConfigError(
        f"{server} is another machine, and plain HTTP would show everybody on the way what runs "
        "here, and let them change it.",
        hint="Dial https://, with --ca-fingerprint where the server has a CA of its own.",
        field="server",
    )
