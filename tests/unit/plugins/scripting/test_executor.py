"""Tests of gateway.plugins.scripting.executor: whatever a script does, the caller gets its answer."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Refusal
from gateway.plugins.scripting.calls import ScriptStopped
from gateway.plugins.scripting.compile import ScriptSource, compile_source
from gateway.plugins.scripting.executor import MAX_REPLACEMENTS, ExecutorLost, ScriptExecutor, Watchdog
from gateway.plugins.scripting.namespace import PluginContext, ScriptContext, Services, run_script
from gateway.plugins.scripting.values import Configs
from gateway.telemetry import logs
from tests.support import PROJECT


@pytest.fixture
async def executor() -> AsyncIterator[ScriptExecutor]:
    made = ScriptExecutor("test")
    yield made
    await made.close(0)


def script(text: str, name: str = "plugin.yaml", line: int = 1) -> dict[str, Any]:
    services = Services()
    context = ScriptContext("p", "/p", PluginContext(services, Configs({}), {}))
    return run_script(compile_source(ScriptSource(text, f"/p/{name}", line)), context)


async def test_a_call_runs_in_another_thread_and_returns_its_result(executor: ScriptExecutor) -> None:
    async def where() -> int:
        await asyncio.sleep(0)
        return threading.get_ident()

    assert await executor.call_script(where, 5) != threading.get_ident()


async def test_a_call_sees_what_its_caller_has_bound_to_the_log(executor: ScriptExecutor) -> None:
    async def facts() -> dict[str, Any]:
        return dict(logs.bound_fields())

    with logs.bind(upload_id="u1"):
        assert await executor.call_script(facts, 5) == {"upload_id": "u1"}
    assert await executor.call_script(facts, 5) == {}


@pytest.mark.parametrize("suspends", [True, False])
async def test_an_exception_comes_back_with_its_traceback(
    executor: ScriptExecutor, *, suspends: bool
) -> None:
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        await executor.call_script(fail, 5, suspends=suspends)
    assert any(step.name == "fail" for step in caught.traceback)


@pytest.mark.parametrize("suspends", [True, False])
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
async def test_what_would_stop_a_program_stops_the_script_only(
    executor: ScriptExecutor, error: type[BaseException], *, suspends: bool
) -> None:
    async def fail() -> None:
        raise error

    with pytest.raises(ScriptStopped):
        await executor.call_script(fail, 5, suspends=suspends)
    assert await executor.call_script(lambda: asyncio.sleep(0, "on"), 5) == "on"
    assert executor.alive


async def test_a_task_left_behind_that_raises_system_exit_does_not_end_the_executor(
    executor: ScriptExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    left = []

    async def fail() -> None:
        raise SystemExit(3)

    async def leave() -> None:
        left.append(asyncio.create_task(fail()))

    await executor.call_script(leave, 5)
    assert await executor.call_script(lambda: asyncio.sleep(0.01, "on"), 5) == "on"
    assert left[0].done()
    assert isinstance(left[0].exception(), SystemExit)


async def test_a_call_that_waits_for_ever_times_out_and_leaves_nothing(executor: ScriptExecutor) -> None:
    cleaned = threading.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    with pytest.raises(TimeoutError):
        await executor.call_script(hang, 0.05)
    assert cleaned.is_set()
    assert executor.in_flight == 0


async def test_a_time_out_tells_the_line_at_which_the_script_waits(executor: ScriptExecutor) -> None:
    names = script(
        "async def p():\n    await inner()\nasync def inner():\n    await asyncio.sleep(60)\n", line=7
    )
    with pytest.raises(TimeoutError, match=r"/p/plugin\.yaml:10"):
        await executor.call_script(names["p"], 0.05)


async def test_a_script_that_swallows_its_cancellation_does_not_keep_its_caller(
    executor: ScriptExecutor,
) -> None:
    released = asyncio.Event()

    async def stubborn() -> str:
        release = asyncio.Event()
        loop = asyncio.get_running_loop()
        home.call_soon_threadsafe(holder.append, lambda: loop.call_soon_threadsafe(release.set))
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        home.call_soon_threadsafe(released.set)
        return "late"

    home, holder = asyncio.get_running_loop(), list[Any]()
    with pytest.raises(TimeoutError):
        await executor.call_script(stubborn, 0.05)
    assert executor.alive
    assert executor.in_flight == 1
    holder[0]()
    await released.wait()
    assert await executor.call_script(lambda: asyncio.sleep(0, "on"), 5) == "on"
    assert executor.in_flight == 0


async def test_a_caller_that_goes_away_cancels_its_call(executor: ScriptExecutor) -> None:
    home, started, cancelled = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        home.call_soon_threadsafe(started.set)
        try:
            await asyncio.Event().wait()
        finally:
            home.call_soon_threadsafe(cancelled.set)

    task = asyncio.create_task(executor.call_script(hang, 60))
    await started.wait()
    task.cancel()
    await asyncio.wait_for(cancelled.wait(), 5)


async def test_a_call_cancelled_before_it_began_is_forgotten(executor: ScriptExecutor) -> None:
    executor.start()
    task = asyncio.create_task(executor.call_script(lambda: asyncio.sleep(60), 60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await executor.call_script(lambda: asyncio.sleep(0.01), 5)
    assert executor.in_flight == 0


async def test_calls_beyond_the_limit_are_refused_as_overload() -> None:
    executor = ScriptExecutor("small", max_calls=1)
    first = asyncio.create_task(executor.call_script(lambda: asyncio.sleep(60), 60))
    await asyncio.sleep(0)
    with pytest.raises(Refusal) as caught:
        await executor.call_script(lambda: asyncio.sleep(0), 5)
    assert caught.value.code == "overloaded"
    first.cancel()
    await executor.close(0)


async def test_many_calls_at_once_all_get_their_own_answer(executor: ScriptExecutor) -> None:
    async def echo(number: int) -> int:
        await asyncio.sleep(0)
        return number

    calls = [executor.call_script(lambda n=n: echo(n), 30) for n in range(2000)]  # type: ignore[misc]
    assert await asyncio.gather(*calls) == list(range(2000))
    assert executor.in_flight == 0


async def test_a_blocked_executor_is_abandoned_with_all_its_calls_and_replaced(
    executor: ScriptExecutor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.plugins.scripting.executor.REACTION_TIMEOUT", 0.2)
    release = threading.Event()

    async def block() -> None:
        release.wait(30)

    innocent = asyncio.create_task(executor.call_script(lambda: asyncio.sleep(60), 60))
    await asyncio.sleep(0.01)
    with pytest.raises(ExecutorLost):
        await executor.call_script(block, 0.05)
    with pytest.raises(ExecutorLost):
        await innocent
    assert await executor.call_script(lambda: asyncio.sleep(0, "on"), 5) == "on"
    assert executor.alive
    assert "stuck" in caplog.text
    release.set()


async def test_an_executor_is_not_to_blame_for_what_the_callers_own_loop_slept_through(
    executor: ScriptExecutor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.plugins.scripting.executor.REACTION_TIMEOUT", 0.2)
    innocent = asyncio.create_task(executor.call_script(lambda: asyncio.sleep(60), 60))
    late = asyncio.create_task(executor.call_script(lambda: asyncio.sleep(60), 0.05))
    await executor.call_script(_ident, 5)
    time.sleep(1)  # the executor answers meanwhile, and its answer cannot be taken
    with pytest.raises(TimeoutError):
        await late
    assert not innocent.done()
    assert "stuck" not in caplog.text
    innocent.cancel()


@pytest.mark.parametrize("suspends", [True, False])
async def test_an_endless_loop_is_broken_so_that_it_does_not_eat_the_processor(
    executor: ScriptExecutor, monkeypatch: pytest.MonkeyPatch, *, suspends: bool
) -> None:
    monkeypatch.setattr("gateway.plugins.scripting.executor.REACTION_TIMEOUT", 0.2)
    text = """
