"""Hooks with plugins, for the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.model import Delivery
from gateway.endpoints.routing.plugin import routing_kind
from gateway.plugins import KINDS, Plugins
from gateway.plugins.delivery_runs import DeliveryOutcome
from gateway.plugins.hooks import Hooks
from gateway.plugins.scripting.namespace import Services

Start = Callable[..., Awaitable[Hooks]]
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
    running: list[tuple[Hooks, Plugins]] = []

    async def begin(*texts: str, folder: Path = tmp_path) -> Hooks:
        for number, text in enumerate(texts):
            (tmp_path / f"{number}.yaml").write_text(text)
        plugins = Plugins([folder], Services(), EVERY_KIND)
        plugins.load()
        hooks = Hooks(plugins)
        running.append((hooks, plugins))
        await hooks.start()
        return hooks

    yield begin
    for hooks, plugins in running:
        await hooks.close(0)
        plugins.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call an executor stuck after 0.2 s rather than 1 s."""
    monkeypatch.setattr("gateway.plugins.scripting.executor.REACTION_TIMEOUT", 0.2)
