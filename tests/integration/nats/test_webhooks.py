"""Webhooks whose events go through NATS, and are sent by a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from gateway.domain.model import DELETED, UPLOADED
from tests.conftest import StartGateway
from tests.integration.nats.test_worker import StartWorker, worker
from tests.support.harness import put, raw_connection, request_head, write_plugin
from tests.support.nats.servers import Server
from tests.support.webhook_receiver import SECRET, WebhookReceiver, answer, running_receiver

__all__ = ["worker"]


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with running_receiver() as running:
        yield running


async def test_a_worker_sends_each_event_of_a_webhook_and_tries_again(
    start_gateway: StartGateway,
    server: Server,
    worker: StartWorker,
    receiver: WebhookReceiver,
    tmp_path: Path,
) -> None:
    receiver.answers = [answer(503), answer(200)]
    text = (
        "name: tell-them\nretry: {attempts: 3, backoff: 0.05, max_backoff: 0.1}\nwebhook:\n"
        f"  url: {receiver.url}\n  events: [{UPLOADED}, {DELETED}]\n  secret: {SECRET}\n"
    )
    folder = str(write_plugin(tmp_path / "plugins", text))
    gateway = await start_gateway(events=server.url, plugins=[folder], deliver="workers", deletes=True)
    assert "for 1 handler, " in worker("sender").said
    assert (await put(gateway, "/upload/x", b"a")).status == 201
    first, second = await receiver.next(), await receiver.next()
    for sent in (first, second):
        Webhook(SECRET).verify(sent.body, sent.headers)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert [one.message["data"]["attempt"] for one in (first, second)] == [1, 2]
    assert first.message["timestamp"] == second.message["timestamp"]
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("DELETE", "/upload/x"))
        assert (await connection.answer()).status == 204
    assert (await receiver.next()).message["type"] == DELETED
