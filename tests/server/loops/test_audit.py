"""Checkpoints and retention of the audit, by a clock of the test."""

from __future__ import annotations

from typing import Any

import pytest

from fleetwire.client.audit import verifies
from fleetwire.core import limits
from fleetwire.core.audit import SERVER, SYSTEM, Act, Verdict, verify
from fleetwire.server.domain import audit
from fleetwire.server.domain.audit import Key
from fleetwire.server.loops.audit import AuditLoop
from fleetwire.testing.heart import Heart, Serve

DAY = 24 * 3600.0


def loop_of(one: Heart, *, keep_s: float | None = None) -> AuditLoop:
    key = Key(one.cluster_id, one.signer.public_key, one.signer.sign)
    return AuditLoop(one.database, key, keep_s=keep_s, clock=one.clock.wall)


async def happen(one: Heart, count: int) -> None:
    def use_case(tx: Any) -> None:
        for _ in range(count):
            tx.audit(Act("breaker.close", SERVER))

    await one.database.write(use_case)


async def look(one: Heart) -> Verdict:
    found = await one.database.read(lambda c: audit.stretch(c, SYSTEM, after=0, limit=100_000))
    return verify(
        found.entries,
        found.checkpoints,
        cluster=one.cluster_id,
        chain=SYSTEM,
        keys=frozenset({one.signer.public_key}),
        verifies=verifies,
        known=[found.head],
    )


async def test_a_chain_that_has_grown_is_signed_each_hour_and_after_many_entries(
    serve: Serve,
) -> None:
    async with serve(loops=False) as one:
        loop = loop_of(one)
        assert await loop.round() == "signed 0 checkpoints, deleted 0 entries"
        await happen(one, 3)
        assert await loop.round() == "signed 1 checkpoints, deleted 0 entries"
        await happen(one, 3)
        assert (await loop.round())[:8] == "signed 0"  # some time passes first
        assert (await look(one)).signed == 3
        one.clock.ahead_s += limits.AUDIT_CHECKPOINT_S
        assert (await loop.round())[:8] == "signed 1"
        assert (await look(one)).signed == 6
        one.clock.ahead_s += limits.AUDIT_CHECKPOINT_S
        assert (await loop.round())[:8] == "signed 0"  # nothing has happened
        await happen(one, limits.AUDIT_CHECKPOINT_ENTRIES)
        assert (await loop.round())[:8] == "signed 1"
        verdict = await look(one)
        assert verdict.is_good
        assert verdict.signed == verdict.entries == 6 + limits.AUDIT_CHECKPOINT_ENTRIES


async def test_without_the_setting_nothing_is_ever_deleted(serve: Serve) -> None:
    async with serve(loops=False) as one:
        await happen(one, 3)
        one.clock.ahead_s += 10_000 * DAY
        await loop_of(one).round()
        assert (await look(one)).entries == 3


async def test_what_was_kept_long_enough_leaves_a_signed_checkpoint_in_its_place(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "CUT_AT_ONCE", 3)
    async with serve(loops=False) as one:
        loop = loop_of(one, keep_s=30 * DAY)
        await happen(one, 10)
        one.clock.ahead_s += 29 * DAY
        await happen(one, 5)
        assert (await loop.round()).endswith("deleted 0 entries")
        one.clock.ahead_s += 2 * DAY
        assert (await loop.round()).endswith("deleted 10 entries")
        verdict = await look(one)
        assert verdict.is_good, verdict
        # What is kept, and that the server has cut the chain, in steps.
        assert (verdict.first, verdict.entries) == (11, 5 + 4)
        (newest, *_) = await one.audited("audit.cut")
        assert newest.entry.detail == {"first": "10", "last": "10"}
        # Whoever cuts more than that has no checkpoint that says so.
        await one.database.write(lambda tx: audit.rows.cut(tx.connection, SYSTEM, 12))
        broken = (await look(one)).broken
        assert broken is not None
        assert broken.what == "removed"


async def test_a_chain_goes_on_though_all_of_it_was_deleted(serve: Serve) -> None:
    async with serve(loops=False) as one:
        await happen(one, 4)
        one.clock.ahead_s += 40 * DAY
        await loop_of(one, keep_s=30 * DAY).round()
        verdict = await look(one)
        assert verdict.is_good
        assert (verdict.first, verdict.head.number) == (5, 5)
        await loop_of(one, keep_s=30 * DAY).round()
        assert (await look(one)).head.number == 5  # a cut calls for no other
        await happen(one, 1)
        assert (await look(one)).is_good