import threading
async def p(found):
    found.append(threading.current_thread())
    while True: pass
"""
    names = script(text)
    found: list[threading.Thread] = []
    with pytest.raises(ExecutorLost):
        await executor.call_script(lambda: names["p"](found), 1, suspends=suspends)
    await asyncio.to_thread(found[0].join, 30)
    assert not found[0].is_alive()


async def test_after_the_last_replacement_a_executor_is_not_alive_and_says_so_at_once(
    executor: ScriptExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.plugins.scripting.executor.REACTION_TIMEOUT", 0.05)
    release = threading.Event()

    async def block() -> None:
        release.wait(30)

    for _ in range(MAX_REPLACEMENTS + 1):
        assert executor.alive
        with pytest.raises(ExecutorLost):
            await executor.call_script(block, 0.01)
    assert not executor.alive
    with pytest.raises(ExecutorLost):
        await executor.call_script(lambda: asyncio.sleep(0), 5)
    release.set()


async def test_a_script_that_blocks_is_named_once_with_file_and_line(
    executor: ScriptExecutor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.plugins.scripting.executor.REPORT_DELAYS", (0.1,))
    text = "async def p(release):\n    work(release)\n\ndef work(release):\n    release.wait(30)\n"
    names, release = script(text, line=3), threading.Event()
    with caplog.at_level(logging.WARNING, "gateway.executor"):
        call = asyncio.create_task(executor.call_script(lambda: names["p"](release), 60))
        while not caplog.records:
            await asyncio.sleep(0.02)  # until it is told
        release.set()
        await call
    assert [r.getMessage().split(" ")[0] for r in caplog.records] == ["/p/plugin.yaml:7"]


LOOKS = """
import gc, threading
from gateway.plugins.scripting.trace import frame_of

