"""What is done to the master key while no server runs: change it, or give up what it protects."""

from __future__ import annotations

import asyncio

import msgspec

from fleetwire.server.app import data_folder, now_us
from fleetwire.server.config import Config
from fleetwire.server.domain import secrets
from fleetwire.server.domain.secrets import Sealing
from fleetwire.server.master_key import MasterKeys, seal_for_node
from fleetwire.server.nudges.memory import MemoryNudges
from fleetwire.server.store.engine import Database


class Rotated(msgspec.Struct, frozen=True):
    """How many secrets were encrypted anew, or deleted."""

    secrets: int


def rotate(config: Config) -> Rotated:
    """Encrypt every secret with a new master key, which takes the place of the old one. Cut short
    anywhere, nothing is lost, and it can be done again. Raises BadMasterKey, and CannotStart while
    a server uses the data folder.
    """
    with data_folder(config.data):
        return asyncio.run(_rotate(config))


async def _rotate(config: Config) -> Rotated:
    before = MasterKeys.open(config.master_key_path, config.given_master_key)
    database = Database.open(config.database_url, nudges=MemoryNudges(), clock=now_us)
    try:
        before.check(await database.read(secrets.key_ids))
        after = before.begin_rotation()
        count = await database.write(
            lambda tx: secrets.encrypt_anew(tx, before=_sealing(before), after=_sealing(after))
        )
        after.settle(await database.read(secrets.key_ids))
    finally:
        await database.close()
    return Rotated(count)


def forget(config: Config) -> Rotated:
    """Delete every secret, because the master key is lost for good."""

    async def forget_all() -> int:
        database = Database.open(config.database_url, nudges=MemoryNudges(), clock=now_us)
        try:
            return await database.write(secrets.forget_all)
        finally:
            await database.close()

    with data_folder(config.data):
        return Rotated(asyncio.run(forget_all()))


def _sealing(keys: MasterKeys) -> Sealing:
    return Sealing(keys.seal, keys.unseal, seal_for_node)
