"""Enrolment: a one-time token buys this node its place; the keys it makes here prove it ever
after. Order matters (architecture 5.3): the keys are durable before the server hears of them, so
that a crash in between repeats the request with the same keys.

Blocking, and done before the event loop starts: an agent without an identity has nothing else
to do.
"""

from __future__ import annotations

import logging
import secrets
import ssl
import sys
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

import fleetwire
from fleetwire.agent import identity as identities
from fleetwire.agent import inventory, keys
from fleetwire.agent.config import AgentConfig
from fleetwire.agent.errors import ConfigError, EnrolmentRefused
from fleetwire.agent.identity import Identity
from fleetwire.agent.trust import Trust

_PATH: Final = "/api/agents/register/"
_TIMEOUT_S: Final = 10.0
_ANSWER_BYTES: Final = 64 * 1024
_WAIT_MAX_S: Final = 30.0
_log = logging.getLogger(__name__)


class ServerKey(msgspec.Struct, frozen=True):
    """A key that may sign orders for this node."""

    id: str
    key: bytes


class Answer(msgspec.Struct, frozen=True):
    """The server's yes."""

    node: str
    name: str
    cluster: str
    server_keys: tuple[ServerKey, ...]


class Unreachable(Exception):
    """The server could not be asked, or cannot answer now; another try may."""


def ensure_identity(
    config: AgentConfig,
    *,
    capacity: int,
    pause: Callable[[float], None],
    ask_token: Callable[[], str] | None,
    trust: Trust = Trust(),  # noqa: B008 (a value)
) -> Identity:
    """Return this node's identity; enrol first where it has none, with places for `capacity`
    attempts. Tries for ever while the server cannot be reached; `pause` waits and may raise to
    end that. `ask_token` asks a person.

    Raises EnrolmentRefused, ConfigError (no token) and IdentityUnreadable.
    """
    known = identities.load(config.state)
    if known is not None and known.enrolled:
        return known
    if known is None:
        known = new_identity()
        identities.save(config.state, known)
    token = read_token(config, ask_token)
    wait = 0.2
    while True:
        for server in filter(None, (config.server, config.backup_server)):
            try:
                answer = register(server, token, known, config, capacity, trust)
            except Unreachable as error:
                _log.warning("cannot enrol yet: %s; trying again in %.1f s", error, wait)
                continue
            enrolled = msgspec.structs.replace(
                known,
                node=answer.node,
                name=answer.name,
                cluster=answer.cluster,
                server_keys={key.id: key.key for key in answer.server_keys},
            )
            identities.save(config.state, enrolled)
            _log.info("enrolled as %s", answer.name, extra={"fields": {"node": answer.node}})
            return enrolled
        pause(wait)
        wait = min(wait * 2, _WAIT_MAX_S)


def read_token(config: AgentConfig, ask_token: Callable[[], str] | None) -> str:
    """Return the enrolment token from file, setting or person, in this order."""
    if config.token_file:
        try:
            with open(config.token_file, encoding="utf-8") as file:
                token = file.read().strip()
        except OSError as error:
            raise ConfigError(
                f"The token file {config.token_file} cannot be read: {error.strerror}.",
                hint="Check the path and its rights.",
                field="token_file",
            ) from error
    elif config.token:
        token = config.token
    elif ask_token is not None:
        token = ask_token().strip()
    else:
        token = ""
    if not token:
        raise ConfigError(
            "This node has not enrolled yet, and no enrolment token was given.",
            hint="Make one with `fleetwire tokens enrol` (or in the console), then give "
            "--token-file FILE or FLEETWIRE_ENROLMENT_TOKEN.",
            field="token",
        )
    if len(token) > 4096 or not token.isprintable():
        raise ConfigError(
            "The enrolment token is no token: it is too long or has unprintable characters.",
            hint="Give the one line that the server showed.",
            field="token",
        )
    return token


def ask_person() -> str:
    """Ask on the terminal, without showing what is typed."""
    import getpass  # noqa: PLC0415 (once in a node's life)

    return getpass.getpass("Enrolment token: ")


def can_ask() -> bool:
    """Say whether there is a person to ask."""
    return sys.stdin is not None and sys.stdin.isatty()


def register(
    server: str,
    token: str,
    identity: Identity,
    config: AgentConfig,
    capacity: int,
    trust: Trust = Trust(),  # noqa: B008 (a value)
) -> Answer:
    """Ask the server to take this node in. Raises EnrolmentRefused or Unreachable."""
    body = msgspec.json.encode(
        {
            "token": token,
            "name": config.name,
            "signing_key": identity.signing_key,
            "sealing_key": identity.sealing_key,
            "incarnation": identity.incarnation,
            # What a node is by its nature, and over it what its owner says.
            "labels": {**inventory.labels(), **config.labels},
            "capacity": capacity,
            "agent_version": fleetwire.__version__,
        }
    )
    status, answer = _post(server, body, trust)
    if status in {200, 201}:
        try:
            return msgspec.json.decode(answer, type=Answer)
        except msgspec.DecodeError as error:
            raise EnrolmentRefused(
                f"What answers at {server} is no Fleetwire server: {error}.",
                hint="Check the address and the port.",
            ) from error
    detail, hint = _problem(answer)
    if status >= 500 or status in {408, 425, 429}:
        raise Unreachable(f"{server} answered {status} {detail}".rstrip())
    raise EnrolmentRefused(
        f"The server at {server} refused to enrol this node ({status}): "
        f"{detail or 'it gave no reason'}",
        hint=hint or "Make a new enrolment token and try again.",
    )


def _post(server: str, body: bytes, trust: Trust) -> tuple[int, bytes]:
    import http.client  # noqa: PLC0415 (once in a node's life)

    parts = urlsplit(server)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(
            host, parts.port, timeout=_TIMEOUT_S, context=trust.context()
        )
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=_TIMEOUT_S)
    try:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        connection.request("POST", parts.path + _PATH, body, headers)
        response = connection.getresponse()
        return response.status, response.read(_ANSWER_BYTES)
    except ssl.SSLCertVerificationError as error:
        # Before a byte of the token was sent.
        why = trust.objection(server, error)
        raise EnrolmentRefused(f"{why[:1].upper()}{why[1:]}.") from error
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(
            f"{server} cannot be reached: {str(error) or type(error).__name__}"
        ) from error
    finally:
        connection.close()


def _problem(answer: bytes) -> tuple[str, str]:
    try:
        problem: Any = msgspec.json.decode(answer)
    except msgspec.DecodeError:
        return "", ""
    if not isinstance(problem, dict):
        return "", ""
    return str(problem.get("detail") or "")[:500], str(problem.get("hint") or "")[:500]


def new_identity() -> Identity:
    """Return new keys and a new incarnation; no server has taken them in yet."""
    signing, sealing = keys.make_signing_key(), keys.make_sealing_key()
    return Identity(
        incarnation=secrets.token_hex(16),
        signing_seed=signing.private,
        signing_key=signing.public,
        sealing_secret=sealing.private,
        sealing_key=sealing.public,
    )
