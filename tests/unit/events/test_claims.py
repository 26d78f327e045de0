"""Wake-ups of claims: none is missed, from any thread, and each reaches its handler only."""

from __future__ import annotations

import asyncio
import threading

from gateway.events.claims import ANY_HANDLER, Wakeups

SECONDS = 30.0


async def answered(waiting: asyncio.Task[None]) -> None:
    async with asyncio.timeout(SECONDS):
        await waiting


async def test_a_notification_between_reading_and_waiting_is_not_missed() -> None:
    wakeups = Wakeups()
    generation = wakeups.generation("h")
    wakeups.notify(["h"])
    await answered(asyncio.create_task(wakeups.wait("h", generation, 1e6)))


async def test_a_notification_from_another_thread_wakes_the_claims_of_its_handler_alone() -> None:
    wakeups = Wakeups()
    mine = [asyncio.create_task(wakeups.wait("h", 0, 1e6)) for _ in range(3)]
    other = asyncio.create_task(wakeups.wait("i", 0, 1e6))
    anything = asyncio.create_task(wakeups.wait(ANY_HANDLER, 0, 1e6))
    await asyncio.sleep(0)
    thread = threading.Thread(target=wakeups.notify, args=(["h"],))
    thread.start()
    for waiting in (*mine, anything):
        await answered(waiting)
    assert not other.done()
    wakeups.notify_all()
    await answered(other)
    thread.join()


async def test_without_a_notification_a_wait_ends_after_its_timeout() -> None:
    wakeups = Wakeups()
    await answered(asyncio.create_task(wakeups.wait("h", 0, 0.01)))
    assert wakeups.generation("h") == 0


def test_it_works_on_another_loop_after_one_has_ended() -> None:
    wakeups = Wakeups()

    async def interrupted() -> None:
        waiting = asyncio.create_task(wakeups.wait("h", 0, 1e6))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])

    asyncio.run(interrupted())
    wakeups.notify(["h"])

    async def another() -> None:
        waiting = asyncio.create_task(wakeups.wait("h", wakeups.generation("h"), 1e6))
        await asyncio.sleep(0)
        wakeups.notify(["h"])
        await answered(waiting)

    asyncio.run(another())
