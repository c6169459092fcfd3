"""Secrets from the delivery to the task, and nowhere else: real shims, real kills."""

from __future__ import annotations

import base64
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fleetwire.shim import burial, delivery, spool
from fleetwire.shim.delivery import Secret

if TYPE_CHECKING:
    from tests.shim.conftest import Node, Placed

CANARY = b"canary-5f2e/ \"x\" 'y' \xc3\xa9-9a81"
LINES = b"first-line-of-it\nsecond-line-of-it\n"


class Vault:
    """Folders of deliveries, as the agent makes them."""

    def __init__(self, node: Node, path: Path) -> None:
        self.node = node
        self.path = path
        path.mkdir(mode=0o700)

    def sh(self, script: str, *secrets: Secret, **order: Any) -> tuple[Placed, Path]:
        attempt = str(uuid.uuid4())
        folder = self.path / attempt
        delivery.deliver(str(folder), secrets)
        env = {"FLEETWIRE_SECRETS": str(folder), **order.pop("env", {})}
        strict = {"argv": ["/bin/sh", "-c", script], "secrets": str(folder)}
        return self.node.place(attempt=attempt, strict=strict, env=env, **order), folder


@pytest.fixture
def vault(node: Node, tmp_path: Path) -> Vault:
    return Vault(node, tmp_path / "vault")


