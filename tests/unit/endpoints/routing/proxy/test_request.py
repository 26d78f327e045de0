"""How long the proxy waits: silence ends a wait, bytes prolong it. On a clock that only waits move."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.endpoints.routing.proxy.request import IdleTimeout

IDLE = 10.0


class _Clock(selectors.DefaultSelector):
    """Lets what waits for a time have it at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.now += timeout or 0.0
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = _Clock()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


def ended_after(step: Callable[[IdleTimeout], Awaitable[object]], times: int = 1) -> float | None:
    """Run `step` in as many waits of one Silence; return when the last was over, None if it was not."""

    async def run() -> float | None:
        silence, loop = IdleTimeout(IDLE), asyncio.get_running_loop()
        ended: float | None = None
        for _ in range(times):
            ended, started = None, loop.time()
            try:
                async with silence:
                    await step(silence)
            except TimeoutError:
                assert silence.expired
                ended = loop.time() - started
            else:
                assert not silence.expired
        return ended

    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(run())


@pytest.mark.parametrize("times", [1, 3])
def test_silence_ends_a_wait(times: int) -> None:
    assert ended_after(lambda _: asyncio.sleep(1000), times) == pytest.approx(IDLE)


def test_a_wait_that_is_shorter_than_the_silence_allowed_leaves_nothing_behind() -> None:
    assert ended_after(lambda _: asyncio.sleep(9), times=3) is None


def test_bytes_prolong_a_wait_and_silence_counts_from_the_last() -> None:
    async def trickle(silence: IdleTimeout) -> None:
        for _ in range(8):
            await asyncio.sleep(9)
            silence.renew()
        await asyncio.sleep(1000)

    assert ended_after(trickle) == pytest.approx(8 * 9 + IDLE)


def test_the_other_sides_turn_does_not_count() -> None:
    async def turn(silence: IdleTimeout) -> None:
        silence.suspend()
        await asyncio.sleep(1000)
        silence.renew()
        await asyncio.sleep(1000)

    assert ended_after(turn) == pytest.approx(1000 + IDLE)


def test_a_wait_can_be_ended_at_once_and_a_late_byte_changes_nothing() -> None:
    async def leave(silence: IdleTimeout) -> None:
        silence.expire()
        silence.renew()
        silence.expire()
        await asyncio.sleep(1000)

    assert ended_after(leave) == 0.0


def test_a_timeout_of_the_network_is_no_silence() -> None:
    async def run() -> bool:
        silence = IdleTimeout(IDLE)
        with pytest.raises(TimeoutError):
            async with silence:
                raise TimeoutError("the network gave up")
        return silence.expired

    with asyncio.Runner(loop_factory=_Loop) as runner:
        assert runner.run(run()) is False
