"""A small OpenID provider, as a process of its own: `python oidc_provider.py MODE`.

It prints its address and serves until its stdin ends. It is strict where a real one is: the code
is good once, for the client that proves itself, the same address and the right PKCE verifier. What
is wrong with its ID tokens, or new of its keys, is the first word of `login_hint`, which a test
adds to the address that the server sends the browser to.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

CLIENT, SECRET = "fleetwire", "client secret & more"


def new_key(kid: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig", "alg": "RS256"})


OTHER = new_key("k1")
keys = [new_key("k1")]
codes: dict[str, dict[str, str]] = {}


def id_token(asked: dict[str, str], issuer: str) -> str:
    wrong, _, name = asked["login_hint"].partition(" ")
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": issuer, "sub": f"subject of {name}", "aud": CLIENT, "iat": now, "exp": now + 300,
        "nonce": asked["nonce"], "preferred_username": name,
    }  # fmt: skip
    match wrong:
        case "new-key":
            keys[:] = [new_key(f"{keys[0].kid}-next")]
        case "same-name":
            keys[:] = [new_key(str(keys[0].kid))]
    header, key = {"alg": "RS256", "kid": keys[0].kid}, keys[0]
    match wrong:
        case "issuer":
            claims["iss"] = "https://evil.example"
        case "audience":
            claims["aud"] = "another-client"
        case "audiences":
            claims["aud"] = [CLIENT, "another-client"]  # and no azp says which of them it is for
        case "expired":
            claims |= {"iat": now - 4000, "exp": now - 3700}
        case "nonce":
            claims["nonce"] = secrets.token_urlsafe(32)
        case "no-nonce":
            del claims["nonce"]
        case "no-subject":
            del claims["sub"]
        case "no-expiry":
            del claims["exp"]
        case "key":
            key = OTHER
        case "hmac":
            header, key = {"alg": "HS256"}, OctKey.import_key(SECRET)  # type: ignore[assignment]
        case "none":
            parts = [json.dumps(one).encode() for one in ({"alg": "none"}, claims)]
            text = [base64.urlsafe_b64encode(one).decode().rstrip("=") for one in parts]
            return f"{text[0]}.{text[1]}."
    return str(jwt.encode(header, claims, key))


class Door(BaseHTTPRequestHandler):
    """One request."""

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/.well-known/openid-configuration":
            self.answer({
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize?tenant=1",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
            })  # fmt: skip
        elif parts.path == "/keys":
            self.answer({"keys": [one.as_dict(private=False) for one in keys]})
        elif parts.path == "/authorize":
            asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
            assert asked["client_id"] == CLIENT
            assert asked["code_challenge_method"] == "S256"
            code = secrets.token_urlsafe(16)
            codes[code] = asked
            back = urlencode({"code": code, "state": asked["state"]})
            self.send_response(302)
            self.send_header("location", f"{asked['redirect_uri']}?{back}")
            self.send_header("content-length", "0")
            self.end_headers()
        else:
            self.answer({"error": "not_found"}, 404)

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["content-length"])).decode()
        sent = {name: values[0] for name, values in parse_qs(text).items()}
        asked = codes.pop(sent.get("code", ""), None)
        pair = urlencode({"": CLIENT})[1:] + ":" + urlencode({"": SECRET})[1:]
        basic = f"Basic {base64.b64encode(pair.encode()).decode()}"
        digest = hashlib.sha256(sent.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if (
            asked is None
            or sent.get("grant_type") != "authorization_code"
            or self.headers["authorization"] != basic
            or challenge != asked["code_challenge"]
            or sent.get("redirect_uri") != asked["redirect_uri"]
        ):
            self.answer({"error": "invalid_grant"}, 400)
            return
        self.answer({
            "token_type": "Bearer", "access_token": secrets.token_urlsafe(16),
            "id_token": id_token(asked, self.issuer),
        })  # fmt: skip

    def answer(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)  # noqa: T201 - its address
    sys.stdin.read()


if __name__ == "__main__":
    main()
