"""Enrolment: one token, one node."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fleetwire.core.access import DEFAULT_PROJECT
from fleetwire.core.errors import BadLabel
from fleetwire.server.domain import enrolment, nodes, views
from fleetwire.server.domain.enrolment import Keys
from fleetwire.server.domain.errors import BadEnrolment, BadEnrolmentToken, NameTaken, NotFound
from fleetwire.testing.heart import Heart, Serve, new_id

HERE = frozenset({DEFAULT_PROJECT})


async def enrol(one: Heart, token: str, name: str = "a", **changes: object) -> enrolment.Enrolled:
    fields = {
        "keys": Keys(bytes(32), bytes(32)),
        "incarnation": "0123456789abcdef",
        "labels": {"os": "linux", "role": "agent's"},
        "agent_version": "1",
        "capacity": 16,
        "address": "127.0.0.1",
        **changes,
    }
    return await one.database.write(
        lambda tx: enrolment.enrol(tx, token, name, ids=new_id, **fields)
    )


async def test_fifty_at_once_make_one_node(serve: Serve) -> None:
    async with serve(loops=False) as one:
        token = await one.token()

        async def attempt(number: int) -> bool:
            try:
                await enrol(one, token, f"node-{number}")
            except BadEnrolmentToken:
                return False
            return True

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(attempt(number)) for number in range(50)]
        assert sum(task.result() for task in tasks) == 1
        page = await one.database.read(lambda c: views.list_nodes(c, limit=100))
        assert len(page.items) == 1


async def test_unknown_used_and_expired_tokens_look_alike(serve: Serve) -> None:
    async with serve(loops=False) as one:
        used = await one.token()
        await enrol(one, used)
        expired = await one.token()
        one.clock.ahead_s += 3601
        said = set()
        for token in ("nothing", used, expired):
            with pytest.raises(BadEnrolmentToken) as caught:
                await enrol(one, token, "b")
            said.add(str(caught.value))
        assert len(said) == 1


async def test_labels_of_the_token_win_but_not_over_what_the_machine_knows(serve: Serve) -> None:
    async with serve(loops=False) as one:
        token = await one.token(role="token's", os="beos", zone="z1")
        enrolled = await enrol(one, token)
        assert enrolled.labels == {"os": "linux", "role": "token's", "zone": "z1"}
        node = await one.node_named("a")
        assert node.labels == enrolled.labels
        assert node.address == "127.0.0.1"


async def test_a_name_is_taken_once_and_the_token_stays_good(serve: Serve) -> None:
    async with serve(loops=False) as one:
        await enrol(one, await one.token())
        token = await one.token()
        with pytest.raises(NameTaken):
            await enrol(one, token)
        assert (await enrol(one, token, "b")).name == "b"


@pytest.mark.limit("capacity")
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": "../a"}, BadEnrolment),
        ({"name": "a" * 129}, BadEnrolment),
        ({"keys": Keys(bytes(31), bytes(32))}, BadEnrolment),
        ({"incarnation": "short"}, BadEnrolment),
        ({"capacity": 0}, BadEnrolment),
        ({"capacity": 10_001}, BadEnrolment),
        ({"labels": {"a key": "x"}}, BadLabel),
        ({"labels": {str(n): "x" for n in range(65)}}, BadLabel),
    ],
)
async def test_what_cannot_be_accepted_is_not(
    serve: Serve, changes: dict[str, Any], error: type[Exception]
) -> None:
    async with serve(loops=False) as one:
        token = await one.token()
        with pytest.raises(error):
            await enrol(one, token, **changes)
        await enrol(one, token, capacity=10_000)


async def test_tokens_are_listed_without_their_secret_and_deleted(serve: Serve) -> None:
    async with serve(loops=False) as one:
        token = await one.token(role="web")
        await enrol(one, await one.token())
        listed, _ = await one.database.read(
            lambda c: enrolment.list_tokens(c, cursor=None, limit=10)
        )
        assert [view.used_at is not None for view in listed] == [True, False]
        assert token not in repr(listed)
        await one.database.write(lambda tx: enrolment.delete_token(tx, listed[1].id))
        with pytest.raises(BadEnrolmentToken):
            await enrol(one, token, "b")
        with pytest.raises(NotFound):
            await one.database.write(lambda tx: enrolment.delete_token(tx, listed[1].id))


async def bound(one: Heart, **to: object) -> str:
    secret = f"fw_enrol_{new_id()}"
    await one.database.write(
        lambda tx: enrolment.create_token(
            tx, secret, labels={}, expires_in=None, by="admin", ids=new_id, **to
        )
    )
    return secret


async def uses(one: Heart) -> list[enrolment.Use]:
    found, _ = await one.database.read(
        lambda c: enrolment.list_uses(c, before=None, limit=100, within=HERE)
    )
    return found


async def refused(one: Heart, token: str, name: str, address: str | None) -> None:
    """Be refused, and have it recorded as the door does."""
    with pytest.raises(BadEnrolmentToken) as caught:
        await enrol(one, token, name, address=address)
    await one.database.write(
        lambda tx: enrolment.record_refusal(
            tx, token, name=name, address=address, error=caught.value
        )
    )


async def test_a_token_is_for_the_names_and_the_network_it_is_bound_to(serve: Serve) -> None:
    async with serve(loops=False) as one:
        token = await bound(one, name_pattern="web-*", network="10.1.0.0/16")
        await refused(one, token, "db-1", "10.1.0.1")
        await refused(one, token, "web-1", "10.2.0.1")
        await refused(one, token, "web-1", None)
        assert (await enrol(one, token, "web-1", address="10.1.0.1")).name == "web-1"
        await refused(one, token, "web-2", "10.1.0.1")
        await refused(one, "nothing", "web-2", "10.1.0.1")
        told = [
            (use.outcome, use.name, use.address, use.token_id is None) for use in await uses(one)
        ]
        assert told == [
            ("refused: unknown token", "web-2", "10.1.0.1", True),
            ("refused: used before", "web-2", "10.1.0.1", False),
            ("enrolled", "web-1", "10.1.0.1", False),
            ("refused: bound to the network 10.1.0.0/16", "web-1", None, False),
            ("refused: bound to the network 10.1.0.0/16", "web-1", "10.2.0.1", False),
            ("refused: bound to names like web-*", "db-1", "10.1.0.1", False),
        ]


async def test_who_is_to_be_approved_waits(serve: Serve) -> None:
    async with serve(loops=False) as one:
        enrolled = await enrol(one, await bound(one, approval=True))
        assert enrolled.waits
        greeting = nodes.Greeting("0123456789abcdef", "boot", "1", 0, 0, None)
        with pytest.raises(nodes.NodeWaiting):
            await one.database.write(lambda tx: nodes.accept_hello(tx, enrolled.node, greeting))
        with pytest.raises(nodes.NotAdmitted):
            await one.database.write(lambda tx: nodes.set_admin(tx, enrolled.node, "active"))
        await one.database.write(lambda tx: nodes.approve(tx, enrolled.node, by="admin"))
        await one.database.write(lambda tx: nodes.accept_hello(tx, enrolled.node, greeting))
        with pytest.raises(nodes.NotWaiting):
            await one.database.write(lambda tx: nodes.approve(tx, enrolled.node, by="admin"))


async def test_whose_answer_was_lost_asks_again_and_is_the_same_node(serve: Serve) -> None:
    async with serve(loops=False) as one:
        token = await one.token(role="web")
        first = await enrol(one, token)
        assert await enrol(one, token) == first
        for changes in (
            {"keys": Keys(b"\1" * 32, bytes(32))},
            {"incarnation": "fedcba9876543210"},
        ):
            with pytest.raises(BadEnrolmentToken):
                await enrol(one, token, **changes)
        page = await one.database.read(lambda c: views.list_nodes(c, limit=100))
        assert [node.id for node in page.items] == [first.node]
