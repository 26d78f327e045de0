"""Deliveries from memory in a running gateway: the event, the log context and the slots of each run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.domain.model import UPLOADED
from gateway.events.memory_queue import FirstRun
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import get, put, wait_settled, wait_until
from tests.support.recorders import captured_log, write_handler


class Received:
    """The runs that a gateway got without a claim."""

    def __init__(self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs: list[FirstRun] = []
        self._real = gateway.delivery.runner.receive
        monkeypatch.setattr(gateway.delivery.runner, "receive", self.receive)

    def receive(self, runs: Sequence[FirstRun]) -> None:
        self.runs += runs
        self._real(runs)


async def caught_up(gateway: Gateway, handler: str) -> None:
    """Wait until what is uploaded for a handler stays in memory."""
    memory = gateway.resources.journal.queue.memory
    assert memory is not None

    async def is_caught_up() -> bool:
        return not memory._shares[handler].behind

    await wait_until(is_caught_up)


async def test_each_run_has_the_log_fields_of_its_own_delivery(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "print('run', event['upload_id'], event['id'], event['attempt'])"
    with captured_log() as lines:
        gateway = await start_gateway(
            plugins=write_handler(tmp_path / "plugins", body, event=UPLOADED), auth="none"
        )
        received = Received(gateway, monkeypatch)
        await caught_up(gateway, "hook")
        answers = await asyncio.gather(*(put(gateway, f"/upload/{n}", b"1") for n in range(20)))
        await wait_settled(gateway)
    assert len(received.runs) == 20
    finished = [line for line in lines if line["event"] == "handler.finished"]
    assert sorted(line["upload_id"] for line in finished) == sorted(a.json["upload_id"] for a in answers)
    assert {line["event_id"] for line in finished} == {run.event.id for run in received.runs}
    assert {line["attempt"] for line in finished} == {1}


async def test_a_run_from_memory_that_is_over_its_time_is_tried_again_alone(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "if event['path'].endswith('slow') and event['attempt'] == 1: await asyncio.sleep(60)"
    more = "timeout: 0.2\nretry: {backoff: 0.01}\n"
    gateway = await start_gateway(
        plugins=write_handler(tmp_path / "plugins", body, event=UPLOADED, more=more), auth="none"
    )
    received = Received(gateway, monkeypatch)
    await caught_up(gateway, "hook")
    names = ("slow", "a", "b")
    answers = await asyncio.gather(*(put(gateway, f"/upload/{name}", b"1") for name in names))
    await wait_settled(gateway)
    assert len(received.runs) == 3
    outcomes = []
    for answer in answers:
        upload = (await get(gateway, f"/-/uploads/{answer.json['upload_id']}")).json
        [handler] = upload["handlers"]
        outcomes.append([run["outcome"] for run in handler["runs"]])
    assert outcomes == [["retry", "done"], ["done"], ["done"]]


async def test_a_slow_handler_takes_nothing_from_a_quick_one(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, slow = tmp_path / "plugins", "await asyncio.sleep(60)"
    write_handler(folder, slow, name="slow", event=UPLOADED, more="concurrency: 1\n")
    folders = write_handler(folder, "pass", name="quick", event=UPLOADED)
    gateway = await start_gateway(plugins=folders, auth="none", grace="0")
    received = Received(gateway, monkeypatch)
    await caught_up(gateway, "slow")
    await caught_up(gateway, "quick")
    await asyncio.gather(*(put(gateway, f"/upload/{n}", b"1") for n in range(50)))
    journal = gateway.resources.journal

    async def done() -> bool:
        return not [depth for depth in await journal.ledger.depth() if depth.handler == "quick"]

    await wait_until(done)
    by_handler = [run.handler for run in received.runs]
    assert by_handler.count("quick") == 50
