from __future__ import annotations

from pathlib import Path

import pytest

from fleetwire.agent import config, flags
from fleetwire.agent.errors import ConfigError


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "agent.yaml"
    path.write_text(text)
    return str(path)


def test_file_then_environment_then_flags(tmp_path: Path) -> None:
    path = write(tmp_path, "server: http://file:1\nname: file\nmax_concurrent: 2\n")
    environ = {"FLEETWIRE_AGENT_NAME": "environment", "FLEETWIRE_AGENT_MAX_CONCURRENT": "3"}
    found = config.load({"max_concurrent": "4", "name": None}, environ, path)
    assert (found.server, found.name, found.max_concurrent) == ("http://file:1", "environment", 4)


def test_defaults(tmp_path: Path) -> None:
    found = config.load({"server": "h:8080", "state": str(tmp_path)}, {}, None)
    assert found.server == "http://h:8080"
    assert found.name
    assert found.max_concurrent == 5
    assert found.log_dir == str(tmp_path / "logs")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("ws://localhost:8080", "http://localhost:8080"),
        ("wss://fleet.example.com", "https://fleet.example.com"),
        ("ws://localhost:8000/ws/agent", "http://localhost:8000"),
        ("https://x/fleet/", "https://x/fleet"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_server_addresses(given: str, meant: str) -> None:
    assert config.load({"server": given}, {}, None).server == meant


@pytest.mark.parametrize(
    "given", ["ftp://x", "http://", "http://x:port", "http://x:99999", "https://user:secret@x"]
)
def test_wrong_addresses(given: str) -> None:
    with pytest.raises(ConfigError, match="--server"):
        config.load({"server": given}, {}, None)


def test_unknown_key_of_a_file_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    path = write(tmp_path, "server: http://x\nmax_concurent: 3\n")
    with pytest.raises(ConfigError, match=r"max_concurent.*Did you mean max_concurrent\?"):
        config.load({}, {}, path)


def test_unknown_name_of_the_environment_is_an_error_with_a_suggestion() -> None:
    environ = {"FLEETWIRE_AGENT_SERVER": "http://x", "FLEETWIRE_AGENT_LABEL": "a=b"}
    with pytest.raises(ConfigError, match=r"FLEETWIRE_AGENT_LABEL\b.*mean FLEETWIRE_AGENT_LABELS"):
        config.load({}, environ, None)


def test_same_setting_twice_in_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, "server: http://x\nagent_server_url: http://y\n")
    with pytest.raises(ConfigError, match="twice"):
        config.load({}, {}, path)


@pytest.mark.parametrize(
    "text",
    ["- a\n", "server: [\n", "server: http://x\nmax_concurrent: many\n", "server: {a: 1}\n"],
)
def test_wrong_files(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        config.load({}, {}, write(tmp_path, text))


def test_missing_file_and_missing_server() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load({}, {}, "/nowhere/agent.yaml")
    with pytest.raises(ConfigError, match="No server is set"):
        config.load({}, {}, None)


def test_labels(tmp_path: Path) -> None:
    path = write(tmp_path, "server: http://x\nlabels:\n  role: db\n  rack: 7\n")
    assert config.load({}, {}, path).labels == {"role": "db", "rack": "7"}
    assert config.load({"labels": ["a=b", "c=d=e"]}, {}, path).labels == {"a": "b", "c": "d=e"}
    environ = {"FLEETWIRE_AGENT_LABELS": "a=b, c=d"}
    assert config.load({}, environ, path).labels == {"a": "b", "c": "d"}
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        config.load({"labels": ["nonsense"]}, {}, path)


def test_file_of_the_job_agent(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
agent_server_url: "wss://agent-server.example.com"
agent_server_backup_url: "wss://agent-server-backup.example.com"
ws_backoff_initial_ms: 1500
ws_backoff_max_ms: 30000
ws_max_retries: 6
ws_outbox_max_size: 1000
agent_token: "your-token-here"
agent_name: "my-agent"
log_dir: "/var/log/ops-job-agent"
log_max_size: 10
log_max_files: 5
log_max_age: 7
task:
  heartbeat_interval: 10
  max_concurrent_tasks: 6
  max_execution_time_sec: 7200
resource_limit:
  bandwidth_limit: 0
resource_adaptive:
  enabled: false
logging:
  log_batch_size: 200
""",
    )
    found = config.load({}, {}, path)
    assert found.server == "https://agent-server.example.com"
    assert found.backup_server == "https://agent-server-backup.example.com"
    assert (found.backoff_initial_s, found.backoff_max_s) == (1.5, 30.0)
    assert (found.token, found.name, found.max_concurrent) == ("your-token-here", "my-agent", 6)
    assert (found.log_max_bytes, found.max_deadline_s) == (10 * 2**20, 7200.0)
    assert any("ws_max_retries has no effect" in notice for notice in found.notices)


def test_file_of_the_test_agent(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "server:\n  url: ws://localhost:8000/ws/agent\nlogging:\n  level: INFO\n"
        "  max_size: 10485760\n  backup_count: 5\ntask:\n  max_concurrent: 1\n  timeout: 3600\n"
        "  cleanup:\n    keep_tasks: 10\n    keep_days: 7\nmonitor:\n  interval: 5\n",
    )
    found = config.load({}, {}, path)
    assert (found.server, found.log_level) == ("http://localhost:8000", "info")
    assert (found.max_concurrent, found.max_deadline_s) == (1, 3600.0)


@pytest.mark.parametrize(
    ("environ", "server"),
    [
        ({"AGENT_CONNECTION_AGENT_SERVER_URL": "ws://a"}, "http://a"),
        ({"AGENT_SERVER_URL": "ws://b"}, "http://b"),
        ({"CONSOLE_BASE_URL": "http://c"}, "http://c"),
        ({"API_SERVER_URL": "http://d"}, "http://d"),
        ({"API_SERVER_URL": "http://d", "FLEETWIRE_AGENT_SERVER": "http://e"}, "http://e"),
    ],
)
def test_environments_of_other_agents(environ: dict[str, str], server: str) -> None:
    assert config.load({}, environ, None).server == server


def test_every_flag_is_a_setting() -> None:
    line = flags.parse(
        ["--server", "http://x", "--label", "a=b", "--label", "c=d", "--heartbeat", "2"]
    )
    found = config.load(line.flags, {}, line.config)
    assert found.labels == {"a": "b", "c": "d"}
    assert found.heartbeat_s == 2.0
    assert not line.status
    assert flags.parse(["status"]).status
