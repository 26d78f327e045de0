"""Deliveries of held uploads in a process: what waits for a handler that is gone is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.domain.model import RECEIVED, Delivery, HandlerSpec
from gateway.events.dispatch import RunResult, SubmittedRun
from gateway.files.private import PrivateFiles
from gateway.server import held as held_server
from gateway.server.held import HeldDelivery
from gateway.telemetry.metrics import Metrics
from tests.support.committer import CommitterHarness
from tests.support.harness import wait_until
from tests.support.held import HeldHarness


class Dispatcher:
    """Runs that do not end."""

    def slots(self, spec: HandlerSpec) -> int:
        return 1

    def submit(self, delivery: Delivery, done: Callable[[RunResult], None]) -> SubmittedRun:
        return asyncio.get_running_loop().create_future()


async def test_an_upload_whose_handler_a_reload_removed_before_it_was_held_is_told_of(
    harness: CommitterHarness,
    held: HeldHarness,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(held_server, "ORPHANS_INTERVAL", 0.01)
    specs = [HandlerSpec(name, RECEIVED, 1.0) for name in ("a", "new")]
    resources: Any = SimpleNamespace(
        journal=harness.journal,
        parts=SimpleNamespace(held=held.decisions),
        scripts=SimpleNamespace(files=SimpleNamespace(private=PrivateFiles())),
        hooks=SimpleNamespace(holding_specs=lambda: specs, shadows=SimpleNamespace(held=None)),
    )
    dispatcher: Any = Dispatcher()
    delivery = HeldDelivery(resources, dispatcher, Metrics())
    await delivery.start()
    try:
        specs.remove(specs[0])
        await delivery.refresh()
        told = await held.hold(handlers=("a",))
        loaded = await held.hold("/y", handlers=("new",))
        await wait_until(lambda: held.event_states(told) == {"a": "dead"})
        assert held.state(told) == "undecided"
        assert held.event_states(loaded)["new"] in {"ready", "running"}
        await wait_until(lambda: "stay held until somebody decides" in caplog.text)
    finally:
        await delivery.stop(0.0)
