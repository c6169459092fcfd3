"""The master key: where it stands, what it refuses, and changing it with a crash anywhere."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from fleetwire.core import totp
from fleetwire.core.access import DEFAULT_PROJECT
from fleetwire.core.secrets import Box
from fleetwire.server import rotation
from fleetwire.server.app import new_id, now_us
from fleetwire.server.config import BadConfig, Config, load
from fleetwire.server.domain import encrypted, factors, secrets, users
from fleetwire.server.domain.secrets import Sealing
from fleetwire.server.master_key import (
    KEY_BYTES,
    KEY_FILE,
    BadMasterKey,
    MasterKeys,
    seal_for_node,
)
from fleetwire.server.nudges.memory import MemoryNudges
from fleetwire.server.store import tables
from fleetwire.server.store.engine import Database, Tx

VALUE = b"canary-value-of-a-secret"
TOTP = b"canary-of-the-factor"
T = TypeVar("T")


def keys_at(folder: Path) -> MasterKeys:
    return MasterKeys.open(folder / KEY_FILE, None)


def test_it_is_made_when_it_is_first_needed_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    keys = keys_at(tmp_path)
    assert keys.ids == frozenset()
    assert not (tmp_path / KEY_FILE).exists()
    box = keys.seal(VALUE, b"context")
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert keys_at(tmp_path).unseal(box, b"context") == VALUE
    assert VALUE not in box.data
    assert keys.seal(VALUE, b"context") != box  # another nonce


def test_no_bit_may_change(tmp_path: Path) -> None:
    keys = keys_at(tmp_path)
    box = keys.seal(VALUE, b"context")
    flipped = bytes([box.data[0] ^ 1]) + box.data[1:]
    for bad, context in (
        (box, b"another context"),
        (Box(box.key_id, box.nonce, flipped), b"context"),
        (Box(box.key_id, bytes(12), box.data), b"context"),
        (Box("0" * 16, box.nonce, box.data), b"context"),
        (Box(box.key_id, b"", box.data), b"context"),
    ):
        with pytest.raises(BadMasterKey):
            keys.unseal(bad, context)


def test_two_installations_share_no_key(tmp_path: Path) -> None:
    found = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        keys_at(tmp_path / name).seal(VALUE, b"")
        found.add((tmp_path / name / KEY_FILE).read_bytes())
    assert len(found) == 2


@pytest.mark.parametrize("text", ["", "short", base64.b64encode(bytes(31)).decode(), "=" * 44])
def test_what_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / KEY_FILE).write_text(text)
    (tmp_path / KEY_FILE).chmod(0o600)
    with pytest.raises(BadMasterKey, match="no master key"):
        keys_at(tmp_path)
    with pytest.raises(BadMasterKey, match="no master key"):
        MasterKeys.open(tmp_path / "none", text)


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    keys_at(tmp_path).seal(VALUE, b"")
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(BadMasterKey, match="chmod 600"):
        keys_at(tmp_path)


def test_the_environment_wins_and_makes_no_file(tmp_path: Path) -> None:
    given = base64.b64encode(b"k" * KEY_BYTES).decode()
    config = load({"data": tmp_path}, {"FLEETWIRE_SERVER_MASTER_KEY": given})
    assert config.given_master_key == given
    assert given not in repr(config)
    keys = MasterKeys.open(config.master_key_path, config.given_master_key)
    box = keys.seal(VALUE, b"")
    assert MasterKeys.open(tmp_path / "none", given).unseal(box, b"") == VALUE
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BadMasterKey, match="environment"):
        keys.begin_rotation()


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    box = keys_at(tmp_path).seal(VALUE, b"")
    (tmp_path / KEY_FILE).unlink()
    keys = keys_at(tmp_path)
    keys.check(())
    with pytest.raises(BadMasterKey, match=box.key_id) as caught:
        keys.check({box.key_id})
    assert "forget-secrets" in caught.value.hint


def test_an_unknown_setting_near_it_is_suggested(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="master_key_fil"):
        load({"data": tmp_path}, {"FLEETWIRE_SERVER_MASTER_KEY_FIL": "x"})


class Record:
    """A record with secrets, opened and closed for each use."""

    def __init__(self, data: Path, database_url: str) -> None:
        self.config = Config(
            data=data, database=None if database_url.startswith("sqlite:") else database_url
        )
        data.mkdir(mode=0o700, exist_ok=True)

    def keys(self) -> MasterKeys:
        return MasterKeys.open(self.config.master_key_path, None)

    def run(self, use: object) -> object:
        async def all_of_it() -> object:
            database = Database.open(self.config.database_url, nudges=MemoryNudges(), clock=now_us)
            try:
                return await use(database)  # type: ignore[operator]
            finally:
                await database.close()

        return asyncio.run(all_of_it())

    def put(self, name: str, value: bytes) -> None:
        keys = self.keys()
        sealing = Sealing(keys.seal, keys.unseal, seal_for_node)
        self.run(
            lambda database: database.write(
                lambda tx: secrets.put(
                    tx, DEFAULT_PROJECT, name, value, by="somebody", sealing=sealing
                )
            )
        )

    def key_ids(self) -> frozenset[str]:
        return self.run(lambda database: database.read(encrypted.key_ids))  # type: ignore[return-value]

    def values(self) -> dict[str, bytes]:
        keys = self.keys()
        keys.settle(self.key_ids())
        read = self.run(
            lambda database: database.read(
                lambda c: secrets.rows.values(c, DEFAULT_PROJECT, ["a", "b"])
            )
        )
        return {
            name: keys.unseal(row.box, secrets.context(row.project, row.name, row.version))
            for name, row in read.items()  # type: ignore[attr-defined]
        }

    def sealing(self) -> Sealing:
        keys = self.keys()
        keys.settle(self.key_ids())
        return Sealing(keys.seal, keys.unseal, seal_for_node)

    def begin_factor(self, name: str) -> str:
        """Make a user with a second factor that counts; return their id."""
        sealing = self.sealing()

        def begin(tx: Tx) -> str:
            user = users.create(tx, name, password_hash="", is_system_admin=False, ids=new_id).id
            factors.begin(tx, user, name=name, secret=TOTP, sealing=sealing)
            code = totp.code_at(TOTP, totp.step_of(tx.now) - 1)
            factors.confirm(tx, user, code, recovery=["a-b-c"], sealing=sealing)
            return user

        return self.write(begin)

    def takes_a_code(self, user: str) -> bool:
        """Say whether a code is good; tried and not used up."""
        sealing = self.sealing()

        def use(tx: Tx) -> bool:
            code = totp.code_at(TOTP, totp.step_of(tx.now) + 1)
            good = factors.use(tx, user, code, sealing=sealing)
            tx.connection.execute(tables.totps.update().values(last_step=0))
            return good

        return self.write(use)

    def audited(self) -> list[tuple[str, str, str]]:
        """Return action, way and detail of each entry."""
        entries = tables.audit_entries
        return self.write(
            lambda tx: [
                (row.action, row.via, row.detail)
                for row in tx.connection.execute(entries.select().order_by(entries.c.number))
            ]
        )

    def write(self, use_case: Callable[[Tx], T]) -> T:
        return self.run(lambda database: database.write(use_case))  # type: ignore[return-value]


@pytest.fixture
def record(tmp_path: Path, record_url: str) -> Record:
    made = Record(tmp_path / "data", record_url)
    made.put("a", VALUE)
    made.put("b", b"another-secret")
    return made


class Cut(Exception):
    """Where the process ends."""


BOTH = {"a": VALUE, "b": b"another-secret"}


def test_a_rotation_encrypts_everything_with_a_new_key(record: Record) -> None:
    old = record.config.master_key_path.read_bytes()
    before = record.key_ids()
    assert rotation.rotate(record.config).secrets == 2
    assert record.config.master_key_path.read_bytes() != old
    assert record.key_ids().isdisjoint(before)
    assert record.values() == BOTH
    assert [path.name for path in record.config.data.glob("master-key*")] == ["master-key"]
    assert record.audited() == [("server.master-key", "shell", '{"secrets":"2"}')]


@pytest.mark.parametrize("moment", ["key", "commit", "rename"])
def test_a_rotation_that_is_cut_short_loses_nothing(
    record: Record, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Killed after the next key is durable, in the transaction, or before the last rename."""

    def cut(*_: object, **__: object) -> None:
        raise Cut

    where = {
        "key": (rotation.encrypted, "encrypt_anew"),
        "commit": (secrets.rows, "change"),
        "rename": (MasterKeys, "settle"),
    }[moment]
    with monkeypatch.context() as patched:
        patched.setattr(*where, cut)
        with pytest.raises(Cut):
            rotation.rotate(record.config)
    assert (record.config.data / "master-key.next").exists()
    assert record.values() == BOTH  # as a server that starts now would find them
    assert rotation.rotate(record.config).secrets == 2
    assert record.values() == BOTH
    assert not (record.config.data / "master-key.next").exists()


