"""Tests of `ScriptExecutor.submit`: results come to a callback, whatever a script does."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from gateway.errors import Refusal
from gateway.plugins.scripting.calls import ScriptStopped, TimedOut
from gateway.plugins.scripting.executor import ExecutorLost, ScriptExecutor
from gateway.plugins.scripting.executor_thread import ExecutorThread
from gateway.plugins.scripting.live_work import LiveWork
from gateway.telemetry import logs

Outcome = tuple[Any, Exception | None]
Script = Callable[[], Awaitable[Any]]


class Stopper(BaseException):
    """What no plugin should raise."""


@pytest.fixture
async def executor() -> AsyncIterator[ScriptExecutor]:
    made = ScriptExecutor("test")
    yield made
    await made.close(0)


async def outcome_of(
    executor: ScriptExecutor, script: Script, timeout: float = 5, **more: Any
) -> Outcome:
    outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    executor.submit(script, timeout, lambda value, error: outcome.set_result((value, error)), **more)
    return await outcome


async def test_the_result_comes_on_the_callers_loop(executor: ScriptExecutor) -> None:
    given: asyncio.Future[tuple[int, int, Exception | None]]
    given = asyncio.get_running_loop().create_future()

    async def where() -> int:
        return threading.get_ident()

    def done(value: int, error: Exception | None) -> None:
        given.set_result((value, threading.get_ident(), error))

    executor.submit(where, 5, done)
    inside, outside, error = await given
    assert (inside != outside, outside, error) == (True, threading.get_ident(), None)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many calls the thread found each time that it was woken."""
    sizes: list[int] = []
    start = ExecutorThread._start_submitted

    def counting(thread: ExecutorThread) -> None:
        sizes.append(len(thread._submitted))
        start(thread)

    monkeypatch.setattr(ExecutorThread, "_start_submitted", counting)
    return sizes


async def test_calls_of_one_turn_cross_together(executor: ScriptExecutor, batches: list[int]) -> None:
    await outcome_of(executor, lambda: asyncio.sleep(0))
    batches.clear()
    all_here, results = asyncio.Event(), list[Any]()

    def done(value: int, _: Exception | None) -> None:
        results.append(value)
        if len(results) == 50:
            all_here.set()

    for number in range(50):
        executor.submit(lambda number=number: asyncio.sleep(0, number), 5, done)  # type: ignore[misc]
    await all_here.wait()
    assert results == list(range(50))
    assert sum(batches) == 50
    assert len(batches) <= 2  # two where the thread is awake as the first one comes


async def test_calls_wake_the_thread_once_all_that_was_ready_has_been_served(
    executor: ScriptExecutor, batches: list[int]
) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    left = list(range(20))

    def done(_value: None, _error: Exception | None) -> None:
        left.pop()
        if not left:
            ended.set()

    def submit_in_each_turn(more: int) -> None:
        for _ in range(5):
            loop.call_soon(executor.submit, lambda: asyncio.sleep(0), 5, done)
        if more:
            loop.call_soon(submit_in_each_turn, more - 1)

    submit_in_each_turn(3)
    await ended.wait()
    assert batches == [20]


async def test_a_call_that_is_cancelled_before_the_thread_is_woken_never_begins(
    executor: ScriptExecutor,
) -> None:
    begun: list[bool] = []

    async def script() -> None:
        begun.append(True)

    executor.submit(script, 5, lambda *_: begun.append(False)).cancel()
    await outcome_of(executor, lambda: asyncio.sleep(0))
    assert begun == []
    assert executor.in_flight == 0


async def test_the_receiver_runs_in_the_context_of_no_request(executor: ScriptExecutor) -> None:
    given: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    with logs.bind(upload_id="u1"):
        executor.submit(
            lambda: asyncio.sleep(0), 5, lambda *_: given.set_result(dict(logs.bound_fields()))
        )
        assert await given == {}


