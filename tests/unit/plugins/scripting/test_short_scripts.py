"""Tests of gateway.plugins.scripting.executor: scripts that never wait, which run without a task."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.plugins.scripting.calls import ScriptStopped, TimedOut, never_suspends
from gateway.plugins.scripting.executor import ScriptExecutor
from gateway.telemetry import logs


@pytest.fixture
async def executor() -> AsyncIterator[ScriptExecutor]:
    made = ScriptExecutor("test")
    yield made
    await made.close(0)


@pytest.mark.parametrize(
    ("body", "suspends"),
    [
        ("return 1", False),
        ("asyncio.create_task(asyncio.sleep(0))", False),
        ("async def inner(): await asyncio.sleep(0)", False),
        ("await asyncio.sleep(0)", True),
        ("async with asyncio.timeout(1): pass", True),
        ("async for _ in found: pass", True),
        ("return [one async for one in found]", True),
        ("yield 1", True),
    ],
)
def test_a_script_with_nothing_to_wait_for_is_known_by_its_code(body: str, *, suspends: bool) -> None:
    names: dict[str, Any] = {}
    exec(f"import asyncio\nasync def p(found):\n    {body}\n", names)
    assert never_suspends(names["p"]) is not suspends


async def test_a_script_that_never_waits_runs_in_the_executor_in_its_callers_context(
    executor: ScriptExecutor,
) -> None:
    async def facts() -> tuple[int, dict[str, Any]]:
        return threading.get_ident(), dict(logs.bound_fields())

    with logs.bind(upload_id="u1"):
        thread, bound = await executor.call_script(facts, 5, suspends=False)
    assert thread != threading.get_ident()
    assert bound == {"upload_id": "u1"}
    assert executor.in_flight == 0


async def test_a_script_that_never_waits_and_ends_too_late_has_timed_out(
    executor: ScriptExecutor,
) -> None:
    async def dawdle() -> None:
        time.sleep(0.02)

    with pytest.raises(TimedOut):
        await executor.call_script(dawdle, 0.01, suspends=False)


async def test_a_script_that_waits_against_its_word_fails_and_is_not_taken_for_done(
    executor: ScriptExecutor,
) -> None:
    with pytest.raises(ScriptStopped, match="suspended"):
        await executor.call_script(lambda: asyncio.sleep(0), 5, suspends=False)