def test_no_rotation_without_the_key_that_is_needed(record: Record) -> None:
    record.config.master_key_path.unlink()
    with pytest.raises(BadMasterKey, match="which is not in"):
        rotation.rotate(record.config)
    assert not (record.config.data / "master-key.next").exists()
    assert rotation.forget(record.config).secrets == 2
    assert record.key_ids() == frozenset()
    assert record.audited() == [("server.forget-secrets", "shell", '{"secrets":"2"}')]


def leave_readable(tx: Tx) -> None:
    """Leave second factors as a server before revision 0009 did."""
    bare = {"secret": totp.as_text(TOTP), "key_id": None, "nonce": None, "data": None}
    tx.connection.execute(tables.totps.update().values(**bare))


def readable(record: Record) -> list[object]:
    return record.write(
        lambda tx: [row.secret for row in tx.connection.execute(tables.totps.select())]
    )


def test_second_factors_are_encrypted_too_and_rotated_with_the_rest(record: Record) -> None:
    user = record.begin_factor("ann")
    assert readable(record) == [None]
    assert record.takes_a_code(user)
    before = record.key_ids()
    assert rotation.rotate(record.config) == encrypted.Counted(secrets=2, second_factors=1)
    assert record.key_ids().isdisjoint(before)
    assert record.takes_a_code(user)
    for path in record.config.data.iterdir():
        assert TOTP not in path.read_bytes()
        assert totp.as_text(TOTP).encode() not in path.read_bytes()


