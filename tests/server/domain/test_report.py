"""Reports without a link in between: stale ones, batches, and what a neighbour may not break."""

from __future__ import annotations

import hashlib
from functools import partial

from fleetwire.core.chunks import Piece
from fleetwire.core.desired import Observation
from fleetwire.core.happenings import Exited, Lost, Started
from fleetwire.core.runs import fold
from fleetwire.server.domain import attempts, cluster, desired, nodes
from fleetwire.server.domain.attempts import NodeReport, Stored
from fleetwire.server.domain.desired import Asked
from fleetwire.server.domain.nodes import Greeting
from fleetwire.server.logs.chunks import encode
from fleetwire.server.loops.sealing import SealingLoop
from fleetwire.testing.fake_node import Identity
from fleetwire.testing.heart import Heart, Serve, now_us

EMPTY = hashlib.sha256(b"").hexdigest()


async def greet(one: Heart, identity: Identity, incarnation: str | None = None) -> int:
    """Accept a hello; return the link epoch."""
    greeting = Greeting(incarnation or identity.incarnation, "boot", "1", 0, now_us(), None)
    accepted = await one.database.write(
        partial(nodes.accept_hello, node=identity.node, greeting=greeting)
    )
    return accepted.link_epoch


async def started(one: Heart, identity: Identity, link_epoch: int) -> tuple[str, str, int]:
    """Submit, dispatch and offer; return run, attempt, epoch."""
    run_id = await one.submit(nodes=(identity.node,))
    await one.dispatch.round()
    asked = {identity.node: Asked(link_epoch)}
    levels = await one.database.write(partial(desired.desired, asked=asked, key="k"))
    (wanted,) = levels[identity.node].wanted
    assert wanted.order is not None
    return run_id, wanted.attempt, wanted.epoch


def exited(length: int = 0, sha256: str = EMPTY, code: int = 0) -> Exited:
    return Exited(5, "exited", code, None, 1, 0.5, length, sha256)


async def report(one: Heart, *reports: NodeReport) -> list[attempts.Answer]:
    return await one.database.write(partial(attempts.report, reports=reports))


async def test_a_report_of_an_older_link_changes_nothing(serve: Serve) -> None:
    async with serve(loops=False) as one:
        identity = await one.identity("a")
        older = await greet(one, identity)
        run_id, attempt, epoch = await started(one, identity, older)
        newer = await greet(one, identity)
        said = (Observation(attempt, epoch, (Started(1), exited())),)
        (answer,) = await report(
            one, NodeReport(node=identity.node, link_epoch=older, observed=said)
        )
        assert answer.stale
        assert (await one.run(run_id)).counts["assigned"] == 1
        asked = {identity.node: Asked(older)}
        levels = await one.database.write(partial(desired.desired, asked=asked, key="k"))
        assert levels[identity.node].stale
        (answer,) = await report(
            one,
            NodeReport(
                node=identity.node, link_epoch=newer, observed=said,
                logs={attempt: Stored(0, None)},
            ),
        )  # fmt: skip
        assert answer.sealed == (attempt,)
        assert (await one.run(run_id)).sealed


async def test_many_reports_together_are_answered_each(serve: Serve) -> None:
    async with serve(loops=False) as one:
        identities = [await one.identity(name) for name in "abc"]
        reports = []
        runs = []
        for identity in identities:
            epoch_of_link = await greet(one, identity)
            run_id, attempt, epoch = await started(one, identity, epoch_of_link)
            runs.append(run_id)
            reports.append(
                NodeReport(
                    node=identity.node,
                    link_epoch=epoch_of_link,
                    observed=(Observation(attempt, epoch, (Started(1), exited())),),
                    logs={attempt: Stored(0, None)},
                )
            )
        stranger = NodeReport(node="nobody", link_epoch=1)
        thief = NodeReport(
            node=identities[0].node,
            link_epoch=reports[0].link_epoch,
            observed=reports[1].observed,
        )
        answers = await report(one, reports[0], stranger, thief, *reports[1:])
        assert [bool(answer.sealed) for answer in answers] == [True, False, False, True, True]
        assert answers[1].stale
        assert answers[2].unknown == (reports[1].observed[0].attempt,)
        for run_id in runs:
            assert (await one.run(run_id)).outcome == "succeeded"


