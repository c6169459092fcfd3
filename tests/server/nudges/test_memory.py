from __future__ import annotations

import asyncio
import threading

from fleetwire.server.nudges.memory import MemoryNudges


def test_a_nudge_wakes_its_listeners_only() -> None:
    async def main() -> None:
        nudges = MemoryNudges()
        async with nudges.listen("a", "b") as one, nudges.listen("b") as two:
            nudges.send("a")
            nudges.send("c")
            assert await one.wait(5) == {"a"}
            assert await two.wait(0) == set()
            nudges.send("b")
            nudges.send("a")
            nudges.send("a")
            assert await one.wait(5) == {"a", "b"}
            assert await two.wait(5) == {"b"}
            assert await one.wait(0.01) == set()

    asyncio.run(main())


def test_a_nudge_from_a_thread_wakes_a_waiter() -> None:
    async def main() -> None:
        nudges = MemoryNudges()
        async with nudges.listen("a") as listener, asyncio.TaskGroup() as group:
            waiting = group.create_task(listener.wait(5))
            await asyncio.sleep(0)
            thread = threading.Thread(target=nudges.send, args=("a",))
            thread.start()
            assert await waiting == {"a"}
            thread.join()

    asyncio.run(main())


def test_a_cancelled_wait_loses_nothing() -> None:
    async def main() -> None:
        nudges = MemoryNudges()
        async with nudges.listen("a") as listener:
            try:
                async with asyncio.timeout(0.01):
                    await listener.wait()
            except TimeoutError:
                nudges.send("a")
            assert await listener.wait(5) == {"a"}

    asyncio.run(main())


def test_topics_come_and_go_and_nothing_is_left() -> None:
    async def main() -> None:
        nudges = MemoryNudges()
        async with nudges.listen() as listener:
            listener.add("a", "b")
            listener.remove("a")
            nudges.send("a")
            nudges.send("b")
            assert await listener.wait(5) == {"b"}
            assert nudges.listeners() == 1
        assert nudges.listeners() == 0
        nudges.send("b")
        assert await listener.wait(0) == set()

    asyncio.run(main())


def test_no_nudge_is_lost_between_two_waits() -> None:
    """A thousand nudges from a thread, each answered: a lost wake-up would time out."""

    async def main() -> None:
        nudges = MemoryNudges()
        answered = threading.Semaphore(0)

        def send() -> None:
            for _ in range(1000):
                nudges.send("a")
                assert answered.acquire(timeout=5)

        async with nudges.listen("a") as listener:
            thread = threading.Thread(target=send)
            thread.start()
            for _ in range(1000):
                assert await listener.wait(5) == {"a"}
                answered.release()
            thread.join()

    asyncio.run(main())


def test_a_listener_of_an_ended_loop_is_passed_over() -> None:
    nudges = MemoryNudges()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(nudges.listen("a").__aenter__())
    loop.close()
    nudges.send("a")


def test_dropped_nudges_reach_nobody() -> None:
    async def main() -> None:
        nudges = MemoryNudges(drop=True)
        async with nudges.listen("a") as listener:
            nudges.send("a")
            assert await listener.wait(0.01) == set()

    asyncio.run(main())
