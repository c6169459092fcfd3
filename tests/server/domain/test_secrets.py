"""From the record to the order: sealed for one node, kept no longer than needed."""

from __future__ import annotations

from fleetwire.agent.keys import KeyPair, make_sealing_key, unseal
from fleetwire.core.access import DEFAULT_PROJECT
from fleetwire.core.desired import Desired
from fleetwire.core.envelopes import objection
from fleetwire.core.secrets import SecretUse, read_content
from fleetwire.core.specs import Script, Step
from fleetwire.protocol.versions import ZSTD
from fleetwire.server.domain import secrets
from fleetwire.server.master_key import seal_for_node
from fleetwire.server.store import nodes, tables
from fleetwire.server.store import secrets as rows
from fleetwire.testing.fake_node import Behaviour, FakeNode
from fleetwire.testing.heart import USER, Heart, Serve, new_id

VALUE = b"canary-of-the-domain"
SPEC = Script("true", secrets=(SecretUse("token"), SecretUse("token", "env", "TOKEN")))


async def put(one: Heart, name: str = "token", value: bytes = VALUE) -> None:
    await one.database.write(
        lambda tx: secrets.put(tx, DEFAULT_PROJECT, name, value, by="somebody", sealing=one.secrets)
    )


async def give_key(one: Heart, node: FakeNode, key: KeyPair) -> None:
    await one.database.write(
        lambda tx: nodes.change(tx.connection, node.identity.node, sealing_key=key.public)
    )


async def sealed_rows(one: Heart) -> list[str]:
    return await one.database.read(
        lambda c: [row[0] for row in c.execute(tables.sealed_secrets.select())]
    )


def orders(node: FakeNode) -> list[object]:
    return [
        wanted
        for event in node.received
        if isinstance(event, Desired)
        for wanted in event.attempts
        if wanted.order is not None and wanted.order.secrets
    ]


async def test_an_order_carries_what_only_its_node_can_read(serve: Serve) -> None:
    async with serve() as one:
        await put(one)
        node = await one.node("web-1")
        key = make_sealing_key()
        await give_key(one, node, key)
        async with node.connected():
            run_id = await one.submit(spec=SPEC, nodes=("web-1",))
            await node.wait(lambda: bool(orders(node)))
            (wanted,) = orders(node)[:1]
            order = wanted.order  # type: ignore[attr-defined]
            data = unseal(key, order.secrets)
            assert data is not None
            content = read_content(
                data,
                order.spec.secrets,
                attempt=wanted.attempt,  # type: ignore[attr-defined]
                epoch=wanted.epoch,  # type: ignore[attr-defined]
            )
            assert [each.value for each in content.secrets] == [VALUE, VALUE]
            assert unseal(make_sealing_key(), order.secrets) is None
            here = {
                "cluster": one.cluster_id,
                "node": node.identity.node,
                "attempt": wanted.attempt,  # type: ignore[attr-defined]
                "epoch": wanted.epoch,  # type: ignore[attr-defined]
                "now": one.clock.wall(),
            }
            assert objection(order.envelope, order.spec, **here, secrets=order.secrets) is None
            assert objection(order.envelope, order.spec, **here) is not None
            await one.wait_run(run_id)
        # Each use of a secret: in whose name, for which run, and where.
        used = [found.entry for found in await one.audited("secret.use")]
        assert [entry.target_name for entry in used] == ["token", "token"]
        for entry in used:
            assert (entry.actor, entry.target_kind) == (USER, "secret")
            assert entry.detail["run"] == run_id
            assert entry.detail["attempt"] == wanted.attempt  # type: ignore[attr-defined]
            assert entry.detail["node"] == "web-1"
            assert VALUE.decode() not in str(entry)
            shown = await one.database.read(
                lambda c: secrets.page(c, {DEFAULT_PROJECT}, after=None, limit=10)
            )
            assert shown[0].last_used_at is not None
            assert VALUE.decode() not in str(await one.story(run_id))


async def test_what_was_sealed_goes_when_its_attempt_has_begun(serve: Serve) -> None:
    async with serve() as one:
        await put(one)
        node = await one.node("web-1")
        run_id = await one.submit(spec=SPEC, nodes=("web-1",))
        assert await sealed_rows(one) == []  # nothing is sealed for a node that is not there
        async with node.connected():
            await one.wait_run(run_id)
            found, some = await one.database.read(secrets.spent)
            assert some
            assert [attempt for attempt, _ in found] == await sealed_rows(one)
            await one.forgetting.round()
            assert await sealed_rows(one) == []
            assert await one.database.read(secrets.spent) == ([], False)


