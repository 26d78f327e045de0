"""Tests of gateway.plugins.scripting.executor: scripts that never wait, which run without a task."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.plugins.scripting.calls import ScriptStopped, TimedOut
from gateway.plugins.scripting.executor import ScriptExecutor
from gateway.plugins.scripting.suspension import never_suspends
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


@pytest.mark.parametrize(
    ("body", "suspends"),
    [
        ("await handle.terminate(code=403, output='no')", False),
        ("await handle.terminate(403, {'why': event.get('x', [1])})", False),
        ("if event: await handle.terminate(403, f'no {event}')\n    handle.progress(1, 2)", False),
        ("for n in range(3): await handle.progress(n, 3)", False),
        ("try: await handle.terminate(int('4'))\n    except ValueError: pass", False),
        ("await handle.terminate(403, event['a'].b(1)(2, c=3))", False),
        ("await handle.terminate(403, await other())", True),
        ("await handle.terminate(403, 'a' if event else 'b')", True),
        ("await handle.terminate(*event)", True),
        ("await handle.terminate", True),
        ("await handle.terminate(403).other()", True),
        ("await handle.other()", True),
        ("await event.terminate()", True),
        ("await other(handle.terminate(403))", True),
        ("handle.terminate(403); await other()", True),
        ("await handle.terminate(403); await other()", True),
        ("await (handle.terminate(403) or other())", True),
        ("await handle.terminate(403)\n    async with other(): pass", True),
        ("await handle.terminate(403)\n    async for _ in event: pass", True),
        ("handle = event\n    await handle.terminate(403)", True),
        ("handle.terminate = event\n    await handle.terminate(403)", True),
        ("await handle.terminate(403)\n    def inner(): nonlocal handle; handle = 1", True),
    ],
)
def test_a_script_that_awaits_its_decision_alone_never_waits(body: str, *, suspends: bool) -> None:
    names: dict[str, Any] = {}
    exec(f"async def p(event, handle):\n    {body}\n", names)
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
