"""From an order to a folder that a shim can run: is it signed for us, and what does it execute.

Nothing here decides whether to start (that is `attempts.reconcile`) and nothing starts here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from fleetwire.agent import drivers, folders, keys, protection
from fleetwire.agent.attempts import Decline
from fleetwire.agent.config import AgentConfig
from fleetwire.agent.drivers import Launch, Unable
from fleetwire.agent.files import write_new
from fleetwire.agent.folders import Places
from fleetwire.agent.identity import Identity
from fleetwire.agent.keys import KeyPair
from fleetwire.agent.platforms import SEARCH_PATH
from fleetwire.agent.policy import LocalPolicy
from fleetwire.agent.protection import Protection, User
from fleetwire.agent.vault import Vault
from fleetwire.core import envelopes, limits
from fleetwire.core.desired import Wanted
from fleetwire.core.errors import FleetwireError
from fleetwire.core.policy import Action, Ask
from fleetwire.core.reserve import bounds
from fleetwire.core.secrets import read_content
from fleetwire.core.specs import Script, quota_policy, resources, run_as, secrets_of
from fleetwire.shim.delivery import Secret

_TERMINAL: Final = {"rows": 24, "cols": 80}
_QUOTA_SHARE: Final = 10  # a tenth of the free disk (P9)
_QUOTA_LEAST: Final = limits.MIB


# What came of preparing a start: it may be asked for, it has begun already, or why not.
Prepared: TypeAlias = Literal["ready", "begun"] | Decline


class NoRoom(FleetwireError):
    """The node's disk has no room for another attempt."""

    code = "no-room"


class HasBegun(Exception):
    """The attempt's folder says that it must not be started: a shim is there, or was."""