async def test_what_is_sealed_anew_between_a_look_and_its_deletion_stays(serve: Serve) -> None:
    attempt, other = new_id(), new_id()
    async with serve(loops=False) as one:
        await one.database.write(
            lambda tx: rows.put_sealed(tx.connection, {attempt: (1, b"old"), other: (1, b"old")})
        )
        found, _ = await one.database.read(secrets.spent)
        assert sorted(found) == sorted([(attempt, 1), (other, 1)])
        # The attempt is given back and assigned again: it keeps its id, and has a new epoch.
        await one.database.write(lambda tx: rows.put_sealed(tx.connection, {attempt: (2, b"new")}))
        await one.database.write(lambda tx: secrets.drop(tx, found))
        assert await one.database.read(lambda c: rows.sealed_of(c, [attempt, other])) == {
            (attempt, 2): b"new"
        }


async def test_an_agent_that_knows_no_secrets_never_gets_such_a_run(serve: Serve) -> None:
    async with serve() as one:
        await put(one)
        old = await one.node("old", Behaviour(features=(ZSTD,)))
        async with old.connected():
            run_id = await one.submit(spec=SPEC, nodes=("old",))
            run = await one.wait_run(run_id)
            assert run.outcome == "failed" or run.counts["refused"] == 1
            assert run.tasks is not None
            assert run.tasks[0].state == "refused"
            assert "cannot take secrets" in str(run.tasks[0].reason)
            assert orders(old) == []
            plain = await one.submit(Step("print", text="x"), nodes=("old",))
            assert (await one.wait_run(plain)).counts["succeeded"] == 1
            # Where another node will do, that one is taken.
            new = await one.node("new")
            async with new.connected():
                both = await one.submit(spec=SPEC, selector="os=linux", any=1)
                run = await one.wait_run(both)
                assert run.tasks is not None
                assert run.tasks[0].node == "new"


async def test_a_secret_deleted_before_its_run_begins_refuses_it(serve: Serve) -> None:
    async with serve() as one:
        await put(one)
        node = await one.node("web-1")
        run_id = await one.submit(spec=SPEC, nodes=("web-1",))
        await one.database.write(lambda tx: secrets.delete(tx, DEFAULT_PROJECT, "token"))
        async with node.connected():
            run = await one.wait_run(run_id)
        assert run.tasks is not None
        assert run.tasks[0].state == "refused"
        assert "There is no secret 'token'" in str(run.tasks[0].reason)


async def test_a_value_cannot_take_the_place_of_another(serve: Serve) -> None:
    async with serve() as one:
        await put(one, "token", b"the-small-secret")
        await put(one, "root-password", VALUE)
        values = tables.secrets
        await one.database.write(
            lambda tx: [
                tx.connection.execute(
                    values.update()
                    .where(values.c.name == "token")
                    .values(nonce=row.nonce, data=row.data, version=row.version)
                )
                for row in tx.connection.execute(
                    values.select().where(values.c.name == "root-password")
                )
            ]
        )
        node = await one.node("web-1")
        async with node.connected():
            run_id = await one.submit(spec=SPEC, nodes=("web-1",))
            run = await one.wait_run(run_id)
        assert run.tasks is not None
        assert run.tasks[0].state == "refused"
        assert "cannot be decrypted" in str(run.tasks[0].reason)


async def test_a_node_with_no_real_key_breaks_nothing_but_its_own_runs(serve: Serve) -> None:
    async with serve() as one:
        await put(one)
        bad, good = await one.node("bad"), await one.node("good")
        for wrong in (bytes(32), b"short"):
            await give_key(one, bad, KeyPair(b"", wrong))
            async with bad.connected(), good.connected():
                both = await one.submit(spec=SPEC, nodes=("bad", "good"))
                run = await one.wait_run(both)
                assert run.tasks is not None
                states = {task.node: task.state for task in run.tasks}
                assert states == {"bad": "refused", "good": "exited"}


def test_what_the_server_seals_the_agent_unseals() -> None:
    key = make_sealing_key()
    assert unseal(key, seal_for_node(key.public, b"content")) == b"content"
