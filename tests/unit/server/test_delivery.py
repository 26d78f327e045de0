"""Tests of gateway.server.delivery: what the end of a run means for its delivery."""

from __future__ import annotations

from typing import Any, cast

import pytest

from gateway.domain.model import UPLOADED, Delivery
from gateway.errors import HandlerFailed, HandlerGone, PeerUnavailable
from gateway.events.protocols import RunResult
from gateway.files.service import FilesService
from gateway.plugins.hooks import Hooks
from gateway.server.delivery import PluginDispatcher

DELIVERY = Delivery(0, "e", "u", UPLOADED, "h", 2, {"path": "/a"})
FAILED = HandlerFailed("it failed", "the traceback")


class FakeHooks:
    """Hooks whose runs end with `error`."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.events: list[dict[str, Any]] = []

    async def run_delivery(self, _: Delivery, event: dict[str, Any]) -> None:
        self.events.append(event)
        if self.error is not None:
            raise self.error


class FakeFiles:
    """Files whose owner was unavailable, or None."""

    def __init__(self, unavailable: PeerUnavailable | None) -> None:
        self.unavailable = unavailable

    async def event_for(self, delivery: Delivery) -> dict[str, Any]:
        return {**delivery.body, "attempt": delivery.attempt}

    def unavailable_owner(self, _: Delivery, error: HandlerFailed) -> PeerUnavailable | None:
        return self.unavailable


def dispatcher(hooks: FakeHooks, unavailable: PeerUnavailable | None = None) -> PluginDispatcher:
    return PluginDispatcher(cast("Hooks", hooks), cast("FilesService", FakeFiles(unavailable)))


@pytest.mark.parametrize(
    ("error", "unavailable", "result"),
    [
        (None, None, RunResult("succeeded")),
        (HandlerGone("no h"), None, RunResult("gone", "no h")),
        (FAILED, None, RunResult("failed", "it failed\nthe traceback")),
        (FAILED, PeerUnavailable("no b:1"), RunResult("postponed", "no b:1")),
        (PeerUnavailable("no b:1"), None, RunResult("postponed", "no b:1")),
    ],
)
async def test_each_end_of_a_run_has_its_outcome(
    error: Exception | None, unavailable: PeerUnavailable | None, result: RunResult
) -> None:
    hooks = FakeHooks(error)
    assert await dispatcher(hooks, unavailable).run(DELIVERY) == result
    assert hooks.events == [{"path": "/a", "attempt": 2}]


async def test_a_defect_of_the_gateway_is_no_outcome_of_the_handler() -> None:
    with pytest.raises(KeyError):
        await dispatcher(FakeHooks(KeyError("x"))).run(DELIVERY)
