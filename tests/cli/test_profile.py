from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.cli.connect import connect
from fleetwire.cli.errors import LocalError, NotLoggedInHere
from fleetwire.cli.profile import (
    Profile,
    Profiles,
    chosen,
    forget,
    load,
    path,
    remember,
    save,
)
from fleetwire.client import ClientError

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.dictionaries(texts, st.tuples(texts, st.none() | texts, st.none() | texts), max_size=4))
def test_what_is_saved_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, tables: dict[str, tuple[str, str | None, str | None]]
) -> None:
    file = str(tmp_path_factory.mktemp("p") / "fleetwire" / "cli.toml")
    profiles = Profiles(
        next(iter(tables), None), {name: Profile(name, *rest) for name, rest in tables.items()}
    )
    save(file, profiles)
    assert load(file) == profiles


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    file = str(tmp_path / "fleetwire" / "cli.toml")
    before = os.umask(0)
    try:
        remember(file, Profile("local", "http://h", "secret"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(file)).st_mode) == 0o700
    assert os.listdir(os.path.dirname(file)) == ["cli.toml"]


def test_remember_and_forget(tmp_path: Path) -> None:
    file = str(tmp_path / "cli.toml")
    remember(file, Profile("a", "http://a", "1"))
    remember(file, Profile("b", "http://b", "2"))
    assert load(file).current == "b"
    forget(file, "b")
    assert load(file) == Profiles(None, {"a": Profile("a", "http://a", "1")})


def test_the_environment_wins_and_a_token_goes_only_where_it_belongs(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    with pytest.raises(NotLoggedInHere):
        chosen(environ)
    remember(path(environ), Profile("a", "http://a", "stored"))
    assert chosen(environ).token == "stored"
    assert chosen(environ | {"FLEETWIRE_TOKEN": "mine"}).token == "mine"
    assert chosen(environ | {"FLEETWIRE_URL": "http://a/"}).token == "stored"
    assert chosen(environ | {"FLEETWIRE_URL": "http://evil"}).token is None
    both = chosen(environ | {"FLEETWIRE_URL": "http://b", "FLEETWIRE_TOKEN": "t"})
    assert (both.url, both.token) == ("http://b", "t")


PIN = f"sha256:{'ab' * 32}"


@pytest.mark.parametrize(
    "url", ["http://h:1", "HTTP://h:1", "https://h:1", "HTTPS://h:1", "Https://h:1/"]
)
@pytest.mark.parametrize("token", [None, "t"])
def test_a_pin_that_is_asked_for_is_kept_or_refused(
    tmp_path: Path, url: str, token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a capital letter nor plain HTTP lets a token go where no pin was held to."""
    asked = {
        "FLEETWIRE_URL": url,
        "FLEETWIRE_CA_FINGERPRINT": PIN,
        "XDG_CONFIG_HOME": str(tmp_path),
    }
    if token is not None:
        asked["FLEETWIRE_TOKEN"] = token
    assert chosen(asked) == Profile("environment", url, token, ca_fingerprint=PIN)
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    if url.lower().startswith("http:"):
        with pytest.raises(ClientError, match="plain HTTP"):
            connect()


@pytest.mark.parametrize("url", ["HTTPS://Host:1", "https://host:1/"])
def test_what_was_pinned_at_the_login_is_pinned_however_the_server_is_written(
    tmp_path: Path, url: str
) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "FLEETWIRE_URL": url, "FLEETWIRE_TOKEN": "t"}
    remember(path(environ), Profile("a", "https://host:1", "stored", ca="the CA"))
    assert chosen(environ).ca == "the CA"
    assert chosen(environ | {"FLEETWIRE_URL": f"{url.rstrip('/')}/other"}).ca is None


@pytest.mark.parametrize("body", [b"current = ", b"\xff", b"[profiles]\n[profiles"])
def test_a_broken_file_is_named(tmp_path: Path, body: bytes) -> None:
    file = tmp_path / "cli.toml"
    file.write_bytes(body)
    with pytest.raises(LocalError, match=r"cli\.toml"):
        load(str(file))