def look():
    return frame_of(threading.get_ident())

for threshold in range(1, 40):
    gc.set_threshold(threshold)
    for _ in range(50):
        local = threading.local()
        local.x = 1
        cycle = [local]
        cycle.append(cycle)
        del local, cycle
        assert look() is not None
assert gc.isenabled()
"""


def test_looking_at_threads_never_stops_the_process_whatever_is_garbage_just_then() -> None:
    # In a process of its own: where it stands still, nothing in it goes on, not even a time-out.
    subprocess.run([sys.executable, "-c", LOOKS], check=True, timeout=60, cwd=PROJECT)


async def test_scripts_that_do_not_block_are_not_named(
    executor: ScriptExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    names = script("async def p():\n    for _ in range(20): await asyncio.sleep(0.01)\n")
    with caplog.at_level(logging.WARNING, "gateway.executor"):
        await asyncio.gather(*(executor.call_script(names["p"], 5) for _ in range(50)))
    assert not caplog.records


async def test_a_thread_that_answers_while_it_is_looked_at_is_not_blocked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watchdog = Watchdog("test", asyncio.get_running_loop())

    def look(_: int | None) -> None:
        watchdog._note_alive()

    monkeypatch.setattr("gateway.plugins.scripting.executor.frame_of", look)
    watchdog.probe(1)
    watchdog.probe(1)
    assert not caplog.records


async def test_the_home_loop_goes_on_while_a_script_blocks(executor: ScriptExecutor) -> None:
    home, begun, release = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    async def block() -> None:
        home.call_soon_threadsafe(begun.set)
        release.wait(30)

    blocked = asyncio.create_task(executor.call_script(block, 60))
    await begun.wait()
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert not blocked.done()
    release.set()
    await blocked


async def test_closing_lets_calls_end_within_the_grace(tmp_path: Path) -> None:
    executor = ScriptExecutor("closing")
    call = asyncio.create_task(executor.call_script(lambda: asyncio.sleep(0.05, "done"), 60))
    await asyncio.sleep(0)
    await executor.close(5)
    assert await call == "done"
    with pytest.raises(ExecutorLost):
        await executor.call_script(lambda: asyncio.sleep(0), 5)


async def test_closing_cancels_what_does_not_end_and_runs_the_closers_in_the_executor() -> None:
    where, cleaned = list[int](), threading.Event()

    async def closer() -> None:
        where.append(threading.get_ident())

    home, started = asyncio.get_running_loop(), asyncio.Event()

    async def hang() -> None:
        home.call_soon_threadsafe(started.set)
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.set()

    executor = ScriptExecutor("closing", [closer])
    inside = await executor.call_script(_ident, 5)
    call = asyncio.create_task(executor.call_script(hang, 60))
    await started.wait()
    await executor.close(0.01)
    with pytest.raises(ExecutorLost):
        await call
    assert cleaned.is_set()
    assert where == [inside]
    assert not executor.alive


async def _ident() -> int:
    return threading.get_ident()
