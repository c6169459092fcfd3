"""Who a node is: bound to what it dialled, to its own attempts, and to a key that is revoked."""

from __future__ import annotations

import asyncio
import secrets

import pytest
from nacl.signing import SigningKey
from tests.server.gateway.test_endpoint import closed, dial

from fleetwire.core.absences import Life
from fleetwire.core.clones import Step
from fleetwire.core.desired import Observation, Observed
from fleetwire.core.happenings import Exited, Started
from fleetwire.core.sparing import Sparing
from fleetwire.protocol import codec, messages, versions
from fleetwire.protocol.conversation import AgentConversation, SignatureNeeded
from fleetwire.server.domain import node_story, nodes, removal
from fleetwire.server.gateway import greetings
from fleetwire.server.store import tables
from fleetwire.testing.fake_node import Behaviour, FakeNode, Identity
from fleetwire.testing.heart import Heart, Serve, new_id, now_us

CA = f"sha256:{'ab' * 32}"


async def greet(one: Heart, identity: Identity, **bound: object) -> tuple[int, str]:
    """Say hello with these words, keep the link for a moment; return how it was closed."""
    change = bound.pop("change", None)
    words = {"server_name": "localhost", "ca": "", "offered": versions.FEATURES, **bound}
    conversation = AgentConversation(
        node=identity.node, cluster=identity.cluster, incarnation=identity.incarnation,
        boot_id="boot", agent_version="t", generation=0, nonce=secrets.token_hex(16), **words,
    )  # fmt: skip
    async with dial(one, identity.node) as socket:
        conversation.receive(await socket.recv())
        for event in conversation.events_received():
            assert isinstance(event, SignatureNeeded)
            signature = identity.key.sign(event.signed).signature
            conversation.greet(signature, clock=now_us(), life=Life("a" * 32))
        for frame in conversation.data_to_send():
            await socket.send(change(frame) if change else frame)
        if isinstance(codec.decode_from_server(await first(socket)), messages.Welcome):
            return 0, "welcome"
        return await closed(socket)


async def first(socket: object) -> str:
    """Return the next frame, or a beat where the socket is closed."""
    try:
        return await socket.recv()  # type: ignore[attr-defined,no-any-return]
    except Exception:  # noqa: BLE001 - `closed` says with what
        return '{"t":"beat","sequence":0,"clock":0}'


async def test_a_hello_for_another_server_is_refused(serve: Serve) -> None:
    async with serve(loops=False) as one:
        identity = await one.identity("a")
        one.gateway._names = lambda: frozenset({"localhost", "fleet.example"})
        one.gateway._ca = lambda: CA
        for good in (
            {},
            {"server_name": "Fleet.Example:8443", "ca": CA},
            {"server_name": "localhost", "ca": ""},
        ):
            assert await greet(one, identity, **good) == (0, "welcome")
        for passed_on, said in (
            ({"server_name": "evil.example"}, "no name of this server"),
            ({"server_name": "fleet.example.evil:443"}, "no name of this server"),
            ({"server_name": "fleet.example", "ca": CA.replace("ab", "cd")}, "another CA"),
        ):
            code, reason = await greet(one, identity, **passed_on)
            assert (code, said in reason) == (messages.CLOSE_UNAUTHENTICATED, True)


@pytest.mark.parametrize(
    ("of", "to"),
    [
        ('"localhost"', '"localhost:1"'),
        (f'"{CA}"', '""'),
        ('"zstd",', ""),
        ('"count":1', '"count":2'),
        ('"generation":0', '"generation":1'),
    ],
)
async def test_what_a_hello_is_bound_to_cannot_be_changed(serve: Serve, of: str, to: str) -> None:
    async with serve(loops=False) as one:
        identity = await one.identity("a")
        one.gateway._ca = lambda: CA

        def change(frame: str) -> str:
            assert of in frame
            return frame.replace(of, to, 1)

        step = Step(1, "", "0" * 32)
        bound = {"ca": CA, "step": step}
        code, reason = await greet(one, identity, change=change, **bound)
        assert code == messages.CLOSE_UNAUTHENTICATED
        assert "not the key" in reason
        assert await greet(one, identity, **bound) == (0, "welcome")


