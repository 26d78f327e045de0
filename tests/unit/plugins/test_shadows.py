"""Tests of shadows: they run beside what counts, are compared with it, and change nothing."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import pytest

from gateway.domain.model import DOWNLOADING, LISTING, UPLOADING, Download, FileRequest, Upload
from gateway.errors import Refusal, Terminated
from gateway.plugins.hooks import Hooks
from gateway.plugins.scripting.values import Event
from gateway.plugins.shadow_verdicts import real_verdict
from tests.unit.plugins.conftest import Start
from tests.unit.plugins.test_hooks import plugin, upload

SHADOW = "shadow: true\n"


class Counts:
    """Counts runs of shadows, and says when one has ended."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self._changed = asyncio.Event()

    def record_shadow(self, handler: str, outcome: str) -> None:
        self.outcomes[f"{handler} {outcome}"] += 1
        self._changed.set()

    async def of(self, hooks: Hooks, count: int = 1) -> dict[str, int]:
        async with asyncio.timeout(30):
            while self.outcomes.total() < count:
                self._changed.clear()
                await self._changed.wait()
        return dict(self.outcomes)


async def begin(start: Start, *texts: str) -> tuple[Hooks, Counts]:
    hooks, counts = await start(*texts), Counts()
    hooks.shadows.counts = counts
    return hooks, counts


async def admit(hooks: Hooks, one: Upload) -> Exception | None:
    try:
        await hooks.admit_upload(one)
    except Refusal as refusal:
        return refusal
    return None


@pytest.mark.parametrize(
    ("real", "shadow", "outcome"),
    [
        ("pass", "pass", "agreed"),
        ("event['path'] = '/b'", "event['path'] = '/b'", "agreed"),
        ("event['path'] = '/b'", "event['path'] = '/c'", "differed"),
        ("event['max_bytes'] = 3", "pass", "differed"),
        ("pass", "event['on_conflict'] = 'reject'", "differed"),
        ("pass", "handle.terminate(403)", "differed"),
        ("handle.terminate(403, 'a')", "handle.terminate(403, 'b')", "agreed"),
        ("handle.terminate(401)", "handle.terminate(403)", "differed"),
        ("raise ValueError", "raise KeyError", "agreed"),
        ("pass", "raise KeyError", "differed"),
        ("handle.terminate(403)", "event['path'] = 5", "differed"),
        ("await asyncio.sleep(0.05)", "pass", "agreed"),
        ("pass", "await asyncio.sleep(0.05)", "agreed"),
    ],
)
async def test_the_decision_of_a_shadow_is_compared(
    start: Start, real: str, shadow: str, outcome: str
) -> None:
    hooks, counts = await begin(start, plugin("a", real), plugin("z", shadow, more=SHADOW))
    one, alone = upload(), upload()
    refused = await admit(hooks, one)
    assert await counts.of(hooks) == {f"z {outcome}": 1}
    without = await start(plugin("a", real), "")
    assert repr(await admit(without, alone)) == repr(refused)
    assert one == alone


