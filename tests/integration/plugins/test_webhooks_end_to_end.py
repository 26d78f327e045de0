"""Webhooks of a gateway on real sockets: tried again, dead, replayed, paused; and what they decide."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from standardwebhooks import Webhook

from gateway.domain.model import DELETED, RECEIVED, UPLOAD_FAILED, UPLOADED, UPLOADING
from tests.conftest import StartGateway
from tests.integration.plugins.conftest import webhook
from tests.support.cli import Ask, listed
from tests.support.harness import files_below, get, put, raw_connection, request_head, wait_until
from tests.support.webhook_receiver import SECRET, WebhookReceiver, answer

RETRY = "retry: {attempts: 2, backoff: 0.01, max_backoff: 0.02}\n"


def write(folder: Path, text: str, name: str = "hook.yaml") -> list[str]:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return [str(folder)]


async def states_are(ask: Ask, states: list[str]) -> bool:
    return [row["state"] for row in await listed(ask)] == states


async def test_a_delivery_is_tried_again_dies_is_replayed_and_paused_for_all_events_of_a_webhook(
    start_gateway: StartGateway, tmp_path: Path, receiver: WebhookReceiver, ask: Ask
) -> None:
    receiver.answers = [answer(500, b"down"), answer(302, b"", "Location: /x"), answer(204)]
    text = webhook(receiver, f"{UPLOADED}, {DELETED}", keys="  prefix: /upload/a/\n", more=RETRY)
    gateway = await start_gateway(plugins=write(tmp_path / "p", text), deletes=True)
    assert (await put(gateway, "/upload/b/x", b"not told")).status == 201
    assert (await put(gateway, "/upload/a/x", b"told")).status == 201
    first, second = await receiver.next(), await receiver.next()
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert [one.message["data"]["attempt"] for one in (first, second)] == [1, 2]
    assert first.message["timestamp"] == second.message["timestamp"]
    await wait_until(partial(states_are, ask, ["dead"]))
    (row,) = await listed(ask, "--handler", "notify")
    assert row["event_id"] == first.headers["webhook-id"]
    assert "redirects are not followed" in row["error"]
    for verb in ("retry", "replay"):
        assert (await ask(verb, row["event_id"]))[0] == 0
        again = await receiver.next()
        Webhook(SECRET).verify(again.body, again.headers)
        assert again.headers["webhook-id"] == row["event_id"]
        await wait_until(partial(states_are, ask, ["done"]))

    assert (await ask("pause", "--handler", "notify"))[0] == 0
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("DELETE", "/upload/a/x"))
        assert (await connection.answer()).status == 204
    assert (await put(gateway, "/upload/a/y", b"later")).status == 201
    assert sorted(row["state"] for row in await listed(ask)) == ["done", "ready", "ready"]
    assert receiver.received.empty()
    assert (await ask("resume", "--handler", "notify"))[0] == 0
    told = [(await receiver.next()).message for _ in range(2)]
    assert sorted(message["type"] for message in told) == [DELETED, UPLOADED]


async def test_an_answer_that_says_gone_makes_a_delivery_dead_at_once(
    start_gateway: StartGateway, tmp_path: Path, receiver: WebhookReceiver, ask: Ask
) -> None:
    receiver.answers = [answer(410)]
    gateway = await start_gateway(plugins=write(tmp_path / "p", webhook(receiver, UPLOADED)))
    assert (await put(gateway, "/upload/x", b"a")).status == 201
    await wait_until(partial(states_are, ask, ["dead"]))
    assert [row["attempt"] for row in await listed(ask)] == [1]


async def test_a_receiver_decides_about_uploads_and_whole_files_while_the_client_waits(
    start_gateway: StartGateway, tmp_path: Path, receiver: WebhookReceiver
) -> None:
    accepted = answer(200, b'{"path": "/upload/moved", "result": {"checked": true}}')
    receiver.answers = [answer(200), accepted, answer(200), answer(422, b"infected"), answer(500)]
    text = webhook(receiver, f"{UPLOADING}, {RECEIVED}", keys="  decide: true\n")
    gateway = await start_gateway(plugins=write(tmp_path / "p", text), auth="token")
    stored = await put(gateway, "/upload/x", b"good")
    assert (stored.status, stored.json["result"]) == (201, {"checked": True})
    kinds = [(await receiver.next()).message["type"] for _ in range(2)]
    assert kinds == [UPLOADING, RECEIVED]
    refused = await put(gateway, "/upload/y", b"bad")
    assert (refused.status, refused.body) == (422, b"infected")
    failed = await put(gateway, "/upload/z", b"?")
    assert (failed.status, failed.json["error"]) == (503, "hook_failed")
    assert files_below(tmp_path / "data/upload") == {"moved": b"good"}


async def test_a_receiver_decides_about_held_files_with_retries(
    start_gateway: StartGateway, tmp_path: Path, receiver: WebhookReceiver
) -> None:
    receiver.answers = [answer(503), answer(200, b'{"path": "/upload/in"}'), answer(403, b"no")]
    keys, more = "  decide: true\n", "hold: true\nretry: {backoff: 0.01}\n"
    write(tmp_path / "p", webhook(receiver, RECEIVED, keys=keys, more=more))
    plugins = write(
        tmp_path / "p",
        webhook(receiver, UPLOAD_FAILED).replace("name: notify", "name: failed"),
        "failed.yaml",
    )
    gateway = await start_gateway(plugins=plugins)
    held = await put(gateway, "/upload/x", b"first")
    assert held.status == 202
    assert [(await receiver.next()).message["data"]["attempt"] for _ in range(2)] == [1, 2]

    async def told(upload_id: str, state: str) -> bool:
        return bool((await get(gateway, f"/-/uploads/{upload_id}")).json["state"] == state)

    await wait_until(lambda: told(held.json["upload_id"], "stored"))
    other = await put(gateway, "/upload/y", b"second")
    assert other.status == 202
    await wait_until(lambda: told(other.json["upload_id"], "rejected"))
    assert (await receiver.next()).message["type"] == RECEIVED
    failed = (await receiver.next()).message
    assert (failed["type"], failed["data"]["reason"]) == (UPLOAD_FAILED, "rejected")
    assert files_below(tmp_path / "data/upload") == {"in": b"first"}
