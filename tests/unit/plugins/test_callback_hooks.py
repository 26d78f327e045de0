"""Tests of hooks whose results come to a callback: `submit_admission` and `submit_delivery`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.model import UPLOADED, Upload
from gateway.errors import HandlerFailed, HandlerGone, Postponed, Refusal, Terminated
from gateway.plugins.delivery_runs import DeliveryOutcome
from gateway.plugins.hooks import Hooks
from gateway.telemetry import logs
from tests.unit.plugins.conftest import Start
from tests.unit.plugins.test_hooks import delivery, plugin, upload

Submit = Callable[[Callable[[Exception | None], None]], object]


async def error_of(submit: Submit) -> Exception | None:
    """Return what the receiver gets, and see that it gets it once."""
    errors: asyncio.Queue[Exception | None] = asyncio.Queue()
    tasks = asyncio.all_tasks()
    submit(errors.put_nowait)
    assert asyncio.all_tasks() == tasks
    error = await asyncio.wait_for(errors.get(), 30)
    await asyncio.sleep(0)
    assert errors.empty()
    return error


async def admission(hooks: Hooks, one: Upload) -> Exception | None:
    return await error_of(lambda done: hooks.submit_admission(one, done))


async def run(hooks: Hooks, event: dict[str, Any], handler: str = "h") -> Exception | None:
    return await error_of(
        lambda done: hooks.submit_delivery(delivery(handler), event, lambda outcome: done(outcome.error))
    )


async def test_without_handlers_the_receiver_is_called_at_once(start: Start) -> None:
    errors: list[Exception | None] = []
    assert (await start()).submit_admission(upload(), errors.append) is None
    assert errors == [None]


async def test_the_changes_of_all_handlers_are_there_when_the_receiver_is_called(start: Start) -> None:
    hooks = await start(
        plugin("a", "event['path'] = '/a'; await asyncio.sleep(0.001)"),
        plugin("b", "event['path'] += '-b'; event['max_bytes'] = 5"),
        plugin("c", "event['path'] = '/no'; raise ValueError", more="on_error: allow\n"),
    )
    one = upload()
    seen: asyncio.Future[tuple[Any, ...]] = asyncio.get_running_loop().create_future()
    hooks.submit_admission(one, lambda error: seen.set_result((error, one.path, one.max_bytes)))
    assert await seen == (None, "/a-b", 5)


async def test_a_refusal_comes_as_an_error_and_ends_the_chain(start: Start, tmp_path: Path) -> None:
    hooks = await start(
        plugin("a", "event['path'] = '/a'"),
        plugin("b", "await handle.terminate(code=418, output='tea')"),
        plugin("c", f"open({str(tmp_path / 'ran')!r}, 'w').close()"),
    )
    one = upload()
    error = await admission(hooks, one)
    assert isinstance(error, Terminated)
    assert (error.status, error.body, one) == (418, b"tea", upload())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "body",
    [
        "raise ValueError",
        "raise SystemExit",
        "class Stop(BaseException): pass\nraise Stop",
        "event['path'] = 5",
        "await asyncio.sleep(60)",
        "asyncio.current_task().cancel(); await handle.terminate(200)",
    ],
)
async def test_a_handler_that_does_not_decide_refuses(start: Start, body: str) -> None:
    hooks = await start(plugin("h", body, more="timeout: 0.1\n"))
    error = await admission(hooks, upload())
    assert isinstance(error, Refusal)
    assert error.code == "hook_failed"


async def test_an_event_that_cannot_be_copied_for_the_next_handler_ends_the_chain(start: Start) -> None:
    hooks = await start(plugin("a", "event['own'] = [event]"), plugin("b", "pass"))
    assert isinstance(await admission(hooks, upload()), RecursionError)


async def test_a_closed_executor_refuses_at_once_unless_failures_are_allowed(start: Start) -> None:
    hooks = await start(plugin("a", "pass", more="on_error: allow\n"), plugin("b", "pass"))
    await hooks.close(0)
    errors: list[Exception | None] = []
    hooks.submit_admission(upload(), errors.append)
    assert isinstance(errors[0], Refusal)
    assert errors[0].code == "hook_failed"
    assert "b" in errors[0].message


async def test_a_cancelled_admission_calls_nobody_and_starts_no_other_handler(
    start: Start, tmp_path: Path
) -> None:
    begun, ended, ran = tmp_path / "begun", tmp_path / "ended", tmp_path / "ran"
    body = f"""
    open({str(begun)!r}, 'w').close()
    try:
        await asyncio.sleep(60)
    finally:
        open({str(ended)!r}, 'w').close()
    """
    hooks = await start(plugin("a", body), plugin("b", f"open({str(ran)!r}, 'w').close()"))
    errors: list[Exception | None] = []
    chain = hooks.submit_admission(upload(), errors.append)
    assert chain is not None
    while not begun.exists():
        await asyncio.sleep(0.001)  # until the thread has run it
    chain.cancel()
    await hooks.close(5)
    assert (errors, ended.exists(), ran.exists()) == ([], True, False)


async def test_the_lines_of_handlers_name_upload_and_request_and_the_receiver_has_no_context(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    records: list[tuple[str, dict[str, Any]]] = []

    class Recording(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append((record.name, dict(logs.bound_fields())))

    hooks = await start(plugin("a", "logger.info('x')"), plugin("b", "raise ValueError"))
    handler = Recording()
    logging.getLogger("gateway").addHandler(handler)
    try:
        with caplog.at_level(logging.INFO, "gateway"), logs.bind(request_id="r"):
            bound: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
            hooks.submit_admission(upload(), lambda _: bound.set_result(dict(logs.bound_fields())))
            assert await bound == {}
    finally:
        logging.getLogger("gateway").removeHandler(handler)
    fields = {"request_id": "r", "upload_id": "u-0", "event_id": "u-0.uploading"}
    assert records == [
        ("gateway.plugin.a", fields),
        ("gateway.hooks", fields),
        ("gateway.hooks", fields),
    ]


# -- deliveries


async def test_a_delivery_that_succeeds_gives_no_error(start: Start) -> None:
    body = "assert event['attempt'] == 1\nif event.get('wait'): await asyncio.sleep(0.001)"
    hooks = await start(plugin("h", body, UPLOADED))
    assert await run(hooks, {"attempt": 1}) is None
    assert await run(hooks, {"attempt": 1, "wait": 1}) is None


async def test_a_delivery_that_fails_gives_why(start: Start) -> None:
    hooks = await start(plugin("h", "raise ValueError('why')", UPLOADED))
    error = await run(hooks, {})
    assert isinstance(error, HandlerFailed)
    assert str(error) == "ValueError: why"
    assert "in h" in error.traceback


async def test_a_delivery_of_a_handler_that_is_gone_says_so_at_once(start: Start) -> None:
    hooks = await start(plugin("h", "pass", UPLOADED))
    outcomes: list[DeliveryOutcome] = []
    assert hooks.submit_delivery(delivery("other"), {}, outcomes.append) is None
    assert isinstance(outcomes[0].error, HandlerGone)


async def test_a_delivery_that_the_handler_postpones_has_not_failed(start: Start) -> None:
    body = "from gateway.errors import Postponed\nraise Postponed('later')"
    hooks = await start(plugin("h", body, UPLOADED))
    assert isinstance(await run(hooks, {}), Postponed)


async def test_progress_is_known_while_a_delivery_runs_and_not_after_it_or_its_cancellation(
    start: Start,
) -> None:
    hooks = await start(plugin("h", "handle.progress(1, 2)\nawait asyncio.sleep(60)", UPLOADED))
    outcomes: list[DeliveryOutcome] = []
    running = hooks.submit_delivery(delivery(), {}, outcomes.append)
    assert running is not None
    while hooks.delivery_progress("e-0", "h") is None:
        await asyncio.sleep(0.001)  # until the thread has run it
    assert hooks.delivery_progress("e-0", "h") == {"done": 1, "total": 2}
    running.cancel()
    assert hooks.delivery_progress("e-0", "h") is None
    await hooks.close(5)
    assert outcomes == []