async def test_a_difference_is_logged_with_both_decisions_and_without_secrets(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.shadow")
    body = "event['path'] = '/x-hunter2'\nif event['path'] == '/x-hunter2': raise ValueError('hunter2')"
    config = "name: keys\nconfig: {key: '${file:key}'}\n"
    hooks, counts = await begin(start, plugin("a", "event['path'] = '/b'"))
    del config
    hooks._plugins.mask.add_secrets(["hunter2"])
    hooks, counts = await begin(
        start, plugin("a", "event['path'] = '/b'"), plugin("z", body, more=SHADOW)
    )
    hooks._plugins.mask.add_secrets(["hunter2"])
    await admit(hooks, upload())
    await counts.of(hooks)
    (record,) = caplog.records
    assert record.event == "shadow.differed"  # type: ignore[attr-defined]
    assert "what counts: accepted path='/b'" in caplog.text
    assert "failed: ValueError: [redacted]" in caplog.text
    assert "hunter2" not in caplog.text


async def test_without_real_handlers_the_default_authorization_is_what_counts(start: Start) -> None:
    hooks, counts = await begin(start, plugin("z", "handle.terminate(401)", more=SHADOW))
    assert not hooks.has_handlers(UPLOADING)
    assert not hooks.replaces_authorization()
    assert await admit(hooks, upload()) is None
    assert await counts.of(hooks) == {"z differed": 1}
    hooks.shadows.beside_default(UPLOADING, upload(), Refusal("unauthorized", "no"))
    assert await counts.of(hooks, 2) == {"z differed": 1, "z agreed": 1}


async def test_a_shadow_that_keeps_the_default_authorization_is_not_asked_after_its_refusal(
    start: Start,
) -> None:
    keeping = plugin("keeps", "pass", more=SHADOW + "authorization: keep\n")
    hooks, counts = await begin(start, keeping, plugin("z", "pass", more=SHADOW))
    hooks.shadows.beside_default(UPLOADING, upload(), Refusal("unauthorized", "no"))
    assert await counts.of(hooks) == {"z differed": 1}


async def test_a_shadow_gets_a_copy_of_the_event_as_it_was_before_the_real_handlers(
    start: Start,
) -> None:
    hooks, counts = await begin(
        start,
        plugin("a", "event['path'] = '/changed'; event['headers'].clear()"),
        plugin("z", "assert event['path'] == '/upload/a' and event['headers']", more=SHADOW),
    )
    await admit(hooks, upload())
    assert await counts.of(hooks) == {"z differed": 1}  # in the path alone: it did not fail


async def test_a_shadow_that_blocks_its_thread_delays_no_decision(start: Start) -> None:
    blocking = plugin("z", "time.sleep(0.5)", more=SHADOW)
    hooks, counts = await begin(start, plugin("a", "event['path'] = '/b'"), blocking)
    began = asyncio.get_running_loop().time()
    await admit(hooks, upload())
    assert not counts.outcomes
    assert asyncio.get_running_loop().time() - began < 0.5
    assert await counts.of(hooks) == {"z differed": 1}


async def test_more_shadows_than_may_run_are_skipped(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.plugins.shadow_runs.MAX_SHADOWS", 1)
    hooks, counts = await begin(
        start, plugin("y", "await asyncio.sleep(0.05)", more=SHADOW), plugin("z", "pass", more=SHADOW)
    )
    await admit(hooks, upload())
    assert await counts.of(hooks, 2) == {"z skipped": 1, "y agreed": 1}


async def test_what_ends_without_a_decision_is_not_compared(start: Start) -> None:
    hooks, counts = await begin(
        start, plugin("a", "await asyncio.sleep(30)"), plugin("z", "pass", more=SHADOW)
    )
    task = asyncio.create_task(hooks.admit_upload(upload()))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not counts.outcomes


def test_an_overload_is_no_decision_and_a_failed_handler_is_one() -> None:
    event = Event({"path": "/upload/a"})
    assert real_verdict(event, None, Refusal("overloaded", "later")) is None
    assert real_verdict(event, None, ConnectionError()) is None
    failed = real_verdict(event, None, Refusal("hook_failed", "later"))
    assert (failed and failed.outcome) == "failed"


@pytest.mark.parametrize("archive", [None, "zip"])
async def test_downloads_are_compared_with_their_archives(start: Start, archive: Any) -> None:
    hooks, counts = await begin(start, plugin("z", "pass", DOWNLOADING, SHADOW))
    download = Download(id="d-0", path="/upload/a", archive=archive)
    assert await hooks.admit_download(download) is None
    assert await counts.of(hooks) == {"z differed" if archive else "z agreed": 1}


async def test_listings_are_compared(start: Start) -> None:
    hooks, counts = await begin(
        start,
        plugin("a", "handle.terminate(404)", LISTING),
        plugin("z", "handle.terminate(404)", LISTING, SHADOW),
    )
    with pytest.raises(Terminated):
        await hooks.admit_listing(FileRequest(id="l-0", path="/upload/"))
    assert await counts.of(hooks) == {"z agreed": 1}