def test_what_an_older_server_left_readable_is_encrypted_and_nothing_of_it_stays(
    record: Record,
) -> None:
    user = record.begin_factor("ann")
    record.write(leave_readable)
    sealing = record.sealing()

    def cut(tx: Tx) -> None:
        assert encrypted.encrypt_readable(tx, sealing) == 1
        raise Cut

    with pytest.raises(Cut):  # a start that is cut short changes nothing, and is done again
        record.write(cut)
    assert readable(record) == [totp.as_text(TOTP)]
    for count in (1, 0):
        assert record.write(lambda tx: encrypted.encrypt_readable(tx, sealing)) == count
    assert readable(record) == [None]
    assert record.takes_a_code(user)
    for path in record.config.data.iterdir():
        assert totp.as_text(TOTP).encode() not in path.read_bytes(), path
    # A rotation right after the update, before any server has started.
    record.write(leave_readable)
    assert rotation.rotate(record.config).second_factors == 1
    assert readable(record) == [None]
    assert record.takes_a_code(user)


def test_a_second_factor_of_one_user_is_not_that_of_another(record: Record) -> None:
    ann, bob = record.begin_factor("ann"), record.begin_factor("bob")

    def swap(tx: Tx) -> None:
        box = factors.factors.boxes(tx.connection)[ann]
        factors.factors.put_box(tx.connection, bob, box)

    record.write(swap)
    assert record.takes_a_code(ann)
    with pytest.raises(BadMasterKey):
        record.takes_a_code(bob)


def test_second_factors_alone_need_their_key_and_go_with_it(
    tmp_path: Path, database_url: str
) -> None:
    record = Record(tmp_path / "data", database_url)
    user = record.begin_factor("ann")
    record.config.master_key_path.unlink()
    with pytest.raises(BadMasterKey, match="second factors"):
        rotation.rotate(record.config)
    assert rotation.forget(record.config) == encrypted.Counted(secrets=0, second_factors=1)
    assert record.key_ids() == frozenset()
    assert not record.write(lambda tx: factors.is_on(tx.connection, user))
