"""The logins of this person: `$XDG_CONFIG_HOME/fleetwire/cli.toml`, readable by nobody else.

    current = "local"

    [profiles.local]
    url = "http://127.0.0.1:8080"
    token = "fwt_..."
    token_id = "0190b7f0-..."

FLEETWIRE_URL and FLEETWIRE_TOKEN win over it (interfaces, 1). A token of the file is only
ever sent to the URL that it was stored with. `ca` is the certificate of the server's own CA, pinned
at the login; FLEETWIRE_CA_FINGERPRINT pins one for a FLEETWIRE_URL that no login has stored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from fleetwire.cli.errors import LocalError, NotLoggedInHere

_BARE = re.compile(r"[A-Za-z0-9_-]+")


class Profile(NamedTuple):
    """One login. `ca_fingerprint` only where its CA is still to be fetched."""

    name: str
    url: str
    token: str | None = None
    token_id: str | None = None
    ca: str | None = None
    ca_fingerprint: str | None = None


class Profiles(NamedTuple):
    """All logins by name, and which is in use."""

    current: str | None
    by_name: dict[str, Profile]


def path(environ: Mapping[str, str]) -> str:
    """Return the file's path for this environment."""
    base = environ.get("XDG_CONFIG_HOME") or os.path.join(
        environ.get("HOME") or os.path.expanduser("~"), ".config"
    )
    return os.path.join(base, "fleetwire", "cli.toml")


def load(file: str) -> Profiles:
    """Read the file; none is the same as an empty one."""
    try:
        with open(file, "rb") as stream:
            text = stream.read().decode("utf-8")
    except FileNotFoundError:
        return Profiles(None, {})
    except (OSError, UnicodeDecodeError) as error:
        raise LocalError(f"{file} cannot be read: {error}.", hint="Mend or remove it.") from error
    import tomllib

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise LocalError(
            f"{file} is not valid TOML: {error}.", hint="Mend it, or remove it and log in again."
        ) from error
    by_name: dict[str, Profile] = {}
    profiles = document.get("profiles", {})
    for name, table in profiles.items() if isinstance(profiles, dict) else ():
        if isinstance(table, dict) and isinstance(table.get("url"), str):
            by_name[name] = Profile(
                name,
                table["url"],
                _text(table, "token"),
                _text(table, "token_id"),
                _text(table, "ca"),
            )
    current = document.get("current")
    return Profiles(current if isinstance(current, str) else None, by_name)


def save(file: str, profiles: Profiles) -> None:
    """Replace the file at once, 0600 from its first byte, its folder 0700 when it is made."""
    lines = [] if profiles.current is None else [f"current = {_quoted(profiles.current)}"]
    for name, profile in sorted(profiles.by_name.items()):
        key = name if _BARE.fullmatch(name) else _quoted(name)
        lines += ["", f"[profiles.{key}]", f"url = {_quoted(profile.url)}"]
        if profile.token is not None:
            lines.append(f"token = {_quoted(profile.token)}")
        if profile.token_id is not None:
            lines.append(f"token_id = {_quoted(profile.token_id)}")
        if profile.ca is not None:
            lines.append(f"ca = {_quoted(profile.ca)}")
    os.makedirs(os.path.dirname(file), mode=0o700, exist_ok=True)
    draft = f"{file}.{os.getpid()}.tmp"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(("\n".join(lines) + "\n").encode("utf-8"))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, file)
    except BaseException:
        os.unlink(draft)
        raise


def remember(file: str, profile: Profile) -> None:
    """Store a login and make it the current one."""
    known = load(file)
    save(file, Profiles(profile.name, {**known.by_name, profile.name: profile}))


def forget(file: str, name: str) -> None:
    """Remove a login; the current one is then unset."""
    known = load(file)
    rest = {key: value for key, value in known.by_name.items() if key != name}
    save(file, Profiles(None if known.current == name else known.current, rest))


def chosen(environ: Mapping[str, str]) -> Profile:
    """Return the server and token to use: environment first, then the current profile."""
    url = environ.get("FLEETWIRE_URL", "").strip()
    token = environ.get("FLEETWIRE_TOKEN", "").strip() or None
    fingerprint = environ.get("FLEETWIRE_CA_FINGERPRINT", "").strip() or None
    if url and token and fingerprint is None and url.lower().startswith("http:"):
        return Profile("environment", url, token)  # nothing stored could add to it
    known = load(path(environ))
    stored = known.by_name.get(known.current or "")
    if url:
        same = [one for one in known.by_name.values() if _place(one.url) == _place(url)]
        pinned = next((one.ca for one in same if one.ca is not None), None)
        if token is None and stored is not None and stored in same:
            token = stored.token
        return Profile("environment", url, token, None, pinned, fingerprint)
    if stored is None:
        raise NotLoggedInHere(
            "No server is known.",
            hint="Log in with `fleetwire login URL`, or start a system with `fleetwire up`.",
        )
    return stored if token is None else stored._replace(token=token, token_id=None)


def _place(url: str) -> str:
    """Return what tells one server from another: capitals in scheme and host do not."""
    scheme, _, rest = url.rstrip("/").partition("://")
    host, _, path = rest.partition("/")
    return f"{scheme.lower()}://{host.lower()}/{path}"


def _text(table: Mapping[str, object], key: str) -> str | None:
    value = table.get(key)
    return value if isinstance(value, str) else None


def _quoted(text: str) -> str:
    """Return a TOML basic string."""
    shown = []
    for char in text:
        if char in '"\\':
            shown.append(f"\\{char}")
        elif char < " " or char == "\x7f":
            shown.append(f"\\u{ord(char):04x}")
        else:
            shown.append(char)
    return f'"{"".join(shown)}"'
