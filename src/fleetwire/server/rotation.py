"""What is done to the master key while no server runs: change it, or give up what it protects."""

from __future__ import annotations

import asyncio

from fleetwire.server.app import data_folder, now_us, shell_user
from fleetwire.server.config import Config
from fleetwire.server.domain import audit, encrypted
from fleetwire.server.domain.encrypted import Counted
from fleetwire.server.domain.secrets import Sealing
from fleetwire.server.master_key import MasterKeys, seal_for_node
from fleetwire.server.nudges.memory import MemoryNudges
from fleetwire.server.store.engine import Database, Tx


def rotate(config: Config) -> Counted:
    """Encrypt every secret and second factor with a new master key, which takes the place of the
    old one. Cut short anywhere, nothing is lost, and it can be done again. Raises BadMasterKey, and
    CannotStart while a server uses the data folder.
    """
    with data_folder(config.data):
        return asyncio.run(_rotate(config))


async def _rotate(config: Config) -> Counted:
    before = MasterKeys.open(config.master_key_path, config.given_master_key)
    database = Database.open(config.database_url, nudges=MemoryNudges(), clock=now_us)
    try:
        before.check(await database.read(encrypted.key_ids))
        after = before.begin_rotation()

        def encrypt_anew(tx: Tx) -> Counted:
            counted = encrypted.encrypt_anew(tx, before=_sealing(before), after=_sealing(after))
            audit.say_by_shell(
                tx, "server.master-key", user=shell_user(), secrets=str(counted.secrets)
            )
            return counted

        counted = await database.write(encrypt_anew)
        after.settle(await database.read(encrypted.key_ids))
    finally:
        await database.close()
    return counted


def forget(config: Config) -> Counted:
    """Delete every secret and second factor, because the master key is lost for good."""

    def forget_all_there(tx: Tx) -> Counted:
        counted = encrypted.forget_all(tx)
        audit.say_by_shell(
            tx, "server.forget-secrets", user=shell_user(), secrets=str(counted.secrets)
        )
        return counted

    async def forget_all() -> Counted:
        database = Database.open(config.database_url, nudges=MemoryNudges(), clock=now_us)
        try:
            return await database.write(forget_all_there)
        finally:
            await database.close()

    with data_folder(config.data):
        return asyncio.run(forget_all())


def _sealing(keys: MasterKeys) -> Sealing:
    return Sealing(keys.seal, keys.unseal, seal_for_node)