async def test_a_script_runs_in_the_context_that_it_is_given(executor: ScriptExecutor) -> None:
    async def facts() -> dict[str, Any]:
        return dict(logs.bound_fields())

    with logs.bind(upload_id="u1"):
        context = contextvars.copy_context()
    assert (await outcome_of(executor, facts, context=context))[0] == {"upload_id": "u1"}
    assert (await outcome_of(executor, facts))[0] == {}


async def test_a_receiver_that_fails_keeps_no_result_from_others(executor: ScriptExecutor) -> None:
    def fail(*_: object) -> None:
        raise ValueError

    reported: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    executor.submit(lambda: asyncio.sleep(0), 5, fail)
    assert await outcome_of(executor, lambda: asyncio.sleep(0, "on")) == ("on", None)
    assert isinstance(reported[0]["exception"], ValueError)


async def test_a_cancelled_call_gives_no_result_and_ends(executor: ScriptExecutor) -> None:
    ended, results = threading.Event(), list[Outcome]()

    async def hang() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    call = executor.submit(hang, 60, lambda *outcome: results.append(outcome))
    await outcome_of(executor, lambda: asyncio.sleep(0))
    call.cancel()
    assert await asyncio.to_thread(ended.wait, 10)
    await outcome_of(executor, lambda: asyncio.sleep(0.01))
    assert (results, executor.in_flight) == ([], 0)


async def test_too_many_calls_and_a_closed_executor_refuse_at_once() -> None:
    executor = ScriptExecutor("small", max_calls=1)
    outcomes: list[Outcome] = []
    executor.submit(lambda: asyncio.sleep(60), 60, lambda *outcome: outcomes.append(outcome))
    with pytest.raises(Refusal, match="too many requests"):
        executor.submit(lambda: asyncio.sleep(0), 5, lambda *_: None)
    await executor.close(0)
    assert isinstance(outcomes[0][1], ExecutorLost)
    with pytest.raises(ExecutorLost):
        executor.submit(lambda: asyncio.sleep(0), 5, lambda *_: None)


async def test_closing_waits_for_results_and_for_no_cancelled_call() -> None:
    executor = ScriptExecutor("closing")
    outcomes: list[Outcome] = []
    executor.submit(lambda: asyncio.sleep(0.02, "end"), 60, lambda *outcome: outcomes.append(outcome))
    executor.submit(lambda: asyncio.sleep(60), 60, lambda *_: None).cancel()
    await asyncio.wait_for(executor.close(60), 30)
    assert outcomes == [("end", None)]


# -- what a script may do before it first waits


async def _returns() -> str:
    return "ok"


async def _suspends_at_once() -> str:
    await asyncio.sleep(0)
    return "ok"


async def _suspends_later() -> str:
    for _ in range(3):
        await asyncio.sleep(0.001)
    return "ok"


async def _uses_a_time_out() -> str:
    async with asyncio.timeout(5):
        pass
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)
    except TimeoutError:
        return "ok"
    return "no time-out"


async def _uses_a_group() -> str:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_suspends_at_once())
    return await task


async def _knows_its_task() -> str:
    before = asyncio.current_task()
    assert before is not None
    assert before in asyncio.all_tasks()
    await asyncio.sleep(0)
    return "ok" if asyncio.current_task() is before else "another task"


async def _uses_a_thread() -> str:
    with logs.bind(upload_id="u1"):
        bound = await asyncio.to_thread(lambda: dict(logs.bound_fields()))
    return "ok" if bound == {"upload_id": "u1"} else str(bound)


async def _uses_a_generator() -> str:
    async def numbers() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0)
        yield 2

    async for number in numbers():
        if number == 2:
            return "ok"
    return "no second number"


async def _handles_no_error_of_others() -> str:
    import sys

    return "ok" if sys.exc_info() == (None, None, None) else "an error of another script"


GOOD = [
    _returns,
    _suspends_at_once,
    _suspends_later,
    _uses_a_time_out,
    _uses_a_group,
    _knows_its_task,
    _uses_a_thread,
    _uses_a_generator,
    _handles_no_error_of_others,
]


