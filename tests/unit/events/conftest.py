"""A journal in a folder of its own, and a runner on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.events import handler_consumer
from gateway.events.handler_consumer import EngineBackoff
from gateway.events.journal import Journal
from tests.support.journal import journal
from tests.support.runner_bench import RunnerBench
from tests.support.step_counter import counter

__all__ = ["counter", "journal"]


@pytest.fixture(params=["submitted", "awaited"])
async def bench(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[RunnerBench]:
    """A runner on the journal, for both ways in which it runs a delivery."""
    monkeypatch.setattr(handler_consumer, "CLAIM_TIMEOUT", 1e6)
    monkeypatch.setattr(EngineBackoff, "MAX_DELAY", 0.001)
    made = RunnerBench(journal)
    made.submits = request.param == "submitted"
    yield made
    await made.stop(0)
