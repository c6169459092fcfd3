"""Tasks of another user, with limits: what they are, what they may, and that they end.

Root only, as the agent is where it switches users; on this suite's machine it is.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fleetwire.agent import protection
from fleetwire.agent.vault import Vault
from fleetwire.core.happenings import Declined, Lost
from fleetwire.core.secrets import SecretUse
from fleetwire.core.specs import Resources, Script
from fleetwire.shim import spool
from fleetwire.testing.fake_server import FakeAttempt
from fleetwire.testing.real_agent import RealAgent as Lab

Play = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="not run: only root can switch users"),
]
USER = "nobody"
UID = pwd.getpwnam(USER).pw_uid
MIB = 1 << 20


@pytest.fixture
def lab() -> Iterator[Lab]:
    """As everywhere, but in a folder that others may pass."""
    root = Path(tempfile.mkdtemp(prefix="fleetwire-agent-"))
    root.chmod(0o755)
    lab = Lab(root)
    lab.enrol()
    try:
        yield lab
    finally:
        lab.close()
        shutil.rmtree(root, ignore_errors=True)


async def run(lab: Lab, script: str, **more: Any) -> FakeAttempt:
    more.setdefault("run_as", USER)
    attempt = lab.server.want(lab.node, Script(script, **more))
    await lab.server.wait(lambda: attempt.sealed or attempt.happened(Declined))
    return attempt


def refused(attempt: FakeAttempt) -> str:
    (said,) = attempt.happened(Declined)
    assert isinstance(said, Declined)
    assert said.final
    return said.reason


def marked(word: str) -> set[int]:
    """Processes with this word among their arguments, whatever their environment says."""
    found = set()
    for one in psutil.process_iter(["cmdline", "status"]):
        if word in (one.info["cmdline"] or ()) and one.info["status"] != psutil.STATUS_ZOMBIE:
            found.add(one.pid)
    return found


def left_of_secrets(lab: Lab) -> list[Path]:
    return list(Path(Vault(str(lab.state)).path).iterdir())


def groups_left() -> list[Path]:
    """Control groups of attempts, which all have ended."""
    bases = protection.look().groups.values()
    return [path for base in bases for path in Path(base).glob("*-*") if path.is_dir()]


def test_it_is_that_user_with_a_clean_environment_and_no_new_privileges(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up(env={"SECRET_OF_THE_AGENT": "1"})
        attempt = await run(
            lab,
            "id -u; id -g; id -G; umask; pwd; echo x > made; stat -c %U . made script\n"
            "grep -E 'NoNewPrivs|CapEff|CapPrm|Uid|Gid' /proc/self/status\n"
            "ls -1 /proc/self/fd | wc -l; echo said > /dev/stderr; env | sort | cut -d= -f1\n",
        )
        text = attempt.log.decode()
        assert attempt.exit is not None
        assert attempt.exit.exit_code == 0, text
        # What an older spawner's shim reads first is not there: it would run it as root.
        order = spool.read_record(str(lab.spool(attempt.id)), "order") or {}
        assert "argv" not in order
        assert order["strict"]["argv"]
        lines = text.replace("said\n", "", 1).splitlines()
        gid = str(pwd.getpwnam(USER).pw_gid)
        assert lines[:5] == [str(UID), gid, gid, "0022", str(lab.task(attempt.id))]
        assert lines[5:8] == [USER] * 3
        assert "NoNewPrivs:\t1" in lines
        assert "CapEff:\t0000000000000000" in lines
        assert f"Uid:\t{UID}\t{UID}\t{UID}\t{UID}" in lines
        assert "4" in lines  # 0, 1, 2, and the folder that `ls` reads
        assert "said\n" in text
        names = set(lines[lines.index("4") + 1 :])
        assert names <= {
            "FLEETWIRE_ATTEMPT", "FLEETWIRE_NODE", "FLEETWIRE_RUN", "HOME", "LANG", "LOGNAME",
            "OLDPWD", "PATH", "PWD", "SHELL", "SHLVL", "USER", "_",
        }  # fmt: skip
        assert await lab.leave() == 0

    play(scenario)


def test_it_can_neither_read_others_nor_harm_the_agent(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        other = lab.server.want(lab.node, Script("echo mine > secret; sleep 60", run_as=USER))
        roots = lab.server.want(lab.node, Script("echo root > secret; sleep 60"))
        secrets = [lab.task(one.id) / "secret" for one in (other, roots)]
        await lab.server.wait(lambda: other.final or all(path.exists() for path in secrets))
        agent = lab.agents[-1].pid
        attempt = await run(
            lab,
            f"state={lab.state}\n"
            "for path in $state $state/tasks $state/spool; do ls $path && echo LISTED $path; done\n"
            f"cat $state/identity.json $state/spool/{other.id}/order $state/tasks/{roots.id}/secret"
            " && echo READ\n"
            "for name in agent-status.json level.json life.json spawner.json agent.lock\n"
            "do cat $state/$name && echo READ $name; done\n"
            "/usr/bin/python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX)"
            ".connect(sys.argv[1])' $state/spawner.sock && echo READ the spawner\n"
            "touch $state/tasks/made $state/spool/made && echo WROTE\n"
            f"kill -9 {agent} && echo KILLED\n"
            f"cat /proc/{agent}/environ && echo SEEN\n"
            "exit 0\n",
        )
        text = attempt.log.decode()
        for word in ("LISTED", "READ", "WROTE", "KILLED", "SEEN"):
            assert word not in text, text
        assert psutil.pid_exists(agent)
        for one in (other, roots):
            lab.server.stop_attempt(one, grace=0.0)
        await lab.server.wait(lambda: other.sealed and roots.sealed)
        assert await lab.leave() == 0

    play(scenario)


def test_it_cannot_outlive_a_stop(play: Play) -> None:
    """Neither with another session, nor with an environment of its own, nor ignoring TERM."""

    async def scenario(lab: Lab) -> None:
        await lab.up()
        word = f"flee{time.monotonic_ns()}"
        attempt = lab.server.want(lab.node, Script(_escaping(word), run_as=USER))
        await lab.server.wait(lambda: marked(word))
        lab.server.stop_attempt(attempt, grace=0.1)
        await lab.server.wait(lambda: attempt.sealed)
        assert marked(word) == set()
        assert await lab.leave() == 0

    play(scenario)


def test_it_dies_though_shim_spawner_and_agent_were_killed(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        if not protection.look().groups:
            pytest.skip("not run: no control group can be made here")
        await lab.up()
        word = f"flee{time.monotonic_ns()}"
        attempt = lab.server.want(lab.node, Script(_escaping(word), run_as=USER))
        await lab.server.wait(lambda: marked(word))
        spawner = psutil.Process(lab.spawner_pid())
        for victim in (lab.agents[-1], spawner, *spawner.children()):
            victim.kill()
        await asyncio.to_thread(lab.agents[-1].wait)
        assert marked(word), "it must have outlived them, or nothing was shown"
        lab.launch()
        await lab.server.wait(lambda: attempt.happened(Lost))
        assert marked(word) == set()
        assert await lab.leave() == 0

    play(scenario)


def _escaping(word: str) -> str:
    """A task that leaves a child without session, parent, marker and ear for TERM."""
    return (
        "trap '' TERM\n"
        f"(env -i PATH=$PATH setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' {word} &)\n"
        "while :; do sleep 1; done\n"
    )


@pytest.mark.parametrize(
    ("resources", "fits", "above"),
    [
        (Resources(files=20), "exec 19</dev/null", "exec 20</dev/null"),
        (
            Resources(file_size=4096),
            "head -c 4096 /dev/zero > x",
            "head -c 4097 /dev/zero > x || exit 9",
        ),
        (Resources(core=0), "test $(ulimit -c) = 0", "ulimit -c 1"),
        (Resources(cpu_time=1), "true", "while :; do :; done"),
    ],
    ids=["files", "file_size", "core", "cpu_time"],
)
def test_a_limit_at_itself_and_one_above(
    play: Play, resources: Resources, fits: str, above: str
) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        shells = {"shell": "bash", "resources": resources}
        fine = await run(lab, fits, **shells)
        assert fine.exit is not None
        assert fine.exit.exit_code == 0, bytes(fine.log)
        bad = await run(lab, above, **shells)
        assert bad.exit is not None
        assert bad.exit.exit_code != 0, bytes(bad.log)
        assert await lab.leave() == 0

    play(scenario)


def test_memory_processes_and_processors_by_control_group(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        if set(protection.look().groups) != {"memory", "pids", "cpu"}:
            pytest.skip("not run: the control groups of this machine cannot be used")
        # Not an interpreter out of root's own folders, where it may not be let in.
        await lab.up(env={"PATH": "/usr/bin:/bin"})
        allocate = "import sys; x = bytearray(int(sys.argv[1])); x[::4096] = x[::4096]; print('ok')"
        for size, code in ((16 * MIB, 0), (128 * MIB, None)):
            attempt = await run(
                lab,
                allocate,
                shell="python",
                args=(str(size),),
                resources=Resources(memory=64 * MIB),
            )
            assert attempt.exit is not None
            assert attempt.exit.exit_code == code, bytes(attempt.log)
        assert attempt.exit.signal == signal.SIGKILL
        assert "out of memory" in (attempt.exit.error or "")
        fork = (
            "import os, signal, sys\nfor _ in range(int(sys.argv[1])):\n"
            "    if os.fork() == 0:\n        signal.pause()\n"
        )
        for children, code in ((4, 0), (5, 1)):  # the first process counts, too
            attempt = await run(
                lab,
                fork,
                shell="python",
                args=(str(children),),
                resources=Resources(processes=5),
            )
            assert attempt.exit is not None
            assert attempt.exit.exit_code == code, bytes(attempt.log)
        burn = (
            "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass\n"
            "print(time.process_time())\n"
        )
        attempt = await run(lab, burn, shell="python", resources=Resources(cpus=0.2))
        assert float(attempt.log) < 0.6
        assert await asyncio.to_thread(groups_left) == []
        assert await lab.leave() == 0

    play(scenario)


def test_the_same_user_is_limited_too_and_the_agents_setting_is_the_default(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up("--run-as", USER)
        default = await run(lab, "id -un", run_as="")
        assert bytes(default.log) == f"{USER}\n".encode()
        root = await run(lab, "id -un; ulimit -n", run_as="root", resources=Resources(files=30))
        assert bytes(root.log) == b"root\n30\n"
        assert await lab.leave() == 0

    play(scenario)


def test_what_cannot_be_done_is_refused_for_good_and_nothing_starts(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        policy = lab.root / "policy.yaml"
        policy.write_text("users:\n  allow: [nobody]\n")
        policy.chmod(0o644)
        await lab.up("--policy", str(policy))
        unknown = await run(lab, "true", run_as="no-such-user")
        assert "no user 'no-such-user'" in refused(unknown)
        root = await run(lab, "true", run_as="")
        assert f"refused by {policy} line 2: user 'root' is not allowed" in refused(root)
        fine = await run(lab, "true")
        assert fine.exit is not None
        lab.root.chmod(0o700)
        closed = await run(lab, "true")
        assert "lets no other user pass" in refused(closed)
        assert await lab.leave() == 0

    play(scenario)


def test_its_secrets_are_its_own(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        attempt = lab.server.want(
            lab.node,
            Script(
                'cd "$FLEETWIRE_SECRETS"; wc -c < token; stat -c "%U %a" token; stat -c "%U %a" .\n'
                "ls .. 2> /dev/null; id -un",
                run_as=USER,
                secrets=(SecretUse("token"),),
            ),
            secrets={"token": b"not for everybody"},
        )
        await lab.server.wait(lambda: attempt.exit)
        size, file, folder, user = attempt.log.decode().splitlines()
        assert size == "17"
        assert (file, folder) == (f"{USER} 600", f"{USER} 700")
        assert user == USER  # and `ls` of what is above says nothing
        assert left_of_secrets(lab) == []

    play(scenario)


def test_with_a_terminal(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        attempt = await run(lab, "test -t 0 && id -un > /dev/tty", tty=True)
        assert bytes(attempt.log) == f"{USER}\r\n".encode()
        assert await lab.leave() == 0

    play(scenario)


def test_a_folder_that_is_there_already_is_not_trusted(play: Play) -> None:
    """Its owner may have put a link where root would write the script."""

    async def scenario(lab: Lab) -> None:
        outside = lab.root / "outside"
        outside.write_text("mine")
        outside.chmod(0o600)
        await lab.up()
        await lab.server.drop(lab.node)
        attempt = lab.server.want(lab.node, Script("echo fine", run_as=USER))
        task = lab.task(attempt.id)
        task.mkdir(parents=True)
        (task / "script").symlink_to(outside)
        (task / "below").symlink_to(lab.root)
        os.chown(task, UID, -1)
        await lab.server.wait(lambda: attempt.sealed)
        assert bytes(attempt.log) == b"fine\n"
        assert outside.read_text() == "mine"
        assert (outside.stat().st_uid, outside.stat().st_mode & 0o777) == (os.getuid(), 0o600)
        assert await lab.leave() == 0

    play(scenario)
