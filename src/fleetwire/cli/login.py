"""`fleetwire login`, `logout` and `whoami`: the profile of this person."""

from __future__ import annotations

import argparse
import os
import socket
import sys

from fleetwire.cli import profile
from fleetwire.cli.app import Leaf
from fleetwire.cli.connect import connect, pinned_ca
from fleetwire.cli.errors import LocalError, UsageError
from fleetwire.cli.parsing import Parser
from fleetwire.cli.show import facts, say, write_json
from fleetwire.client import Client, ClientError, NotFound, NotLoggedIn
from fleetwire.client.shapes import User


def _configure_login(parser: Parser) -> None:
    parser.story = (
        "A token is made for this machine and kept in $XDG_CONFIG_HOME/fleetwire/cli.toml,\n"
        "readable by you only. The password is asked for, never stored."
    )
    parser.examples += [
        "fleetwire login http://127.0.0.1:8080",
        "fleetwire login https://fleet.example.org --ca-fingerprint sha256:4f7c...",
        "fleetwire login https://fleet.example.org --token-file token.txt",
    ]
    parser.positional("url", help="the server")
    parser.option(
        "--ca-fingerprint", metavar="SHA256", help="of the server's own CA, which is pinned then"
    )
    parser.option("--username", metavar="NAME", help="the user (default: admin)")
    parser.option(
        "--password-file", metavar="FILE", completes="file", help="read the password from here"
    )
    parser.option(
        "--token-file", metavar="FILE", completes="file", help="use this token; - is stdin"
    )
    parser.option("--code", metavar="CODE", help="of your second factor, where you have one")
    parser.option("--profile", metavar="NAME", help="the name to keep it under (default: the host)")


def _login(values: argparse.Namespace) -> int:
    from urllib.parse import urlsplit

    url = values.url if "://" in values.url else f"http://{values.url}"
    name = values.profile or urlsplit(url).netloc
    file = profile.path(os.environ)
    ca = None
    if values.ca_fingerprint is not None:
        ca = pinned_ca(url, values.ca_fingerprint)
    if values.token_file is not None:
        token = read_secret(values.token_file)
        with Client(url, token, ca=ca) as client:
            user = client.me()
        profile.remember(file, profile.Profile(name, url, token, ca=ca))
    else:
        username = values.username or "admin"
        password = (
            read_secret(values.password_file)
            if values.password_file is not None
            else ask_password(username, url)
        )
        with Client(url, ca=ca) as client:
            # Signed in by cookie just long enough to make a token.
            user = _enter(client, username, password, values.code)
            made = client.create_token(token_name())
            client.logout()
        profile.remember(file, profile.Profile(name, url, made.token, made.id, ca))
    if values.output == "text":
        say(f"Logged in to {url} as {user.name}.")
    else:
        import msgspec

        write_json(msgspec.json.encode({"url": url, "user": user.name, "profile": name}))
    return 0


def _enter(client: Client, username: str, password: str, code: str | None) -> User:
    """Log in; ask for a code of the second factor where one is needed and none was given."""
    try:
        return client.login(username, password, code=code)
    except NotLoggedIn as error:
        if error.code != "code-needed" or not sys.stdin.isatty():
            raise
        import getpass

        return client.login(username, password, code=getpass.getpass("Code: "))


def token_name() -> str:
    """Return the name of the token that this machine's CLI uses."""
    return f"cli on {socket.gethostname()}"


def ask_password(username: str, url: str) -> str:
    """Ask the person for a password, without showing it."""
    if not sys.stdin.isatty():
        raise UsageError(
            "There is no terminal to ask for the password on.",
            hint="Use --password-file or --token-file.",
        )
    import getpass

    return getpass.getpass(f"Password of {username} at {url}: ")


def read_secret(path: str) -> str:
    """Return the first line of a file, or of stdin for `-`."""
    try:
        if path == "-":
            line = sys.stdin.readline()
        else:
            with open(path, encoding="utf-8") as file:
                line = file.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise LocalError(f"{path} cannot be read: {error}.", hint="Check the path.") from error
    secret = line.strip()
    if not secret:
        raise LocalError(f"{path} has an empty first line.", hint="It has to hold the secret.")
    return secret


def _configure_logout(parser: Parser) -> None:
    parser.examples.append("fleetwire logout")


def _logout(values: argparse.Namespace) -> int:
    file = profile.path(os.environ)
    known = profile.load(file)
    stored = known.by_name.get(known.current or "")
    if stored is None:
        raise UsageError("You are not logged in.", hint="fleetwire login URL")
    ended = "Its token is ended."
    if stored.token is not None and stored.token_id is not None:
        try:
            with Client(stored.url, stored.token, ca=stored.ca) as client:
                client.delete_token(stored.token_id)
        except (NotLoggedIn, NotFound):
            ended = "Its token was ended before."
        except ClientError as error:
            ended = f"Its token could not be ended: {error}"
    else:
        ended = "Its token was given by you and stays valid."
    profile.forget(file, stored.name)
    if values.output == "text":
        say(f"Logged out of {stored.url}. {ended}")
    else:
        write_json(b'{"logged_out":true}')
    return 0


def _configure_whoami(parser: Parser) -> None:
    parser.examples.append("fleetwire whoami")


def _whoami(values: argparse.Namespace) -> int:
    with connect() as client:
        if values.output != "text":
            write_json(client.get_raw("me"))
            return 0
        user = client.me()
        roles = ((f"in {one.name}", ", ".join(one.roles)) for one in user.projects if one.roles)
        what = "system admin" if user.role == "admin" else user.role
        facts((("user", user.name), ("role", what), ("server", client.url), *roles))
    return 0


LEAVES = {
    "login": Leaf(_configure_login, _login),
    "logout": Leaf(_configure_logout, _logout),
    "whoami": Leaf(_configure_whoami, _whoami),
}
