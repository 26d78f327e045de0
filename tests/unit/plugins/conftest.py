"""Hooks with plugins, for the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.model import Delivery
from gateway.endpoints.routing.loading.plugin import routing_kind
from gateway.plugins import KINDS
from gateway.plugins.delivery_runs import DeliveryOutcome
from gateway.plugins.hooks import Hooks
from tests.support.plugin_hooks import StartHooks, running_hooks

Start = StartHooks
EVERY_KIND = (*KINDS, routing_kind("/upload/{filepath}"))


async def deliver(hooks: Hooks, delivery: Delivery, event: dict[str, Any]) -> DeliveryOutcome:
    """Wait for the outcome of a delivery; raises its error."""
    outcome = await hooks.run_delivery(delivery, event)
    if outcome.error is not None:
        raise outcome.error
    return outcome


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start hooks with these plugins, one file `0.yaml`, `1.yaml` ... each."""
    async with running_hooks(tmp_path, EVERY_KIND) as begin:
        yield begin


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call an executor stuck after 0.2 s rather than 1 s."""
    monkeypatch.setattr("gateway.plugins.scripting.executor.REACTION_TIMEOUT", 0.2)
