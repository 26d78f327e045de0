"""Which processes react: silence is noticed, and nobody is blamed for the supervisor's own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.events.journal import Journal
from gateway.server.heartbeat import (
    HEARTBEAT_INTERVAL,
    HEARTBEAT_TIMEOUT,
    HeartbeatMonitor,
    report_heartbeats,
)


class Watch:
    """A monitor of the processes 0 and 1, with a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.monitor = HeartbeatMonitor(lambda: self.now)
        for slot in (0, 1):
            self.monitor.note_heartbeat(slot)

    def pass_time(self, seconds: float, *reacting: int) -> list[int]:
        """Let time pass while these processes report, and the supervisor looks; return whom it finds."""
        found: list[int] = []
        until = self.now + seconds
        while self.now < until:
            self.now += HEARTBEAT_INTERVAL
            for slot in reacting:
                self.monitor.note_heartbeat(slot)
            found += self.monitor.check()
        return found


def test_a_process_that_is_silent_for_long_is_found_once() -> None:
    watch = Watch()
    assert watch.pass_time(HEARTBEAT_TIMEOUT - HEARTBEAT_INTERVAL, 0) == []
    assert watch.pass_time(10 * HEARTBEAT_TIMEOUT, 0) == [1]
    assert watch.monitor.unresponsive == {1}


def test_a_process_that_reports_again_has_recovered() -> None:
    watch = Watch()
    watch.pass_time(2 * HEARTBEAT_TIMEOUT, 0)
    assert watch.monitor.note_heartbeat(1)
    assert not watch.monitor.note_heartbeat(1)
    assert watch.monitor.unresponsive == frozenset()
    assert watch.pass_time(2 * HEARTBEAT_TIMEOUT, 0) == [1]


def test_a_process_that_has_ended_is_not_watched() -> None:
    watch = Watch()
    watch.pass_time(2 * HEARTBEAT_TIMEOUT, 0)
    watch.monitor.forget(1)
    assert watch.monitor.unresponsive == frozenset()
    assert watch.pass_time(2 * HEARTBEAT_TIMEOUT, 0) == []


def test_nobody_is_late_after_a_time_in_which_the_supervisor_did_not_run() -> None:
    watch = Watch()
    watch.now += 10 * HEARTBEAT_TIMEOUT
    assert watch.monitor.check() == []
    assert watch.pass_time(HEARTBEAT_TIMEOUT - HEARTBEAT_INTERVAL) == []
    assert watch.pass_time(2 * HEARTBEAT_INTERVAL) == [0, 1]


async def test_no_heartbeat_is_reported_while_the_thread_of_the_journal_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.server.heartbeat.HEARTBEAT_INTERVAL", 0.0)
    journal = Journal(tmp_path / "journal.db")
    journal.open()
    beats = asyncio.Queue[None]()
    reporting = asyncio.create_task(report_heartbeats(journal.ledger, lambda: beats.put_nowait(None)))
    async with asyncio.timeout(30):
        await beats.get()
        go_on = asyncio.Event()
        loop = asyncio.get_running_loop()
        hanging = journal._database.submit(
            lambda db: asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
        )
        while not hanging.running():
            await asyncio.sleep(0)
        while not beats.empty():
            beats.get_nowait()
        for _ in range(100):
            await asyncio.sleep(0)
        assert beats.qsize() <= 1  # the one whose turn in the thread was before
        go_on.set()
        for _ in range(3):
            await beats.get()
        reporting.cancel()
        await asyncio.to_thread(journal.close)
