"""What this node can put around a task, and what an order asks of it.

Looked up once, when the agent starts: whether it may change users (root), and which control groups
it may make. Then each order's wishes become numbers for the shim (`confine` in the order,
docs/seams.md), or a refusal: a task never runs with less than was asked.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import sys
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from fleetwire.agent.drivers import Unable
from fleetwire.core.specs import Resources

CgroupKind: TypeAlias = Literal["v2", "v1", "none"]
TASK_UMASK: Final = 0o022
_ROOT: Final = "/sys/fs/cgroup"
_OURS: Final = "fleetwire"
_CONTROLLERS: Final = ("memory", "pids", "cpu")
_PERIOD_US: Final = 100_000


class Protection(NamedTuple):
    """What is in force here. `groups`: controller to the folder in which attempts' control groups
    are made; in version 2 they are all the same. `killing`: a folder of version 2 whose groups the
    kernel kills in one step, "" where there is none. `secrets_in_memory`: what waits for a task
    stands on a tmpfs; the vault knows (`agent.vault`).
    """

    switches_users: bool
    cgroup: CgroupKind
    groups: dict[str, str]
    killing: str
    no_new_privs: bool
    secrets_in_memory: bool = False

    def facts(self) -> dict[str, Any]:
        """Return what the inventory and doctor say of it."""
        return {
            "user_switching": self.switches_users,
            "cgroup": self.cgroup,
            "cgroup_controllers": sorted(self.groups),
            "cgroup_kill": bool(self.killing),
            "no_new_privs": self.no_new_privs,
            "secrets_in_memory": self.secrets_in_memory,
        }

    def sentence(self) -> str:
        """Return the same for people."""
        switching = "other users yes" if self.switches_users else "other users no (not root)"
        controllers = f" ({', '.join(sorted(self.groups))})" if self.groups else ""
        privileges = "yes" if self.no_new_privs else "no"
        secrets = "in memory" if self.secrets_in_memory else "on its disk (no tmpfs)"
        return (
            f"{switching}; control groups {self.cgroup}{controllers}; "
            f"no new privileges of confined tasks {privileges}; secrets wait {secrets}"
        )


class User(NamedTuple):
    """As whom a task runs. `names`: every spelling by which a policy may know it."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str
    names: tuple[str, ...]
    other: bool


def look(root: str = _ROOT, proc: str = "/proc/self/cgroup") -> Protection:
    """Find out what this process may do here; makes the folder for attempts' control groups."""
    linux = sys.platform == "linux"
    may = hasattr(os, "geteuid") and os.geteuid() == 0
    own = _own_groups(proc) if linux and may else {}
    groups: dict[str, str] = {}
    kind: CgroupKind = "none"
    killing = ""
    if "" in own and os.path.exists(os.path.join(root, "cgroup.controllers")):
        base = _version_2(root, own[""])
        if base:
            killing = base
            enabled = _words(os.path.join(base, "cgroup.controllers"))
            with contextlib.suppress(OSError):
                wanted = " ".join(f"+{name}" for name in _CONTROLLERS if name in enabled)
                _write(os.path.join(base, "cgroup.subtree_control"), wanted)
            on = _words(os.path.join(base, "cgroup.subtree_control"))
            groups = {name: base for name in _CONTROLLERS if name in on}
            kind = "v2" if groups else "none"
    else:
        for name in _CONTROLLERS:
            base = _folder(os.path.join(root, name), own[name]) if name in own else ""
            if base and os.path.exists(os.path.join(base, "cgroup.procs")):
                groups[name] = base
        kind = "v1" if groups else "none"
        if "" in own:
            killing = _folder(os.path.join(root, "unified"), own[""])
            if killing and not os.path.exists(os.path.join(killing, "cgroup.kill")):
                killing = ""
    return Protection(may, kind, groups, killing, linux)


def user(name: str) -> User:
    """Return the user of this name; "" is the agent's own. Raises Unable."""
    own = os.geteuid()
    if not name:
        try:
            found = pwd.getpwuid(own)
        except KeyError:  # a container may run as a number without a name
            return User(str(own), own, os.getegid(), "/", "/bin/sh", (str(own),), other=False)
    else:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            raise Unable(
                f"this node has no user {name!r}.", hint="Make it there, or name another one."
            ) from None
        if own not in {found.pw_uid, 0}:
            raise Unable(
                f"the agent runs as user {own} and cannot become {name}.",
                hint="Run the agent as root, or the task as the agent's own user.",
            )
    names = dict.fromkeys((found.pw_name, str(found.pw_uid), _first_name(found.pw_uid)))
    return User(
        found.pw_name,
        found.pw_uid,
        found.pw_gid,
        found.pw_dir,
        found.pw_shell or "/bin/sh",
        tuple(names),
        other=found.pw_uid != own,
    )