async def test_an_exit_waits_for_its_log_and_the_store_decides(serve: Serve) -> None:
    async with serve(loops=False) as one:
        identity = await one.identity("a")
        link = await greet(one, identity)
        run_id, attempt, epoch = await started(one, identity, link)
        sha256 = hashlib.sha256(b"hello").hexdigest()
        said = NodeReport(
            node=identity.node,
            link_epoch=link,
            observed=(Observation(attempt, epoch, (exited(5, sha256),), 5),),
            logs={attempt: Stored(3, None)},
        )
        (answer,) = await report(one, said)
        assert answer.awaiting == {attempt: 5}
        run = await one.run(run_id)
        assert (run.state, run.sealed) == ("ended", False)
        # A wrong hash of the link's own is not trusted to be damage: the store is read.
        look = NodeReport(
            node=identity.node, link_epoch=link, look=(attempt,), logs={attempt: Stored(5, EMPTY)}
        )
        (answer,) = await report(one, look)
        assert answer.awaiting == {attempt: 5}
        await one.database.write(partial(attempts.settle, measured={attempt: Stored(4, None)}))
        assert not (await one.run(run_id)).sealed
        await one.database.write(partial(attempts.settle, measured={attempt: Stored(5, sha256)}))
        assert (await one.run(run_id)).sealed


async def test_a_log_whose_spool_is_damaged_ends_as_missing(serve: Serve) -> None:
    """The exit says five bytes, the spool can give three: nobody waits for the other two."""
    async with serve(loops=False) as one:
        identity = await one.identity("a")
        link = await greet(one, identity)
        run_id, attempt, epoch = await started(one, identity, link)
        whole = hashlib.sha256(b"hello").hexdigest()
        said = NodeReport(
            node=identity.node,
            link_epoch=link,
            observed=(Observation(attempt, epoch, (Started(1), exited(5, whole)), 3),),
            logs={attempt: Stored(1, None)},
        )
        (answer,) = await report(one, said)
        assert answer.awaiting == {attempt: 3}
        assert not (await one.run(run_id)).sealed
        part = Stored(3, hashlib.sha256(b"hel").hexdigest())
        await one.database.write(partial(attempts.settle, measured={attempt: part}))
        run = await one.run(run_id)
        assert (run.sealed, run.outcome) == (True, "succeeded")
        assert "missing from byte 3 to byte 5" in "; ".join(await one.story(run_id))
        (answer,) = await report(one, said)
        assert answer.sealed == (attempt,)


async def test_a_damaged_spool_takes_nothing_from_a_log_that_is_stored(serve: Serve) -> None:
    async with serve(loops=False) as one:
        identity = await one.identity("a")
        link = await greet(one, identity)
        run_id, attempt, epoch = await started(one, identity, link)
        whole = hashlib.sha256(b"hello").hexdigest()
        said = NodeReport(
            node=identity.node,
            link_epoch=link,
            observed=(Observation(attempt, epoch, (Started(1), exited(5, whole)), 0),),
            logs={attempt: Stored(5, None)},
        )
        await report(one, said)
        await one.database.write(partial(attempts.settle, measured={attempt: Stored(5, whole)}))
        assert "missing" not in "; ".join(await one.story(run_id))
        assert (await one.run(run_id)).sealed


async def test_a_lost_attempts_log_is_sealed_with_what_the_node_has(serve: Serve) -> None:
    async with serve(loops=False) as one:
        identity = await one.identity("a")
        link = await greet(one, identity)
        run_id, attempt, epoch = await started(one, identity, link)
        said = NodeReport(
            node=identity.node,
            link_epoch=link,
            observed=(Observation(attempt, epoch, (Started(1), Lost(2, "shim died")), 5),),
            logs={attempt: Stored(5, "ab")},
        )
        (answer,) = await report(one, said)
        assert answer.sealed == (attempt,)
        run = await one.run(run_id)
        assert (run.outcome, run.sealed) == ("lost", True)
        assert run.tasks is not None
        assert (run.tasks[0].log.length, run.tasks[0].log.sha256) == (5, "ab")


async def test_a_spool_shorter_than_what_is_stored_marks_the_log(serve: Serve) -> None:
    async with serve(loops=False) as one:
        identity = await one.identity("a")
        link = await greet(one, identity)
        run_id, attempt, epoch = await started(one, identity, link)
        said = NodeReport(
            node=identity.node,
            link_epoch=link,
            observed=(Observation(attempt, epoch, (Started(1), Lost(2, "node rebooted")), 5),),
            logs={attempt: Stored(9, None)},
        )
        await report(one, said)
        await one.database.write(partial(attempts.settle, measured={attempt: Stored(9, "ab")}))
        run = await one.run(run_id)
        assert run.tasks is not None
        assert (run.outcome, run.sealed) == ("lost", True)
        assert (run.tasks[0].log.state, run.tasks[0].log.length) == ("damaged", 9)


async def test_an_order_offered_under_an_old_incarnation_is_lost_and_never_offered_again(
    serve: Serve,
) -> None:
    async with serve(loops=False) as one:
        identity = await one.identity("a")
        link = await greet(one, identity)
        run_id, _, _ = await started(one, identity, link)
        link = await greet(one, identity, "another incarnation")
        await one.sealing.round()
        assert (await one.run(run_id)).outcome == "lost"
        asked = {identity.node: Asked(link, full=True)}
        levels = await one.database.write(partial(desired.desired, asked=asked, key="k"))
        assert levels[identity.node].wanted == ()