def everywhere(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def holds(pid: int, value: bytes) -> bool:
    """Whether a process has these bytes anywhere in its memory that it may write."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            where, rights = line.split()[:2]
            if rights.startswith("rw"):
                start, end = (int(part, 16) for part in where.split("-"))
                memory.seek(start)
                if value in memory.read(end - start):
                    return True
    return False


def test_a_task_reads_its_secrets_and_its_log_does_not_show_them(vault: Vault) -> None:
    placed, folder = vault.sh(
        'cd "$FLEETWIRE_SECRETS"; cat token; echo; echo "got $PASSWORD"; stat -c %a *;'
        'base64 < token; ls -A; echo "$PASSWORD" >&2',
        Secret("token", "file", "token", CANARY),
        Secret("pw", "env", "PASSWORD", CANARY + b"2"),
    )
    record = placed.run()
    assert record["exit_code"] == 0
    log = placed.log()
    assert log.startswith(b"***\ngot ***\n600\n***")
    assert b"token\n" in log  # and no other file: the delivery was taken
    assert CANARY not in log
    assert base64.b64encode(CANARY)[:16] not in log
    assert not folder.exists()
    assert b"canary" not in everywhere(vault.node.state)


def test_a_terminal_writes_other_line_ends_and_is_masked_all_the_same(vault: Vault) -> None:
    placed, _ = vault.sh(
        'cat "$FLEETWIRE_SECRETS/key"; echo end',
        Secret("key", "file", "key", LINES),
        tty={"rows": 24, "cols": 80},
    )
    placed.run()
    assert placed.log() == b"***\r\nend\r\n"


def test_a_prompt_that_may_be_the_beginning_of_a_secret_appears(vault: Vault) -> None:
    placed, _ = vault.sh("printf 'canary'; exec sleep 60", Secret("token", "file", "token", CANARY))
    placed.start()
    placed.wait_output(b"canary")
    placed.stop(0)
    placed.wait()
    placed.check()


def test_a_shim_that_knew_a_secret_lives_no_other_attempt(
    vault: Vault, alive: Callable[[int], bool], wait_until: Callable[..., Any]
) -> None:
    placed, _ = vault.sh("true", Secret("token", "file", "token", CANARY))
    placed.run()
    wait_until(lambda: not alive(placed.shim), "the shim to end")
    other = vault.node.sh("true")
    other.run()
    again = vault.node.sh("true")
    again.run()
    assert again.shim == other.shim  # one that knew none is used again
    try:
        assert not holds(vault.node.spawner_pid(), CANARY)
        assert not holds(again.shim, CANARY)
        assert holds(os.getpid(), CANARY)  # the look can find it
    except PermissionError:
        pytest.skip("this user may not read another process's memory")


@pytest.mark.parametrize("with_spawner", [True, False])
def test_a_killed_shim_leaves_no_secret(vault: Vault, with_spawner: bool) -> None:
    placed, folder = vault.sh(
        'cat "$FLEETWIRE_SECRETS/token"; echo ready; exec sleep 60',
        Secret("token", "file", "token", CANARY),
    )
    placed.start()
    placed.wait_output(b"ready")
    assert (folder / "token").read_bytes() == CANARY
    placed.killed(with_spawner=with_spawner)
    assert not folder.exists()
    assert b"canary" not in everywhere(vault.node.state)


def test_a_task_cannot_keep_its_secrets_from_being_removed(vault: Vault, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("stays")
    placed, folder = vault.sh(
        f'cd "$FLEETWIRE_SECRETS"; mkdir -p a/b; touch a/b/c; ln -s {other} link; ln -s / root;'
        "chmod 0 a/b a .",
        Secret("token", "file", "token", CANARY),
    )
    placed.run()
    assert not folder.exists()
    assert other.read_text() == "stays"


def test_without_its_delivery_a_task_does_not_start(vault: Vault) -> None:
    placed, folder = vault.sh("echo ran", Secret("token", "file", "token", CANARY))
    (folder / delivery.VALUES).unlink()
    placed.start()
    assert "its secrets are not there" in placed.wait("lost")["reason"]
    assert placed.log() == b""
    assert not folder.exists()


@pytest.mark.parametrize("wrong", [{"cwd": "/no/such/folder"}, {"deadline_s": "soon"}])
def test_a_start_that_fails_before_it_begins_leaves_no_secret(
    vault: Vault, wrong: dict[str, str]
) -> None:
    placed, folder = vault.sh("echo ran", Secret("token", "file", "token", CANARY), **wrong)
    placed.start()
    assert placed.wait("lost")["reason"].startswith("start failed: ")
    assert not folder.exists()
    assert placed.log() == b""


def test_no_order_has_the_secrets_of_another_attempt_removed(vault: Vault) -> None:
    """Neither where it begins, nor where its dead shim is judged."""
    other, folder = vault.sh("echo ran", Secret("token", "file", "token", CANARY))
    for begins in (False, True):
        record = {"argv": ["/bin/sh", "-c", "sleep 60"], "secrets": str(folder)}
        placed = vault.node.place(strict=record if not begins else {**record, "secrets": ""})
        placed.start()
        if begins:
            placed.wait_started()
            order = placed.record("order")
            order["strict"]["secrets"] = str(folder)  # damaged meanwhile
            spool.write_record(placed.folder, "order", order)
            assert placed.killed(with_spawner=True)["reason"] == burial.SHIM_DIED
        else:
            assert "no folder of this attempt" in placed.wait("lost")["reason"]
        assert (folder / delivery.VALUES).exists()
    assert other.run()["exit_code"] == 0


def test_a_damaged_delivery_is_refused_without_a_word_of_it(vault: Vault) -> None:
    placed, folder = vault.sh("echo ran", Secret("token", "file", "token", CANARY))
    (folder / delivery.VALUES).write_bytes(b'[{"name": "canary"')
    placed.start()
    reason = placed.wait("lost")["reason"]
    assert "its secrets cannot be read" in reason
    assert "canary" not in reason


@pytest.mark.parametrize("to", ["../x", "a/b", ".values", "..", ""])
def test_a_file_of_a_secret_cannot_stand_elsewhere(tmp_path: Path, to: str) -> None:
    delivery.deliver(str(tmp_path / "v"), [Secret("n", "file", to, b"v")])
    with pytest.raises(delivery.DeliveryError):
        delivery.take(str(tmp_path / "v"))


def test_dropped_output_is_read_as_well_so_that_the_rest_of_a_secret_is_masked(
    vault: Vault,
) -> None:
    placed, _ = vault.sh(
        'i=0; while [ $i -lt 40000 ]; do echo "$TOKEN $i"; i=$((i+1)); done',
        Secret("token", "env", "TOKEN", b"abcdefgh" * 12),
        quota=20_000,
        quota_policy="drop",
        piece=4096,
    )
    placed.run()
    log = placed.log()
    assert b"abcdefgh" not in log
    assert any(frame.stream == 0 for frame in placed.frames())
