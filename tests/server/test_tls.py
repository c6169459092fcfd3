"""TLS from end to end, with real processes: own CA, given certificate, pinning, renewal."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetwire.client import Client, ServerDistrusted, ServerUnreachable, fetch_ca
from fleetwire.core.pins import WrongAuthority, fingerprint
from fleetwire.server.app import now_us
from fleetwire.server.authority import Authority
from fleetwire.testing.lab import PROGRAM, Lab, free_port, wait_until

OTHER = f"sha256:{'0' * 64}"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path, tls=True) as lab:
        yield lab


def shown(lab: Lab, name: str = "127.0.0.1") -> bytes:
    """Return the certificate (DER) that the server shows to who verifies it."""
    context = ssl.create_default_context(cafile=str(lab.data / "tls/ca.pem"))
    with (
        socket.create_connection(("127.0.0.1", lab.port), 10) as raw,
        context.wrap_socket(raw, server_hostname=name) as secure,
    ):
        return secure.getpeercert(binary_form=True) or b""


def test_own_ca_from_first_start_to_a_run(lab: Lab) -> None:
    lab.server_flags += ("--host", "0.0.0.0", "--names", "fleet.example")
    lab.start_server()
    assert shown(lab) == shown(lab, "fleet.example") == shown(lab, socket.gethostname())
    with pytest.raises(ssl.SSLCertVerificationError):
        shown(lab, "other.example")
    # Whoever does not know the CA believes nothing; who was given another says nothing.
    login = ("login", lab.url, "--password-file", str(lab.data / "admin-password"))
    env = {key: value for key, value in lab.env.items() if not key.startswith("FLEETWIRE")}
    lab.env, kept = env, lab.env
    refused = lab.cli(*login)
    assert (refused.returncode, "not to be trusted" in refused.stderr) == (3, True)
    refused = lab.cli(*login, "--ca-fingerprint", OTHER)
    assert (refused.returncode, "not the pinned one" in refused.stderr) == (3, True)
    assert lab.cli(*login, "--ca-fingerprint", lab.fingerprint).returncode == 0
    assert lab.cli("whoami").returncode == 0  # the profile has kept the CA
    assert "agrees with the server" in lab.cli("doctor").stdout
    lab.env = kept
    lab.start_agent()
    ran = lab.cli("run", "--node", "node-1", "--", "echo hi")
    assert (ran.returncode, ran.stdout) == (0, "hi\n")
    lab.agents["node-1"].stop()
    # The pin is kept: without a fingerprint on the line, and after a restart of both sides.
    assert (lab.state("node-1") / "ca.pem").stat().st_mode & 0o777 == 0o600
    lab.server.stop()  # type: ignore[union-attr]
    lab.start_server()
    lab.start_agent()
    again = lab.cli("run", "--node", "node-1", "--", "echo again")
    assert (again.returncode, again.stdout) == (0, "again\n")


def agent(lab: Lab, name: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run an agent that is expected to end at once."""
    state = lab.state(name)
    state.mkdir(parents=True, mode=0o700, exist_ok=True)
    argv = [*PROGRAM, "agent", "--server", lab.url, "--state", str(state), "--name", name, *flags]
    return subprocess.run(
        argv, env=lab.env, capture_output=True, text=True, timeout=30, check=False
    )


def test_an_agent_enrols_with_the_right_fingerprint_only(lab: Lab) -> None:
    lab.start_server()
    token = lab.folder / "token"
    token.write_text(str(lab.client.create_enrolment_token().token))
    enrol = ("--token-file", str(token))
    refused = agent(lab, "a", *enrol)
    assert (refused.returncode, "not to be trusted" in refused.stderr) == (1, True)
    refused = agent(lab, "a", *enrol, "--ca-fingerprint", OTHER)
    assert (refused.returncode, "not the pinned one" in refused.stderr) == (1, True)
    assert not (lab.state("a") / "ca.pem").exists()
    plain = agent(lab, "a", *enrol, "--server", "http://192.0.2.1:8080")
    assert (plain.returncode, "another machine" in plain.stderr) == (1, True)
    # The token was never shown to anybody in all this, so it still counts.
    (row,) = lab.client.enrolment_tokens()
    assert row.used_at is None
    lab._enrolled.add("a")
    lab.start_agent("a", *enrol)
    refused = agent(lab, "b", *enrol, "--ca-fingerprint", lab.fingerprint)
    assert (refused.returncode, "not valid" in refused.stderr) == (1, True)
    lab.agents["a"].stop()
    refused = agent(lab, "a", "--ca-fingerprint", OTHER)
    assert (refused.returncode, "has pinned the CA" in refused.stderr) == (1, True)