class Starter:
    """Checks and prepares starts. `server_now`: microseconds, by the server's clock."""

    def __init__(
        self,
        config: AgentConfig,
        identity: Identity,
        places: Places,
        server_now: Callable[[], int],
        *,
        boot_id: str,
        vault: Vault,
        policy: LocalPolicy,
        around: Protection,
    ) -> None:
        self._vault = vault
        self._policy = policy
        self._protection = around
        self._own = protection.user("")
        self._boot_id = boot_id
        self._config = config
        self._identity = identity
        self._keys: Mapping[str, bytes] = identity.server_keys
        self._places = places
        self._server_now = server_now
        self._search = os.environ.get("PATH") or SEARCH_PATH

    def trust(self, server_keys: Mapping[str, bytes]) -> None:
        """Take orders signed by these keys, and by no others, from now on."""
        self._keys = server_keys

    def objection(self, wanted: Wanted) -> str | None:
        """Say what is wrong with a signed order, or None."""
        order = wanted.order
        if order is None:
            return "there is no order"
        key = self._keys.get(order.key)
        if key is None:
            return (
                f"the order is signed with a key that this node does not know: {order.key[:64]!r}"
            )
        if not keys.verifies(key, envelopes.order_bytes(order.envelope), order.signature):
            return "the order's signature is wrong"
        return envelopes.objection(
            order.envelope,
            order.spec,
            cluster=self._identity.cluster,
            node=self._identity.node,
            attempt=wanted.attempt,
            epoch=wanted.epoch,
            now=self._server_now(),
            secrets=order.secrets,
        )

    def prepare_all(self, orders: Sequence[Wanted], *, quota: int) -> list[Prepared]:
        """Prepare each of these, with so much of the spool quota. Blocks; safe in a thread."""
        refusals: list[Prepared] = []
        for wanted in orders:
            try:
                self.prepare(wanted, quota=quota)
                refusals.append("ready")
            except HasBegun:
                refusals.append("begun")
            except Unable as error:
                refusals.append(Decline(str(error), final=True))
            except OSError as error:
                why = f"its folders cannot be written: {error.strerror}"
                refusals.append(Decline(why, final=False))
        return refusals

    def prepare(self, wanted: Wanted, *, quota: int) -> None:
        """Write the attempt's folders and its `order`. Raises HasBegun, Unable or OSError.

        Nothing of it is synced here: the shim makes the folder's name durable with `epoch`.
        """
        order = wanted.order
        if order is None:
            raise AssertionError("a start needs an order")
        spec = order.spec
        task = self._places.task(wanted.attempt)
        launch = drivers.prepare(spec, task=task, search=self._search)
        name = run_as(spec) or self._config.run_as
        who = protection.user(name) if name else self._own
        self._policy.check(_ask(wanted, launch, who))
        given = self._unseal(wanted)
        confined = protection.confine(self._protection, wanted.attempt, who, resources(spec))
        spool = self._places.spool(wanted.attempt)
        if not _make(spool) and not folders.clear_tombstones(spool, wanted.epoch):
            raise HasBegun(wanted.attempt)
        if who.other:
            self._open_way(task, who)
            # Should an agent that died have made it: its owner may have put anything there since.
            folders.remove_tree(task)
        _make(task)
        for name, content in launch.files.items():
            path = os.path.join(task, name)
            write_new(path, content, mode=0o500)
            if who.other:
                os.chown(path, who.uid, who.gid, follow_symlinks=False)
        if who.other:
            os.chown(task, who.uid, who.gid, follow_symlinks=False)
        environment = {
            **_base_environment(self._search, who),
            **({"TERM": "xterm-256color"} if launch.tty else {}),
            **launch.env,
            "FLEETWIRE_ATTEMPT": wanted.attempt,
            "FLEETWIRE_RUN": order.envelope.run,
            "FLEETWIRE_NODE": self._identity.name,
        }
        record: dict[str, Any] = {
            "attempt": wanted.attempt,
            "epoch": wanted.epoch,
            "boot_id": self._boot_id,
            "argv": launch.argv,
            "env": environment,
            "cwd": task,
            "tty": _TERMINAL if launch.tty else None,
            "stdin": "null",
            "deadline_s": min(order.spec.timeout, self._config.max_deadline_s),
            "grace_s": order.spec.grace,
            "quota": quota,
            "quota_policy": quota_policy(order.spec),
            "piece": limits.PIECE_BYTES,
        }
        strict: dict[str, Any] = {}
        if given:
            # Under the lock: a shim of an earlier try must not find half of it.
            with folders.held_unbegun(spool) as unbegun:
                if not unbegun:
                    raise HasBegun(wanted.attempt)
                folder = self._vault.deliver(wanted.attempt, given, other=who.other)
            environment["FLEETWIRE_SECRETS"] = strict["secrets"] = folder
        if confined is not None:
            strict["confine"] = confined
        if (most := self._policy.max_output()) > 0:
            strict["most"] = most
        if strict:
            # A spawner may be older than this agent, whom it outlives: a shim of its that would
            # overlook this finds nothing to execute.
            record["strict"] = {**strict, "argv": record.pop("argv")}
        # Neither fsynced nor renamed into place: it is read only after the spawner is asked, and
        # whoever finds it without `epoch` after a crash writes it again before he asks.
        write_new(os.path.join(spool, "order"), msgspec.json.encode(record), mode=0o600)

    def withdraw(self, attempt: str) -> None:
        """What was delivered for it is not to be used any more: it has ended, or never starts."""
        self._vault.withdraw(attempt)

    def _unseal(self, wanted: Wanted) -> list[Secret]:
        """Return the secrets of an order. Raises Unable."""
        order = wanted.order
        if order is None or not order.secrets:
            return []
        key = KeyPair(self._identity.sealing_secret, self._identity.sealing_key)
        data = keys.unseal(key, order.secrets)
        if data is None:
            raise Unable(
                "The order's secrets are sealed for another key than this node's.",
                hint="Was its state directory replaced? Enrol the node anew.",
            )
        try:
            content = read_content(
                data, secrets_of(order.spec), attempt=wanted.attempt, epoch=wanted.epoch
            )
        except FleetwireError as error:
            raise Unable(error.detail, hint=error.hint) from None
        return [Secret(each.name, each.as_, each.to, each.value) for each in content.secrets]

    def _open_way(self, task: str, who: User) -> None:
        """Let other users pass through our folders, to the one that is theirs: they can neither
        list what else is there nor enter it.
        """
        for folder in (self._places.state, self._places.tasks):
            os.chmod(folder, 0o711)  # noqa: S103 (to pass, not to list)
        closed = protection.way_in(task, who.uid)
        if closed is not None:
            raise Unable(
                f"user {who.name} cannot reach its working directory: {closed} lets no other "
                "user pass.",
                hint="Give the agent a state directory that others may pass through (mode 711).",
            )

    def quota(self, busy: int) -> int:
        """Return the share of the spool quota of each of that many live attempts, in bytes.
        Raises NoRoom when the disk is too full for any.
        """
        usage = shutil.disk_usage(self._places.spools)
        free = usage.free
        floor = bounds(usage.total, floor=limits.NODE_FLOOR_BYTES).floor
        if free < floor:
            # What runs, its output and its exit need the rest (P16).
            raise NoRoom(
                f"the node's disk is full: {free // limits.KIB} KiB are free, and a start needs "
                f"{floor // limits.KIB} KiB.",
                hint="Free some space on the node.",
            )
        total = self._config.spool_quota_bytes or min(limits.QUOTA_BYTES, free // _QUOTA_SHARE)
        return max(_QUOTA_LEAST, total // max(1, busy))


def _make(path: str) -> bool:
    """Make a folder for the owner only; False when it is there already."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return False
    return True


def _base_environment(search: str, who: User) -> dict[str, str]:
    """Return what every task gets: built from nothing, so that no secret of ours is inherited."""
    found = {
        "PATH": search,
        "HOME": who.home,
        "USER": who.name,
        "LANG": os.environ.get("LANG") or "C.UTF-8",
    }
    return found | ({"LOGNAME": who.name, "SHELL": who.shell} if who.other else {})


def _ask(wanted: Wanted, launch: Launch, who: User) -> Ask:
    """Return what the local policy has to allow."""
    order = wanted.order
    if order is None:
        raise AssertionError("a start needs an order")
    spec = order.spec
    actions: tuple[Action, ...] = ("exec", "terminal") if launch.tty else ("exec",)
    interpreter: tuple[str, ...] = ()
    # Every variable whose name the order chooses, wherever its value comes from.
    environment = {use.to for use in secrets_of(spec) if use.as_ == "env"}
    if isinstance(spec, Script):
        program = launch.argv[0]
        interpreter = tuple(dict.fromkeys((spec.shell, program, os.path.realpath(program))))
        environment.update(spec.env)
    return Ask(
        actions=actions,
        user=who.names,
        interpreter=interpreter,
        environment=tuple(sorted(environment)),
        signer=(order.key,),
        timeout=spec.timeout,
    )
