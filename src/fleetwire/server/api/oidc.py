"""Login at an OpenID provider: authorization code with PKCE, and an ID token that is verified here.

Between the way there and the way back the server keeps nothing: a cookie of the browser holds one
random secret, from which state, nonce and PKCE verifier are derived. Who has not begun cannot
come back, what comes back cannot be of another browser, and strangers can fill no table.

authlib and joserfc are imported where they are used: most servers have no provider, and the two
cost as much time and memory as all the rest of the API.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import ssl
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

from fleetwire.core import limits
from fleetwire.core.errors import FleetwireError
from fleetwire.server.config import BadConfig, Config

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures with a key of the provider's: never `none`, never one made with our client secret."""

LEEWAY_S: Final = 60
KEEP_S: Final = 3600.0
ANSWER_BYTES: Final = 1 * limits.MIB
ANSWER_S: Final = 10.0

if TYPE_CHECKING:
    from joserfc.jwk import KeySet


class Refused(FleetwireError):
    """The login at the provider did not work; the server's log says more than the browser."""

    code = "oidc-refused"


class Settings(NamedTuple):
    """How to reach the provider. `creates`: whoever it vouches for becomes a user."""

    issuer: str
    client_id: str
    client_secret: str
    name: str
    scopes: str
    name_claim: str
    creates: bool


def settings_of(config: Config) -> Settings | None:
    """Return how to reach the provider that is set, None without one. Raises BadConfig."""
    if config.oidc_issuer is None:
        return None
    if config.oidc_client_id is None or config.oidc_client_secret_file is None:
        raise BadConfig(
            "oidc_issuer is set, and oidc_client_id or oidc_client_secret_file is not.",
            hint="Register this server at the provider; its callback is "
            "https://NAME/api/v1/login/oidc/callback.",
            field="oidc_client_id",
        )
    try:
        secret = config.oidc_client_secret_file.read_text("utf-8").strip()
        check_address(config.oidc_issuer)
    except (OSError, UnicodeDecodeError, Refused) as error:
        raise BadConfig(
            f"The OpenID provider cannot be used: {error}.",
            hint="Mend oidc_issuer or oidc_client_secret_file.",
            field="oidc_issuer",
        ) from error
    return Settings(
        issuer=config.oidc_issuer,
        client_id=config.oidc_client_id,
        client_secret=secret,
        name=config.oidc_name,
        scopes=config.oidc_scopes,
        name_claim=config.oidc_name_claim,
        creates=config.oidc_create_users,
    )


class Vouched(NamedTuple):
    """Whom the provider vouches for."""

    issuer: str
    subject: str
    name: str | None