def confine(
    protection: Protection, attempt: str, who: User, asked: Resources
) -> dict[str, Any] | None:
    """Return what the shim has to do, None for nothing. Raises Unable where it cannot be done."""
    if not who.other and asked == Resources():
        return None
    rlimits = {
        name: value
        for name, value in (
            ("CPU", asked.cpu_time),
            ("NOFILE", asked.files),
            ("FSIZE", asked.file_size),
            ("CORE", asked.core),
        )
        if value is not None
    }
    groups = protection.groups
    bases = [protection.killing, *groups.values()]
    cgroups: dict[str, dict[str, str]] = {f"{base}/{attempt}": {} for base in bases if base}
    if asked.memory is not None:
        if base := groups.get("memory"):
            cgroups[f"{base}/{attempt}"] |= _memory(base, asked.memory, protection.cgroup)
        else:
            rlimits["AS"] = asked.memory
    if asked.processes is not None:
        if base := groups.get("pids"):
            cgroups[f"{base}/{attempt}"]["pids.max"] = str(asked.processes)
        else:
            rlimits["NPROC"] = _processes(asked.processes, who)
    if asked.cpus is not None:
        base = groups.get("cpu", "")
        cgroups.setdefault(f"{base}/{attempt}", {}).update(_cpus(base, asked.cpus, protection))
    return {
        "uid": who.uid if who.other else None,
        "gid": who.gid,
        "groups": sorted(os.getgrouplist(who.name, who.gid)) if who.other else [],
        "umask": TASK_UMASK,
        "rlimits": rlimits,
        "cgroups": cgroups,
    }


def way_in(path: str, uid: int) -> str | None:
    """Return the folder on the way to this path that a user may not pass, or None."""
    folder = os.path.dirname(path)
    while True:
        facts = os.stat(folder)
        if facts.st_uid != uid and not facts.st_mode & stat.S_IXOTH:
            return folder
        above = os.path.dirname(folder)
        if above == folder:
            return None
        folder = above


def _memory(base: str, most: int, kind: CgroupKind) -> dict[str, str]:
    if kind == "v2":
        files = {"memory.max": str(most)}
        swap, nothing = "memory.swap.max", "0"
    else:
        files = {"memory.limit_in_bytes": str(most)}
        swap, nothing = "memory.memsw.limit_in_bytes", str(most)
    # Not every kernel counts swap; one that does would let the task go on there.
    if os.path.exists(os.path.join(base, swap)):
        files[swap] = nothing
    return files


def _cpus(base: str, most: float, protection: Protection) -> dict[str, str]:
    if not base:
        raise Unable(
            "this node cannot limit processors: it has no control group for it.",
            hint="`protection` of the node's inventory says what it has; or use cpu_time.",
        )
    quota = max(1000, round(most * _PERIOD_US))
    if protection.cgroup == "v2":
        return {"cpu.max": f"{quota} {_PERIOD_US}"}
    return {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": str(quota)}


def _processes(most: int, who: User) -> int:
    if who.uid == 0:
        raise Unable(
            "this node cannot limit the processes of root: it has no control group for it.",
            hint="Run the task as another user, or without this limit.",
        )
    return most


def _own_groups(proc: str) -> dict[str, str]:
    """Return the control groups of this process by controller; "" is version 2's."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError), open(proc, encoding="utf-8") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if "/.." not in path:  # above the root of our namespace: not ours to touch
                found |= dict.fromkeys(controllers.split(","), path)
    return found


def _folder(root: str, path: str) -> str:
    """Make our folder below a control group; "" where we may not."""
    base = os.path.join(root, path.strip("/"), _OURS)
    try:
        os.makedirs(base, mode=0o755, exist_ok=True)
    except OSError:
        return ""
    return base


def _version_2(root: str, path: str) -> str:
    """Return the folder for attempts below the group that was delegated to us, "" for none.

    A group that hands out controllers holds no process itself: so ours has to be a group of its
    own (`DelegateSubgroup=` of systemd) below the one that was delegated, whose controllers we
    hand out; or the root.
    """
    own = os.path.join(root, path.strip("/")).rstrip("/")
    above = own if own == root.rstrip("/") else os.path.dirname(own)
    wanted = [name for name in _CONTROLLERS if name in _words(f"{above}/cgroup.controllers")]
    if above not in {own, root.rstrip("/")} and not _is_delegated(above):
        return ""
    if above == root.rstrip("/") and own != above:
        return ""  # below the root stand everybody's groups: nobody gave them to us
    with contextlib.suppress(OSError):
        _write(f"{above}/cgroup.subtree_control", " ".join(f"+{name}" for name in wanted))
    base = os.path.join(above, _OURS)
    try:
        os.makedirs(base, mode=0o755, exist_ok=True)
    except OSError:
        return ""
    return base


def _is_delegated(path: str) -> bool:
    """Whether systemd says that this group was given away (`Delegate=yes`)."""
    for name in ("trusted.delegate", "user.delegate"):
        with contextlib.suppress(OSError, AttributeError):
            if os.getxattr(path, name) == b"1":
                return True
    return False


def _words(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().split()
    except OSError:
        return []


def _write(path: str, value: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(value)


def _first_name(uid: int) -> str:
    return pwd.getpwuid(uid).pw_name