@pytest.mark.parametrize("script", GOOD)
async def test_a_script_may_use_all_of_asyncio_from_its_first_line_on(
    executor: ScriptExecutor, script: Script
) -> None:
    live: LiveWork = set()
    assert await outcome_of(executor, script, live=live) == ("ok", None)
    await outcome_of(executor, lambda: asyncio.sleep(0.01))
    assert (executor.in_flight, live) == (0, set())


ERRORS = [
    (ValueError, ValueError),
    (TimeoutError, TimeoutError),
    (StopIteration, RuntimeError),
    (StopAsyncIteration, StopAsyncIteration),
    (SystemExit, ScriptStopped),
    (KeyboardInterrupt, ScriptStopped),
    (GeneratorExit, ScriptStopped),
    (asyncio.CancelledError, ScriptStopped),
    (Stopper, ScriptStopped),
]


@pytest.mark.parametrize("waits_first", [False, True])
@pytest.mark.parametrize("suspends", [False, True])
@pytest.mark.parametrize(("raised", "given"), ERRORS)
async def test_what_a_script_raises_is_given_as_an_exception(
    executor: ScriptExecutor,
    raised: type[BaseException],
    given: type[Exception],
    *,
    suspends: bool,
    waits_first: bool,
) -> None:
    async def fail() -> None:
        if waits_first and suspends:
            await asyncio.sleep(0)
        raise raised

    value, error = await outcome_of(executor, fail, suspends=suspends)
    assert (value, type(error)) == (None, given)
    assert await outcome_of(executor, lambda: asyncio.sleep(0, "on")) == ("on", None)


@pytest.mark.parametrize("waits", [False, True])
async def test_a_script_that_cancels_itself_is_stopped(executor: ScriptExecutor, *, waits: bool) -> None:
    async def cancel() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if waits:
            await asyncio.sleep(0)

    _, error = await outcome_of(executor, cancel)
    assert isinstance(error, ScriptStopped)


async def test_a_script_that_others_cancel_before_it_begins_is_stopped(executor: ScriptExecutor) -> None:
    async def cancel_all() -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    error: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    begun: list[int] = []

    async def begin() -> None:
        begun.append(1)

    await outcome_of(executor, _returns)
    executor.submit(cancel_all, 5, lambda *_: None)
    executor.submit(begin, 5, lambda _, raised: error.set_result(raised))
    assert isinstance(await error, ScriptStopped) or begun
    assert await outcome_of(executor, _returns) == ("ok", None)
    assert executor.in_flight == 0


async def test_a_script_that_overcomes_its_cancellation_succeeds(executor: ScriptExecutor) -> None:
    async def overcome() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "ok"
        return "not cancelled"

    assert await outcome_of(executor, overcome) == ("ok", None)


@pytest.mark.parametrize("suspends", [False, True])
async def test_a_script_that_blocks_beyond_its_time_has_timed_out_though_it_returns(
    executor: ScriptExecutor, *, suspends: bool
) -> None:
    async def block() -> None:
        time.sleep(0.05)

    _, error = await outcome_of(executor, block, 0.01, suspends=suspends)
    assert isinstance(error, TimedOut)


async def test_a_script_that_blocks_and_then_waits_beyond_its_time_is_cancelled(
    executor: ScriptExecutor,
) -> None:
    cancelled = threading.Event()

    async def block() -> None:
        time.sleep(0.05)
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    _, error = await outcome_of(executor, block, 0.01)
    assert isinstance(error, TimedOut)
    assert cancelled.is_set()


async def test_scripts_submitted_without_end_let_others_go_on(executor: ScriptExecutor) -> None:
    stop = False

    def again(*_: object) -> None:
        if not stop:
            executor.submit(_returns, 5, again, suspends=False)

    for _ in range(200):
        again()
    assert await outcome_of(executor, _suspends_later) == ("ok", None)
    stop = True