class Provider:
    """One OpenID provider. `clock` is wall time in microseconds, `monotonic` seconds."""

    def __init__(
        self, settings: Settings, *, clock: Callable[[], int], monotonic: Callable[[], float]
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._found: tuple[Mapping[str, Any], float] | None = None
        self._keys: tuple[KeySet, float] | None = None
        self._asking = asyncio.Lock()

    async def begin(self, secret: str, back: str) -> str:
        """Return the address to send the browser to. `secret` is what its cookie holds, `back`
        the address it is to come back to. Raises Refused.
        """
        from authlib.oauth2.rfc7636 import create_s256_code_challenge  # noqa: PLC0415 - see above

        found = await self._discover()
        query = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": back,
            "scope": self.settings.scopes,
            "state": _derive(secret, "state"),
            "nonce": _derive(secret, "nonce"),
            "code_challenge": create_s256_code_challenge(_derive(secret, "verifier")),
            "code_challenge_method": "S256",
        }
        address = found["authorization_endpoint"]
        return f"{address}{'&' if urlsplit(address).query else '?'}{urlencode(query)}"

    async def finish(self, secret: str, back: str, *, state: str, code: str) -> Vouched:
        """Return whom the provider vouches for. Raises Refused."""
        expected = _derive(secret, "state").encode()
        if not secret or not hmac.compare_digest(expected, state.encode("utf-8", "replace")):
            raise _refused("the answer belongs to no login that this browser has begun")
        found = await self._discover()
        answer = await self._ask(
            found["token_endpoint"],
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": back,
                "client_id": self.settings.client_id,
                "code_verifier": _derive(secret, "verifier"),
            },
        )
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise _refused("the provider's answer has no ID token")
        return await self._verify(token, _derive(secret, "nonce"), answer.get("access_token"))

    async def _verify(self, token: str, nonce: str, access_token: Any) -> Vouched:  # noqa: ANN401 - JSON
        from authlib.oidc.core import CodeIDToken  # noqa: PLC0415 - see above
        from joserfc import jwt  # noqa: PLC0415 - see above
        from joserfc.errors import (  # noqa: PLC0415 - see above
            BadSignatureError,
            InvalidKeyIdError,
            JoseError,
        )

        settings = self.settings
        try:
            keys = await self._key_set(is_fresh=False)
            try:
                read = jwt.decode(token, keys, algorithms=list(ALGORITHMS))
            except (InvalidKeyIdError, BadSignatureError, ValueError):
                # No key of this name, or it is not the one: the provider may have new ones. The
                # token is its own answer to a code, so no stranger has us ask again and again.
                keys = await self._key_set(is_fresh=True)
                read = jwt.decode(token, keys, algorithms=list(ALGORITHMS))
            claims = CodeIDToken(
                read.claims,
                read.header,
                options={
                    "iss": {"essential": True, "value": settings.issuer},
                    "aud": {"essential": True, "value": settings.client_id},
                },
                params={
                    "nonce": nonce,
                    "client_id": settings.client_id,
                    "access_token": access_token,
                },
            )
            claims.validate(now=self._clock() // 1_000_000, leeway=LEEWAY_S)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise _refused(f"its ID token is not good ({type(error).__name__}: {error})") from error
        subject, name = claims["sub"], claims.get(settings.name_claim)
        if not isinstance(subject, str) or not 1 <= len(subject) <= 255:
            raise _refused("its ID token has no subject")
        return Vouched(settings.issuer, subject, name if isinstance(name, str) else None)

    async def _discover(self) -> Mapping[str, Any]:
        async with self._asking:
            if self._found is None or self._monotonic() - self._found[1] > KEEP_S:
                issuer = self.settings.issuer
                found = await self._ask(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
                if found.get("issuer") != issuer:
                    raise _refused(f"its configuration is of another issuer than {issuer}")
                for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                    if not isinstance(found.get(name), str):
                        raise _refused(f"its configuration has no {name}")
                self._found = found, self._monotonic()
            return self._found[0]

    async def _key_set(self, *, is_fresh: bool) -> KeySet:
        from joserfc.jwk import KeySet  # noqa: PLC0415 - see above

        found = await self._discover()
        async with self._asking:
            is_old = self._keys is None or self._monotonic() - self._keys[1] > KEEP_S
            if is_old or is_fresh:
                asked = await self._ask(found["jwks_uri"])
                self._keys = KeySet.import_key_set(asked), self._monotonic()  # type: ignore[arg-type]
            assert self._keys is not None  # noqa: S101 - set above
            return self._keys[0]

    async def _ask(self, url: str, form: Mapping[str, str] | None = None) -> dict[str, Any]:
        check_address(url)
        headers = {"Accept": "application/json"}
        if form is not None:
            pair = f"{_form(self.settings.client_id)}:{_form(self.settings.client_secret)}"
            basic = base64.b64encode(pair.encode()).decode()
            headers["Authorization"] = f"Basic {basic}"
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            text = await asyncio.to_thread(_fetch, url, headers, form)
            answer = json.loads(text)
        except (OSError, ValueError, http.client.HTTPException) as error:
            where = urlsplit(url).netloc
            raise _refused(f"{where} did not answer as it should ({error})") from error
        if not isinstance(answer, dict):
            raise _refused("its answer is no JSON object")
        return answer


def check_address(url: str) -> None:
    """Raise Refused for an address that secrets must not be sent to: https only, http on
    loopback.
    """
    parts = urlsplit(url)
    is_loopback = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback):
        raise _refused(f"{url[:200]} is no https address")


def _fetch(url: str, headers: Mapping[str, str], form: Mapping[str, str] | None) -> bytes:
    """Ask one of the provider's endpoints. A redirect is no answer: secrets go nowhere else."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection = (
        http.client.HTTPSConnection(
            host, port, timeout=ANSWER_S, context=ssl.create_default_context()
        )
        if parts.scheme == "https"
        else http.client.HTTPConnection(host, port, timeout=ANSWER_S)
    )
    target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    body = None if form is None else urlencode(form)
    with contextlib.closing(connection):
        connection.request("GET" if form is None else "POST", target, body, dict(headers))
        answer = connection.getresponse()
        text = answer.read(ANSWER_BYTES + 1)
    if answer.status != 200:
        raise ValueError(f"HTTP {answer.status}")
    if len(text) > ANSWER_BYTES:
        raise ValueError("the answer is too large")
    return text


def _derive(secret: str, what: str) -> str:
    """Return one of the values that go with a cookie's secret; none tells the others."""
    key = secret.encode("utf-8", "replace")
    digest = hmac.digest(key, f"fleetwire oidc {what}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _form(text: str) -> str:
    """Return a text as RFC 6749, 2.3.1 wants it in a Basic header."""
    return urlencode({"": text})[1:]


def _refused(why: str) -> Refused:
    return Refused(
        f"The login at the OpenID provider did not work: {why}.",
        hint="Try again; if it stays so, show this to an administrator.",
    )
