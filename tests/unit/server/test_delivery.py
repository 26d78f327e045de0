"""Tests of gateway.server.delivery: what the end of a run means for its delivery."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from gateway.domain.held import Decision
from gateway.domain.model import UPLOADED, Delivery
from gateway.errors import HandlerFailed, HandlerGone, PeerUnavailable
from gateway.events.dispatch import RunResult
from gateway.files.service import FilesService
from gateway.plugins.delivery_runs import DeliveryOutcome
from gateway.plugins.hooks import Hooks
from gateway.server.delivery import PluginDispatcher

DELIVERY = Delivery(0, "e", "u", UPLOADED, "h", 2, {"path": "/a"})
FAILED = HandlerFailed("it failed", "the traceback")


class FakeHooks:
    """Hooks whose runs end with `error`, and leave something."""

    def __init__(
        self,
        error: Exception | None,
        left: dict[str, Any] | None = None,
        decision: Decision | None = None,
    ) -> None:
        self.error = error
        self.left = left
        self.decision = decision
        self.events: list[dict[str, Any]] = []

    def submit_delivery(
        self, _: Delivery, event: dict[str, Any], done: Callable[[DeliveryOutcome], None]
    ) -> None:
        self.events.append(event)
        done(DeliveryOutcome(self.error, self.left, self.decision))

    async def run_delivery(self, _: Delivery, event: dict[str, Any]) -> DeliveryOutcome:
        self.events.append(event)
        return DeliveryOutcome(self.error, self.left, self.decision)


class FakeFiles:
    """Files whose owner was unavailable, or None."""

    def __init__(self, unavailable: PeerUnavailable | None) -> None:
        self.unavailable = unavailable

    def event_now(self, delivery: Delivery) -> dict[str, Any] | None:
        if delivery.holder is not None:
            return None
        return {**delivery.body, "attempt": delivery.attempt}

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
    results = [await dispatcher(hooks, unavailable).run(DELIVERY)]
    submitted = dispatcher(hooks, unavailable).submit(DELIVERY, results.append)
    assert submitted is not None
    submitted.cancel()
    assert results == [result, result]
    assert hooks.events == [{"path": "/a", "attempt": 2}] * 2


async def test_what_a_handler_left_and_decided_is_in_the_result_of_its_run() -> None:
    decision = Decision(path="/b")
    assert await dispatcher(FakeHooks(None, {"a": 1}, decision)).run(DELIVERY) == RunResult(
        "succeeded", "", {"a": 1}, decision
    )
    failed = await dispatcher(FakeHooks(FAILED, {"a": 1})).run(DELIVERY)
    assert failed == RunResult("failed", "it failed\nthe traceback", {"a": 1})


async def test_a_defect_of_the_gateway_is_a_failed_run() -> None:
    failed = RunResult("failed", "the gateway failed: KeyError")
    results = [await dispatcher(FakeHooks(KeyError("x"))).run(DELIVERY)]
    dispatcher(FakeHooks(KeyError("x"))).submit(DELIVERY, results.append)
    assert results == [failed, failed]


def test_a_delivery_whose_file_has_to_be_looked_for_is_not_submitted() -> None:
    hooks, results = FakeHooks(None), list[RunResult]()
    assert dispatcher(hooks).submit(replace(DELIVERY, holder="b:1"), results.append) is None
    assert (hooks.events, results) == ([], [])


def test_a_run_ends_even_where_its_error_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise AttributeError("no host")

    monkeypatch.setattr(FakeFiles, "unavailable_owner", fails)
    results: list[RunResult] = []
    dispatcher(FakeHooks(FAILED)).submit(DELIVERY, results.append)
    assert results == [RunResult("failed", "the gateway failed: AttributeError")]
