"""The bell: no ring is missed, whoever rings and whenever, and nobody waits for another's."""

from __future__ import annotations

import asyncio
import threading

from gateway.events.wakeups import ANY, Wakeups

SECONDS = 30.0


async def answered(waiting: asyncio.Task[None]) -> None:
    async with asyncio.timeout(SECONDS):
        await waiting


async def test_a_ring_between_look_and_wait_is_not_missed() -> None:
    bell = Wakeups()
    seen = bell.rings("h")
    bell.ring(["h"])
    await answered(asyncio.create_task(bell.wait("h", seen, 1e6)))


async def test_a_ring_from_another_thread_wakes_all_who_wait_for_that_handler_and_no_other() -> None:
    bell = Wakeups()
    mine = [asyncio.create_task(bell.wait("h", 0, 1e6)) for _ in range(3)]
    other = asyncio.create_task(bell.wait("i", 0, 1e6))
    anything = asyncio.create_task(bell.wait(ANY, 0, 1e6))
    await asyncio.sleep(0)
    ringing = threading.Thread(target=bell.ring, args=(["h"],))
    ringing.start()
    for waiting in (*mine, anything):
        await answered(waiting)
    assert not other.done()
    bell.ring_all()
    await answered(other)
    ringing.join()


async def test_without_a_ring_it_waits_for_its_seconds_only() -> None:
    bell = Wakeups()
    await answered(asyncio.create_task(bell.wait("h", 0, 0.01)))
    assert bell.rings("h") == 0


def test_it_goes_on_ringing_when_a_loop_has_ended() -> None:
    bell = Wakeups()

    async def interrupted() -> None:
        waiting = asyncio.create_task(bell.wait("h", 0, 1e6))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])

    asyncio.run(interrupted())
    bell.ring(["h"])

    async def another() -> None:
        waiting = asyncio.create_task(bell.wait("h", bell.rings("h"), 1e6))
        await asyncio.sleep(0)
        bell.ring(["h"])
        await answered(waiting)

    asyncio.run(another())