async def test_an_unknown_node_and_a_wrong_key_get_the_same_answer_at_the_same_cost(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = []
    is_theirs = greetings._is_theirs

    def count(key: bytes, needed: object) -> bool:
        verified.append(key)
        return is_theirs(key, needed)  # type: ignore[arg-type]

    monkeypatch.setattr(greetings, "_is_theirs", count)
    async with serve(loops=False) as one:
        identity = await one.identity("a")
        answers = set()
        for node in (identity.node, new_id()):
            wrong = Identity(node, identity.cluster, SigningKey.generate(), "0" * 32)
            answers.add(await greet(one, wrong))
        assert len(answers) == 1
        assert len(verified) == 2


async def test_over_a_network_an_unbound_hello_is_refused(serve: Serve) -> None:
    async with serve(loops=False) as one:
        identity = await one.identity("a")
        assert await greet(one, identity, offered=(versions.ZSTD,)) == (0, "welcome")  # loopback
        app = one.gateway

        async def secure(scope: dict[str, object], receive: object, send: object) -> None:
            await type(app).__call__(app, {**scope, "scheme": "wss"}, receive, send)  # type: ignore[arg-type]

        app.routes[0].app = secure  # type: ignore[attr-defined]
        code, reason = await greet(one, identity, offered=(versions.ZSTD,))
        assert (code, "too old" in reason) == (messages.CLOSE_VERSION, True)
        assert await greet(one, identity) == (0, "welcome")


async def test_a_node_that_speaks_with_another_ones_ids_is_refused_and_it_is_recorded(
    serve: Serve,
) -> None:
    async with serve() as one:
        a, b = await one.node("a"), await one.node("b", Behaviour(hold=True))
        async with a.connected(), b.connected():
            run = await one.submit(nodes=("b",))
            await b.wait(lambda: bool(b.spool))
            (held,) = b.spool.values()
            async with one.nudges.listen(f"run:{run}") as listener:
                while not (await one.run(run)).counts["running"]:
                    await listener.wait(1)
            before = await one.run(run)
            exited = Exited(
                at=now_us(), cause="exited", exit_code=0, signal=None, started_at=now_us(),
                duration=0.0, length=5, sha256="0" * 64,
            )  # fmt: skip
            lie = Observation(held.attempt, held.epoch, (Started(now_us()), exited), 5)
            a.report(Observed(0, (lie,)))
            await a.raw(codec.encode_log(held.attempt, 0, 5, b"x" * 5, zstd=False))
            a.heartbeat()
            await a.wait(lambda: a.beats == 1 and len(a.unknown) >= 1)
            after = await one.run(run)
            assert after.tasks == before.tasks
            async with asyncio.timeout(10):
                while not await told(one, a, "spoke of 1 attempts of other nodes"):
                    a.heartbeat()
                    beats = a.beats
                    await a.wait(lambda beats=beats: a.beats > beats)
            assert not await told(one, b, "spoke")
            (found,) = await one.audited("node.foreign-ids")
            entry = found.entry
            assert (entry.actor_kind, entry.actor, entry.outcome) == (
                "node", a.identity.node, "refused",
            )  # fmt: skip
            assert entry.detail == {"attempts": held.attempt, "count": "1"}
            b.release(held.attempt)
            async with one.nudges.listen(f"run:{run}") as listener:
                while (await one.run(run)).state != "ended":
                    await listener.wait(1)
            (task,) = (await one.run(run)).tasks
            assert (task.outcome, task.node) == ("succeeded", "b")


async def test_a_node_that_links_again_and_again_fills_no_record(serve: Serve) -> None:
    """What it names of others, and the stops it refuses, are recorded so often for the node,
    whatever number of links it has had.
    """
    async with serve() as one:
        a, b = await one.node("a"), await one.node("b", Behaviour(hold=True))
        one.gateway._rooms.alarms._refusals = Sparing(2, within_s=60.0, most_of_all=100)
        async with b.connected():
            run = await one.submit(nodes=("a",))
            await one.submit(nodes=("b",))
            async with a.connected():
                await one.wait_run(run)
            await b.wait(lambda: bool(b.spool))
            (held,) = b.spool.values()
            ((mine, epoch),) = a.starts

            async def speak(number: int) -> None:
                async with a.connected():
                    unknown = len(a.unknown)
                    refused = messages.StopRefused(mine, epoch, 1, f"for the reason {number}")
                    a._talk().send_refusal(refused)
                    a._wake.set()
                    await a.raw(codec.encode_log(held.attempt, 0, 5, b"x" * 5, zstd=False))
                    await a.wait(lambda: len(a.unknown) > unknown)
                    await one.database.write(lambda _: None)  # what it made us write is written

            for number in range(4):
                await speak(number)
            assert [found.entry.detail for found in await one.audited("node.foreign-ids")] == [
                {"attempts": held.attempt, "count": "1"}
            ]
            assert len([text for text in await one.story(run) if "ALARM" in text]) == 2
            one.clock.ahead_s += 61
            await speak(4)
            newest, _ = await one.audited("node.foreign-ids")
            assert newest.entry.detail["left_out"] == "3"
            assert len([text for text in await one.story(run) if "ALARM" in text]) == 3


@pytest.mark.parametrize(
    ("frame", "ends"),
    [
        # An identity in a payload says nothing: what is told is told of the link's own node.
        ('{"t":"heartbeat","sequence":7,"clock":1,"node":"NODE","attempt":"ATTEMPT"}', False),
        ('{"t":"inventory","facts":{"os":"forged"},"node":"NODE"}', False),
        ('{"t":"observed","revision":0,"node":"NODE","complete":true,"attempts":[]}', False),
        # Kinds of frames that this version does not have end the link, whosever ids they hold.
        ('{"t":"file","node":"NODE","attempt":"ATTEMPT","path":"/etc/passwd"}', True),
        ('{"t":"terminal","node":"NODE","attempt":"ATTEMPT","data":"aWQK"}', True),
        ('{"t":"desired","revision":1,"attempts":[]}', True),
        (codec.HEADER.pack(2, 0, 0, 1, 0, bytes(16)) + b"x", True),
    ],
)  # fmt: skip
async def test_no_frame_of_a_node_changes_another(
    serve: Serve, frame: str | bytes, ends: bool
) -> None:
    async with serve() as one:
        a, b = await one.node("a"), await one.node("b", Behaviour(hold=True))
        async with a.connected(), b.connected():
            run = await one.submit(nodes=("b",))
            await b.wait(lambda: bool(b.spool))
            (held,) = b.spool.values()
            async with one.nudges.listen(f"run:{run}") as listener:
                while not (await one.run(run)).counts["running"]:
                    await listener.wait(1)

            async def known_of_b() -> tuple[object, ...]:
                its_row = tables.nodes.select().where(tables.nodes.c.id == b.identity.node)
                row = await one.database.read(lambda c: c.execute(its_row).one())
                return *row, (await one.run(run)).tasks

            b.heartbeat()
            await b.wait(lambda: b.beats == 1)
            before = await known_of_b()
            if isinstance(frame, str):
                frame = frame.replace("NODE", b.identity.node).replace("ATTEMPT", held.attempt)
            await a.raw(frame)
            if ends:
                await a.wait(lambda: a.closed is not None)
                assert a.closed is not None
                assert a.closed[0] == messages.CLOSE_BAD_FRAME
            else:
                a.heartbeat()
                await a.wait(lambda: a.beats >= 1)
            assert await known_of_b() == before
            assert b.closed is None


async def told(one: Heart, node: FakeNode, text: str) -> bool:
    id_ = node.identity.node
    events = await one.database.read(lambda c: node_story.events(c, id_, before=None, limit=100))
    return any(text in event.text for event in events)


@pytest.mark.parametrize("how", ["delete", "disable"])
async def test_who_is_revoked_loses_its_link_within_5_s_by_whichever_process(
    serve: Serve, how: str
) -> None:
    """What another process commits nudges nobody here: this one has only the database."""
    async with serve() as one:
        node = await one.node("a")
        async with node.connected():
            one.database.react()
            listening, one.nudges.send = one.nudges.send, lambda _: None  # type: ignore[method-assign]
            id_ = node.identity.node
            if how == "delete":
                await one.database.write(
                    lambda tx: removal.delete(tx, id_, word=new_id(), by="t", force=True)
                )
            else:
                await one.database.write(lambda tx: nodes.set_admin(tx, id_, "disabled", by="t"))
            one.nudges.send = listening  # type: ignore[method-assign]
            await node.wait(lambda: node.closed is not None, timeout=5.0)
            assert node.closed is not None
            assert node.closed[0] == messages.CLOSE_FORBIDDEN
        wanted = messages.CLOSE_UNAUTHENTICATED if how == "delete" else messages.CLOSE_FORBIDDEN
        for _ in range(greetings.REFUSALS_PER_HOUR + 2):
            code, _ = await greet(one, node.identity)
            assert code == wanted
        # A key that is revoked and tried is audited, and who tries it for ever fills no disk.
        tried = await one.wait(
            lambda: one.audited("node.refuse"),
            lambda found: len(found) >= greetings.REFUSALS_PER_HOUR,
        )
        assert len(tried) == greetings.REFUSALS_PER_HOUR
        entry = tried[0].entry
        assert (entry.target, entry.target_name, entry.outcome) == (id_, "a", "refused")
        # Of a node that is no more the key is not known either: anybody may have come.
        kind = "stranger" if how == "delete" else "node"
        assert (entry.actor_kind, entry.address) == (kind, "127.0.0.1")


async def test_an_id_that_somebody_made_up_leaves_no_trace_and_a_copy_raises_an_alarm(
    serve: Serve,
) -> None:
    async with serve(loops=False) as one:
        identity = await one.identity("a")
        wrong = Identity(new_id(), identity.cluster, SigningKey.generate(), "0" * 32)
        assert (await greet(one, wrong))[0] == messages.CLOSE_UNAUTHENTICATED
        assert await one.audited("node.refuse") == []
        assert await greet(one, identity, step=Step(1, "", "0" * 32)) == (0, "welcome")
        copy = await greet(one, identity, step=Step(1, "", "1" * 32))
        assert copy[0] == messages.CLOSE_FORBIDDEN
        (found,) = await one.audited("node.quarantine")
        assert found.entry.target == identity.node
        assert found.entry.actor_kind == "server"
        assert found.entry.detail["why"]


async def test_who_enrols_again_is_another_node_with_none_of_the_old_rights(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            run = await one.submit(nodes=("a",))
            await node.wait(lambda: bool(node.spool))
            (old,) = node.spool.values()
            await one.database.write(
                lambda tx: removal.delete(tx, node.identity.node, word=new_id(), by="t", force=True)
            )
        again = await one.node("a")
        assert again.identity.node != node.identity.node
        async with again.connected():
            exited = Observation(old.attempt, old.epoch, (Started(now_us()),), 0)
            again.report(Observed(0, (exited,)))
            await again.wait(lambda: old.attempt in again.unknown)
        (task,) = (await one.run(run)).tasks
        assert task.outcome == "lost"
