"""`POST /-/notifications` on a real socket: who gets in, what is answered, what survives kill -9."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.model import OBJECT_CREATED
from gateway.endpoints.notifications.handler import MAX_BODY, SIGNATURE
from gateway.errors import ConfigError
from gateway.server.app import Gateway
from tests.conftest import StartGateway, StartProcess
from tests.support.harness import (
    GatewayProcess,
    RawResponse,
    complete_lines,
    get,
    raw_connection,
    request_head,
    wait_settled,
    write_plugin,
)
from tests.support.notifications.samples import (
    KEY,
    TEST_EVENT,
    amazon,
    ceph,
    minio,
    minio_form,
    records,
    sns,
)

SECRET = "0123456789abcdef0123"

HANDLER = """
name: seen
event: APIGW.OnObjectCreated
retry: {attempts: 20, backoff: 0.05, max_backoff: 0.2}
script: |
  async def seen(event, handle):
      with open("FILE", "a") as file:
          file.write(json.dumps(event) + "\\n")
"""


@pytest.fixture
def plugins(tmp_path: Path) -> str:
    return str(write_plugin(tmp_path / "p", HANDLER.replace("FILE", str(tmp_path / "seen"))))


@pytest.fixture
def secret(tmp_path: Path) -> str:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    file.chmod(0o600)
    return str(file)


def seen(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in complete_lines(tmp_path / "seen")]


async def send(
    gateway: Gateway | GatewayProcess, body: bytes, *lines: str, method: str = "POST"
) -> RawResponse:
    async with raw_connection(gateway) as client:
        length = f"Content-Length: {len(body)}"
        await client.send(request_head(method, "/-/notifications", length, *lines) + body)
        return await client.answer()


async def test_each_form_becomes_one_event(
    start_gateway: StartGateway, plugins: str, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="none", plugins=[plugins], object_buckets="photos")
    second = json.dumps(sns(records(amazon(sequencer="02")))).encode()
    for body in (records(amazon()), second, minio_form(minio(sequencer="03")), records(ceph())):
        answer = await send(gateway, body)
        assert (answer.status, answer.json) == (200, {"notifications": {"told": 1}})
    await wait_settled(gateway)
    events = seen(tmp_path)
    assert [event["key"] for event in events] == [KEY] * 4
    assert len({event["id"] for event in events}) == 4
    assert {event["path"] for event in events} == {None}


async def test_what_is_nothing_new_is_answered_too(
    start_gateway: StartGateway, plugins: str, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="none", plugins=[plugins], object_buckets="photos")
    removed = amazon() | {"eventName": "ObjectRemoved:Delete"}
    assert (await send(gateway, TEST_EVENT)).status == 200
    assert (await send(gateway, records())).status == 200
    assert (await send(gateway, records(removed))).json == {"notifications": {"other": 1}}
    strange = ceph() | {"s3": {"bucket": {"name": "strange"}, "object": {"key": "k"}}}
    assert (await send(gateway, records(strange))).json == {"notifications": {"strange": 1}}
    for _ in range(3):
        await send(gateway, records(ceph(), ceph()))
    await wait_settled(gateway)
    assert len(seen(tmp_path)) == 1
    metrics = (await get(gateway, "/-/metrics")).body.decode()
    assert 'gateway_object_notices_total{outcome="strange"} 1.0' in metrics


async def test_an_event_can_be_looked_up_like_any_other(
    start_gateway: StartGateway, plugins: str
) -> None:
    gateway = await start_gateway(auth="none", plugins=[plugins], object_buckets="photos")
    await send(gateway, records(ceph()))
    await wait_settled(gateway)
    (delivery,) = (await get(gateway, "/-/events")).json["deliveries"]
    assert (delivery["event"], delivery["handler"]) == (OBJECT_CREATED, "seen")
    assert delivery["upload_id"] is None


@pytest.mark.parametrize(
    ("body", "words"),
    [(b"", "no JSON"), (b'{"Records": [{"eventName": "ObjectCreated:Put"}]}', "Records[0].s3")],
)
async def test_junk_is_refused(start_gateway: StartGateway, body: bytes, words: str) -> None:
    answer = await send(await start_gateway(auth="none"), body)
    assert (answer.status, answer.json["error"]) == (400, "bad_request")
    assert words in answer.json["message"]


async def test_a_body_is_bounded_and_only_posts_are_taken(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="none")
    async with raw_connection(gateway) as client:
        await client.send(request_head("POST", "/-/notifications", f"Content-Length: {MAX_BODY + 1}"))
        assert (await client.answer()).status == 413
    answer = await send(gateway, b"", method="GET")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


async def test_a_web_page_cannot_send_notifications(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="none")
    assert (await send(gateway, records(), "Origin: http://evil.example")).status == 403
    assert (await send(gateway, records(), "Sec-Fetch-Site: cross-site")).status == 403


# -- who may


def signature(body: bytes) -> str:
    return f"{SIGNATURE}: sha256={hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}"


async def test_with_a_secret_whoever_shows_it_gets_in_and_nobody_else(
    start_gateway: StartGateway, plugins: str, secret: str
) -> None:
    gateway = await start_gateway(
        auth="none", plugins=[plugins], object_buckets="photos", notifications_secret_file=secret
    )
    body = records(ceph())
    told = [ceph() | {"opaqueData": SECRET}, ceph() | {"opaqueData": SECRET}]
    assert (await send(gateway, body, f"Authorization: Bearer {SECRET}")).status == 200
    assert (
        await send(gateway, body, "Authorization: Basic Z3c6MDEyMzQ1Njc4OWFiY2RlZjAxMjM=")
    ).status == 200
    assert (await send(gateway, body, signature(body))).status == 200
    assert (await send(gateway, records(*told))).status == 200
    assert (await send(gateway, records(*told, ceph()))).status == 401
    assert (await send(gateway, body, signature(body + b" "))).status == 401
    for junk in (b"junk", b"{}", TEST_EVENT, json.dumps(sns(b"", "SubscriptionConfirmation")).encode()):
        assert (await send(gateway, junk)).status == 401
    refused = await send(gateway, body, "Authorization: Bearer wrong")
    assert refused.status == 401
    assert refused.headers["WWW-Authenticate"].startswith("Basic ")


async def test_with_tokens_a_known_token_is_enough_and_no_token_is_not(
    start_gateway: StartGateway, plugins: str, secret: str
) -> None:
    digest = hashlib.sha256(b"known").hexdigest()
    settings: dict[str, Any] = {"auth": "token", "tokens": f"ceph:{digest}", "plugins": [plugins]}
    gateway = await start_gateway(**settings)
    assert (await send(gateway, records(), "X-Auth-Token: known")).status == 200
    assert (await send(gateway, records())).status == 401


async def test_without_a_secret_it_is_open_to_this_machine_only(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="none", host="0.0.0.0")
    assert (await send(gateway, records())).status == 401


async def test_a_short_secret_is_refused_before_the_port_opens(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    file = tmp_path / "short"
    file.write_text("guess")
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="openssl rand"):
        await start_gateway(auth="none", notifications_secret_file=str(file))


async def test_a_subscription_that_is_not_amazons_is_told_to_the_operator(
    start_gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await start_gateway(auth="none")
    said = sns(b"", "SubscriptionConfirmation", SubscribeURL="http://127.0.0.1:1/?Token=t", Token="t")
    answer = await send(gateway, json.dumps(said).encode())
    assert (answer.status, answer.json) == (200, {"confirmed": False})
    assert "http://127.0.0.1:1/?Token=t" in caplog.text


# -- kill -9, and several processes


@pytest.mark.slow
@pytest.mark.parametrize("point", ["before answer", "mid handler"])
async def test_a_notice_that_was_taken_is_told_after_a_kill_and_told_once(
    gateway_process: StartProcess, plugins: str, tmp_path: Path, point: str
) -> None:
    flags = ("--auth", "none", "--plugins", plugins, "--object-buckets", "photos")
    dying = gateway_process(*flags, die_at=point)
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        await send(dying, records(ceph()))
    assert dying.wait() == -9
    with gateway_process(*flags) as gateway:
        assert (await send(gateway, records(ceph()))).status == 200  # as a sender without answer does
        await wait_settled(gateway)
    assert len({event["id"] for event in seen(tmp_path)}) == 1
    assert len(seen(tmp_path)) == 1


@pytest.mark.slow
async def test_several_processes_tell_of_an_object_once(
    gateway_process: StartProcess, plugins: str, tmp_path: Path
) -> None:
    flags = ("--auth", "none", "--plugins", plugins, "--object-buckets", "photos", "--processes", "3")
    with gateway_process(*flags) as gateway:
        answers = await asyncio.gather(*(send(gateway, records(ceph())) for _ in range(30)))
        assert {answer.status for answer in answers} == {200}
        await wait_settled(gateway)
        assert len(seen(tmp_path)) == 1


async def test_strangers_that_say_nothing_never_keep_out_who_has_the_secret(
    start_gateway: StartGateway, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.endpoints.notifications.handler.MAX_UNKNOWN", 4)
    gateway = await start_gateway(auth="none", notifications_secret_file=secret)
    head = request_head("POST", "/-/notifications", "Content-Length: 100")
    async with contextlib.AsyncExitStack() as silent:
        for source in ("127.0.0.2", "127.0.0.2", "127.0.0.3"):
            stranger = await silent.enter_async_context(raw_connection(gateway, source))
            await stranger.send(head)
        stranger = await silent.enter_async_context(raw_connection(gateway, "127.0.0.2"))
        await stranger.send(head)
        refused = await stranger.answer()
        assert (refused.status, refused.json["error"]) == (429, "too_many_requests")
        told = await send(gateway, records(ceph()), f"Authorization: Bearer {SECRET}")
        assert told.status == 200
        by_body = records(ceph() | {"opaqueData": SECRET})
        assert (await send(gateway, by_body)).status == 200