async def test_epochs_of_a_generation_that_was_raised_meanwhile_are_void(serve: Serve) -> None:
    async with serve(loops=False) as one:
        identity = await one.identity("a")
        link = await greet(one, identity)
        first = await started(one, identity, link)
        assert await one.database.write(partial(cluster.raise_generation, seen_by_node=7)) == 8
        other = await one.identity("b")
        second = await started(one, other, await greet(one, other))
        assert first[2] >> 32 == 1
        assert second[2] >> 32 == 8
        assert await one.database.write(partial(cluster.raise_generation, seen_by_node=8)) == 8


async def test_counts_stay_the_fold_of_what_is_stored(serve: Serve) -> None:
    async with serve(loops=False) as one:
        links = {}
        for number in range(10):
            identity = await one.identity(f"n{number}")
            links[identity.node] = await greet(one, identity)
        run_id = await one.submit()
        await one.dispatch.round()
        asked = {node: Asked(link) for node, link in links.items()}
        levels = await one.database.write(partial(desired.desired, asked=asked, key="k"))
        for number, (node, level) in enumerate(levels.items()):
            (wanted,) = level.wanted
            said = [Started(1)] if number < 3 else [exited(code=number % 2)]
            seen = (Observation(wanted.attempt, wanted.epoch, tuple(said)),)
            await report(one, NodeReport(node=node, link_epoch=links[node], observed=seen))
        await one.stop(run_id)
        run = await one.run(run_id)
        assert run.tasks is not None
        folded = fold((task.state, task.outcome) for task in run.tasks)
        assert (folded.state, folded.outcome) == (run.state, run.outcome)
        assert {k: v for k, v in folded.counts.items() if v} == {
            k: v for k, v in run.counts.items() if v
        }


async def test_a_spool_that_begins_above_what_is_stored_leaves_a_hole(serve: Serve) -> None:
    """The server had called 30 bytes durable and was restored since: it has ten. What comes has a
    gap in it, and the log settles as missing, with its range, without being fetched again."""
    async with serve(loops=False) as one:
        identity = await one.identity("a")
        link = await greet(one, identity)
        run_id, attempt, epoch = await started(one, identity, link)
        whole = hashlib.sha256(b"x" * 50).hexdigest()

        async def says(observation: Observation, stored: Stored) -> attempts.Answer:
            said = NodeReport(
                node=identity.node, link_epoch=link, observed=(observation,),
                logs={attempt: stored},
            )  # fmt: skip
            (answer,) = await report(one, said)
            return answer

        begins = Observation(attempt, epoch, (Started(1),), begins=30)
        await says(begins, Stored(10, None))
        await says(begins, Stored(10, None))  # it is told once
        story = "\n".join(await one.story(run_id))
        assert story.count("the log is missing from byte 10 to byte 30") == 1
        ended = Observation(attempt, epoch, (Started(1), exited(50, whole)), 50, 30)
        answer = await says(ended, Stored(40, None))
        assert answer.awaiting == {attempt: 50}
        part = Stored(50, hashlib.sha256(b"x" * 30).hexdigest())
        await one.database.write(partial(attempts.settle, measured={attempt: part}))
        (task,) = (await one.run(run_id)).tasks
        assert (task.log.state, task.log.length, task.log.sha256) == ("missing", *part)


async def test_what_was_trimmed_is_not_fetched_again(serve: Serve) -> None:
    """Its hash does not fit, and most of it can come no more: what is stored is kept (5.7)."""
    async with serve(loops=False) as one:
        identity = await one.identity("a")
        link = await greet(one, identity)
        run_id, attempt, epoch = await started(one, identity, link)
        segment = one.logs.segment_now()
        pieces, data = [Piece(1, 5, 1)], b"wrong"
        await one.logs.append(identity.node, link, segment, attempt, 0, encode(pieces, data))
        whole = hashlib.sha256(b"right").hexdigest()
        said = NodeReport(
            node=identity.node,
            link_epoch=link,
            observed=(Observation(attempt, epoch, (Started(1), exited(5, whole)), 5, 3),),
            logs={attempt: Stored(5, None)},
        )
        await report(one, said)
        await SealingLoop(one.database, one.logs).round()
        (task,) = (await one.run(run_id)).tasks
        wrong = hashlib.sha256(data).hexdigest()
        assert (task.log.state, task.log.length, task.log.sha256) == ("damaged", 5, wrong)
        assert await one.logs.lengths([(segment, attempt)]) == {attempt: 5}
        story = "\n".join(await one.story(run_id))
        assert wrong in story
        assert whole in story
