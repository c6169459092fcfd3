from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from fleetwire.server.__main__ import parse
from fleetwire.server.config import BadConfig, Config, load


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "server.yaml"
    file.write_text(f"data: {tmp_path}\nport: 1\nlog_level: error\nnames: [a, b]\n")
    config = load({}, {}, file)
    assert (config.data, config.port, config.log_level, config.names) == (
        tmp_path,
        1,
        "error",
        ("a", "b"),
    )
    environ = {
        "FLEETWIRE_SERVER_PORT": "2",
        "FLEETWIRE_SERVER_CONFIG": str(file),
        "FLEETWIRE_URL": "x",
    }
    config = load({}, environ)
    assert (config.port, config.log_level) == (2, "error")
    config = load({"port": 3, "host": None}, environ)
    assert (config.port, config.host) == (3, "127.0.0.1")


def test_toml(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('port = 5\nhost = "::1"\n')
    config = load({"data": str(tmp_path)}, {}, file)
    assert (config.port, config.host) == (5, "::1")


def test_flags(tmp_path: Path) -> None:
    config = parse(
        [
            "--data",
            str(tmp_path),
            "--port",
            "0",
            "--show-password",
            "--names",
            "a, b",
            "--parent-fd",
            "3",
        ]
    )
    assert (config.port, config.show_password, config.names, config.parent_fd) == (
        0,
        True,
        ("a", "b"),
        3,
    )


@pytest.mark.parametrize(
    ("environ", "home"),
    [
        ({"XDG_DATA_HOME": "/x"}, Path("/x/fleetwire")),
        ({"XDG_DATA_HOME": "/x", "HOME": "/y"}, Path("/x/fleetwire")),
    ],
)
def test_the_usual_folder(environ: dict[str, str], home: Path) -> None:
    assert load({}, environ).data == home


def test_it_is_frozen(tmp_path: Path) -> None:
    config = load({"data": tmp_path}, {})
    with pytest.raises(ValidationError):
        config.port = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("flags", "environ", "said"),
    [
        ({}, {"FLEETWIRE_SERVER_PROT": "1"}, "Did you mean 'port'"),
        ({}, {"FLEETWIRE_SERVER_PORT": "many"}, "port"),
        ({"port": 65536}, {}, "port"),
        ({"log_level": "loud"}, {}, "log_level"),
        ({}, {"FLEETWIRE_SERVER_CONFIG": "/no/such/file"}, "cannot be read"),
    ],
)
def test_mistakes_are_named(flags: dict[str, object], environ: dict[str, str], said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        load({"data": "/x", **flags}, environ)


@pytest.mark.parametrize("text", ["[1, 2]", "prot: 1", "a: [", "\x00"])
def test_bad_files(tmp_path: Path, text: str) -> None:
    file = tmp_path / "server.yaml"
    file.write_text(text)
    with pytest.raises(BadConfig):
        load({"data": tmp_path}, {}, file)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.5", "example.com", "", "127.0.0.1.evil", "::ffff:0.0.0.0"]
)
def test_only_loopback_without_tls_or_a_proxy(host: str) -> None:
    with pytest.raises(BadConfig, match="without TLS"):
        load({"data": "/x", "host": host}, {})
    for more in (
        {"tls": "auto"},
        {"tls_cert": "/c", "tls_key": "/k"},
        {"behind_proxy": "10.0.0.5,10.1.0.0/16"},
    ):
        assert load({"data": "/x", "host": host, **more}, {}).host == host


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"tls_cert": "/c"}, "needs its key"),
        ({"tls_key": "/k"}, "needs its key"),
        ({"tls": "auto", "tls_cert": "/c", "tls_key": "/k"}, "own and a given one"),
        ({"tls": "auto", "tls_ca": "/c"}, "server's own CA"),
        ({"tls": "on"}, "tls"),
        ({"behind_proxy": "10.0.0.5/24"}, "no address of a proxy"),
        ({"behind_proxy": "proxy.example"}, "no address of a proxy"),
    ],
)
def test_settings_of_tls_that_cannot_be(flags: dict[str, object], said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        load({"data": "/x", **flags}, {})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_loopback(host: str) -> None:
    assert load({"data": "/x", "host": host}, {}).host == host


def test_every_setting_is_documented() -> None:
    for name, field in Config.model_fields.items():
        assert field.description or name == "log_level"


@pytest.mark.parametrize(
    "url", ["postgresql://fleet:hunter2@h/db", "postgresql:///db?user=fleet&password=hunter2"]
)
def test_a_password_of_the_database_is_no_argument(url: str) -> None:
    with pytest.raises(BadConfig, match="everybody on this machine") as caught:
        load({"data": "/x", "database": url}, {})
    assert "hunter2" not in str(caught.value)
    assert load({"data": "/x"}, {"FLEETWIRE_SERVER_DATABASE": url}).database_url == url
    bare = "postgresql://fleet@h/db"
    assert load({"data": "/x", "database": bare}, {}).database_url == bare
