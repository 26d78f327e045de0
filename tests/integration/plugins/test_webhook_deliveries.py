"""Webhooks of journalled events: what is sent, and what each answer, and none, means."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from gateway.domain.model import OBJECT_CREATED, UPLOAD_FAILED, UPLOADED, Delivery, Upload
from gateway.errors import HandlerFailed
from gateway.plugins.hooks import Hooks
from gateway.plugins.scripting import http_sessions
from tests.integration.plugins.conftest import StartHooks, webhook
from tests.support.harness import self_signed_certificate
from tests.support.webhook_receiver import OLD_SECRET, SECRET, Hang, WebhookReceiver, answer

ID = "01JZZZZZZZAAAAAAAAAAAAAAAA-0"
EVENT: dict[str, Any] = {"id": ID, "path": "/upload/ä.bin", "attempt": 1, "headers": {"A-B": "c"}}


async def failure(hooks: Hooks, event: str = UPLOADED, **values: Any) -> HandlerFailed | None:
    """Run the webhook; return why it has to run again."""
    delivery = Delivery(1, ID, None, event, "notify", 1, {}, created=1_700_000_000.25)
    error = (await hooks.run_delivery(delivery, {**EVENT, **values})).error
    assert error is None or isinstance(error, HandlerFailed)
    return error


async def test_an_event_is_sent_signed_and_another_library_verifies_it(
    start: StartHooks, receiver: WebhookReceiver
) -> None:
    text = webhook(receiver, UPLOADED, keys="  headers: {X-Team: storage}\n")
    text = text.replace(f"secret: {SECRET}", f"secret: [{SECRET}, {OLD_SECRET}]")
    hooks = await start(text)
    assert await failure(hooks) is None
    sent = await receiver.next()
    for secret in (SECRET, OLD_SECRET):
        Webhook(secret).verify(sent.body, sent.headers)
    assert sent.line == "POST /hooks/files?key=in-the-query HTTP/1.1"
    assert sent.headers["webhook-id"] == ID
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["x-team"] == "storage"
    message = {"type": UPLOADED, "timestamp": "2023-11-14T22:13:20.250Z", "data": EVENT}
    assert sent.message == message


async def test_each_event_of_a_webhook_says_which_it_is(
    start: StartHooks, receiver: WebhookReceiver
) -> None:
    hooks = await start(webhook(receiver, f"{UPLOADED}, {OBJECT_CREATED}"))
    for event in (OBJECT_CREATED, UPLOADED):
        assert await failure(hooks, event) is None
        assert (await receiver.next()).message["type"] == event
    assert len(hooks.handler_specs()) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (answer(500, b"boom"), "the receiver answered 500"),
        (answer(404), "the receiver answered 404"),
        (answer(301, b"", "Location: /elsewhere"), "redirects are not followed"),
        (answer(307, b"", "Location: http://127.0.0.1:1/"), "redirects are not followed"),
        (b"", "the receiver did not answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "the receiver did not answer"),
        (b"220 mail.example ESMTP\r\n", "the receiver did not answer in HTTP"),
        (Hang(), "not finished within 1 s"),
        (Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), "not finished within 1 s"),
        (answer(200, b"x" * 65537), "the answer is larger than 65536 bytes"),
    ],
)
async def test_what_is_no_success_is_a_failed_run(
    start: StartHooks, receiver: WebhookReceiver, given: bytes | Hang, message: str
) -> None:
    receiver.answers = [given, answer(204)]
    limit = "timeout: 1\n" if isinstance(given, Hang) else ""
    hooks = await start(webhook(receiver, UPLOADED, more=limit))
    failed = await failure(hooks)
    assert failed is not None
    assert message in str(failed)
    assert "in-the-query" not in str(failed)
    assert not failed.final
    first = await receiver.next()
    assert await failure(hooks, attempt=2) is None  # the next run may succeed
    again = await receiver.next()
    assert again.headers["webhook-id"] == first.headers["webhook-id"]
    Webhook(SECRET).verify(again.body, again.headers)


async def test_a_receiver_that_is_not_there_is_a_failed_run(
    start: StartHooks, receiver: WebhookReceiver
) -> None:
    hooks = await start(webhook(receiver, UPLOADED).replace(str(receiver.port), "1"))
    failed = await failure(hooks)
    assert "the receiver did not answer: ClientConnectorError" in str(failed)
    assert "in-the-query" not in str(failed)


async def test_a_receiver_with_too_many_open_requests_gets_no_further_one(
    start: StartHooks, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_sessions, "MAX_CALLS", 0)
    failed = await failure(await start(webhook(receiver, UPLOADED)))
    assert "too many requests to this receiver have no answer yet" in str(failed)
    assert receiver.received.empty()


async def test_what_a_receiver_says_of_its_failure_is_kept_and_masked(
    start: StartHooks, receiver: WebhookReceiver
) -> None:
    receiver.answers = [answer(503, f"no room for {SECRET}".encode(), "Retry-After: 120")]
    failed = await failure(await start(webhook(receiver, UPLOADED)))
    assert failed is not None
    assert failed.traceback == "the response: no room for [redacted]\n"
    assert failed.retry_after == 120


async def test_a_receiver_that_is_gone_wants_no_further_attempt(
    start: StartHooks, receiver: WebhookReceiver
) -> None:
    receiver.answers = [answer(410)]
    failed = await failure(await start(webhook(receiver, UPLOADED)))
    assert failed is not None
    assert failed.final


async def test_a_failed_upload_is_told_once_and_best_effort(
    start: StartHooks, receiver: WebhookReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.hooks")
    receiver.answers = [answer(500)]
    hooks = await start(webhook(receiver, UPLOAD_FAILED))
    hooks.notify_upload_failed(Upload(id=ID, path="/upload/a"), "incomplete_body", 3)
    message = (await receiver.next()).message
    assert (message["type"], message["data"]["reason"]) == (UPLOAD_FAILED, "incomplete_body")
    await hooks.close(5)
    assert receiver.received.empty()
    assert "handler notify" in caplog.text


async def test_a_connection_that_the_receiver_has_closed_meanwhile_is_replaced(
    start: StartHooks, receiver: WebhookReceiver
) -> None:
    """The receiver keeps a connection open, and hangs up when it is used again."""
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):  # the test ends
            for responds in (True, False):
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n" if responds else b"")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    hooks = await start(webhook(receiver, UPLOADED).replace(str(receiver.port), str(port)))
    try:
        for _ in range(3):
            assert await failure(hooks) is None
        assert len(connections) == 3
    finally:
        server.close()
        for connection in connections:
            connection.close()
            with contextlib.suppress(ConnectionError):
                await connection.wait_closed()


async def test_a_certificate_that_nobody_vouches_for_is_a_failed_run(
    start: StartHooks, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*self_signed_certificate(tmp_path))
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    text = webhook(receiver, UPLOADED).replace(
        f"http://127.0.0.1:{receiver.port}", f"https://localhost:{port}"
    )
    try:
        failed = await failure(await start(text))
    finally:
        server.close()
    assert "ClientConnectorCertificateError" in str(failed)
    assert receiver.received.empty()