def test_another_server_in_its_place_is_refused_and_told_nothing(lab: Lab, tmp_path: Path) -> None:
    lab.start_server()
    lab.start_agent()
    ours = lab.fingerprint
    lab.server.stop()  # type: ignore[union-attr]
    shutil.move(lab.data / "tls", tmp_path / "kept")  # what comes now has another CA
    lab.launch_server()
    wait_until((lab.data / "server.json").exists, "the impostor")
    assert lab.fingerprint != ours
    log = lab.folder / "node-1.log"
    wait_until(lambda: "does not prove to be the pinned server" in log.read_text(), "the refusal")
    pinned = (lab.state("node-1") / "ca.pem").read_text()
    assert fingerprint(pinned) == ours
    with pytest.raises(WrongAuthority):
        fetch_ca(lab.url, ours)
    with (
        contextlib.closing(Client(lab.url, "fw_secret", ca=pinned)) as client,
        pytest.raises(ServerDistrusted, match="pinned"),
    ):
        client.me()


def test_its_certificate_is_renewed_by_itself_while_links_stay(lab: Lab) -> None:
    lab.start_server()
    lab.start_agent()
    first = shown(lab)
    pem = lab.data / "tls/server.pem"
    pem.unlink()  # as good as one that ends soon
    wait_until(lambda: shown(lab) != first, "another certificate")
    assert lab.client.node("node-1").link == "online"
    second = shown(lab)
    Authority.open(lab.data, now=now_us()).path.write_text("half of a fi")
    assert lab.server is not None
    lab.server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: shown(lab) != second, "yet another")
    ran = lab.cli("run", "--node", "node-1", "--", "echo hi")
    assert ran.returncode == 0


def test_a_given_certificate_is_followed(tmp_path: Path) -> None:
    other = tmp_path / "ca"
    other.mkdir()
    authority = Authority.open(other, now=now_us())

    def issue(*names: str) -> None:
        authority.path.unlink(missing_ok=True)
        authority.renew(names, now=now_us())
        shutil.copy(authority.path, tmp_path / "key.pem")
        shutil.copy(authority.path, tmp_path / "cert.pem")

    issue("127.0.0.1", "localhost")
    files = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    folder = tmp_path / "lab"
    folder.mkdir()
    with Lab(folder, tls=True) as lab:
        lab.server_flags = files
        (lab.data / "tls").mkdir(parents=True)
        (lab.data / "tls/ca.pem").write_text(authority.pem)  # where the lab looks for the pin
        lab.start_server()
        lab.start_agent()  # the chain ends in the CA, so there is one to pin
        first = shown(lab)
        (tmp_path / "cert.pem").write_text("nonsense")
        assert lab.server is not None
        lab.server.process.send_signal(signal.SIGHUP)
        log = lab.folder / "server.log"
        wait_until(lambda: "the old one stays" in log.read_text(), "the refusal")
        assert shown(lab) == first
        issue("127.0.0.1", "localhost", "more.example")
        lab.server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: shown(lab) != first, "the new certificate")
        assert shown(lab, "more.example")


def received(raw: socket.socket) -> bytes:
    """Return what comes until the other side has closed."""
    try:
        return b"".join(iter(lambda: raw.recv(4096), b""))
    except ConnectionResetError:
        return b""


def test_plain_http_slow_handshakes_and_old_tls_get_nowhere(lab: Lab) -> None:
    lab.start_server()
    with socket.create_connection(("127.0.0.1", lab.port), 10) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP" not in received(raw)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", lab.port), 10) as raw,
        pytest.raises(ssl.SSLError),
    ):
        old.wrap_socket(raw)
    with socket.create_connection(("127.0.0.1", lab.port), 30) as raw:
        assert received(raw) == b""  # it ends within the limit of the handshake
    assert lab.client.me().name == "admin"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--host", "0.0.0.0"), "without TLS"),
        (("--tls-cert", "/no/such", "--tls-key", "/no/such"), "cannot be"),
        (("--tls-cert", "/x"), "needs its key"),
    ],
)
def test_what_cannot_be_is_said_at_once(tmp_path: Path, flags: tuple[str, ...], said: str) -> None:
    argv = [*PROGRAM, "server", "--data", str(tmp_path), "--port", str(free_port()), *flags]
    ended = subprocess.run(
        argv, env=os.environ, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode != 0
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_server_without_a_ca_has_none_to_pin(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        lab.start_server()
        with pytest.raises(ServerUnreachable):
            fetch_ca(f"https://127.0.0.1:{free_port()}", OTHER)
        answer = http.client.HTTPConnection("127.0.0.1", lab.port, timeout=10)
        with contextlib.closing(answer):
            answer.request("GET", "/api/agents/ca")
            assert answer.getresponse().status == 404
