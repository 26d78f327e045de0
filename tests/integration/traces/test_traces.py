"""Traces of uploads and of requests of routes, as a collector receives them."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from aiohttp import web
from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings

from tests.conftest import StartProcess
from tests.integration.traces.conftest import StartTraced
from tests.support.harness import complete_lines, get, put, raw_connection, request_head, wait_until
from tests.support.ports import free_port
from tests.support.routing.api import Api, api
from tests.support.routing.scripted import route, write
from tests.support.routing.websocket import connecting, socket_route, socket_server
from tests.support.traces import Collector, SeenSpan, seen
from tests.support.webhook_receiver import WebhookReceiver, running_receiver

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CONTEXT = f"traceparent: 00-{TRACE}-{PARENT}-01"

ADMIT = """
name: admit
event: APIGW.OnFileUploading
script: |
  async def admit(event, handle):
      event["path"] = event["path"].replace("/in/", "/out/")
"""

PROCESS = """
name: process
event: APIGW.OnFileUploaded
retry: {{attempts: 3, backoff: 0.05, max_backoff: 0.1}}
script: |
  async def process(event, handle):
      await callout("{authority}", "/seen?key=in-the-query", "POST", {{"attempt": event["attempt"]}})
"""

WEBHOOK = """
name: tell
webhook:
  url: {url}
  events: [APIGW.OnFileUploaded]
"""


async def echo(request: web.Request) -> web.Response:
    return web.Response(text=request.headers.get("traceparent", ""))


@pytest.fixture
async def service() -> AsyncIterator[Api]:
    async with api(echo) as running:
        yield running


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with running_receiver() as running:
        yield running


def one(spans: Sequence[SeenSpan], name: str) -> SeenSpan:
    (span,) = [span for span in spans if span.name == name]
    return span


@pytest.mark.both_paths
async def test_an_upload_and_what_follows_from_it_is_one_trace_to_a_real_receiver(
    traced: StartTraced, service: Api, receiver: WebhookReceiver
) -> None:
    settings = OtelTapHttpProtobufReceiverSettings(http_port=free_port())
    async with OtelTapHttpProtobufReceiver(settings) as taken:
        spans: list[SeenSpan] = []

        async def take() -> None:
            async for span in taken.stream_traces():
                spans.append(seen(span))  # noqa: PERF401 (each is looked at when it comes)

        taking = asyncio.create_task(take())
        plugins = ADMIT, PROCESS.format(authority=service.authority), WEBHOOK.format(url=receiver.url)
        gateway = traced(*plugins, url=f"http://127.0.0.1:{settings.http_port}")
        stored = await put(gateway, "/upload/in/a.txt", b"hello", CONTEXT, "User-Agent: a test")
        sent = await receiver.next()
        await wait_until(lambda: len(spans) >= 7)
        taking.cancel()
    assert stored.status == 201
    assert {span.trace for span in spans} == {TRACE}
    request, commit = one(spans, "gateway.request"), one(spans, "gateway.commit")
    admit, process = one(spans, "gateway.handler admit"), one(spans, "gateway.handler process")
    tell = one(spans, "gateway.handler tell")
    assert (request.kind, request.parent) == ("server", PARENT)
    assert (commit.kind, commit.parent) == ("internal", request.id)
    assert (admit.kind, admit.parent) == ("internal", request.id)
    assert (process.kind, process.parent) == ("consumer", request.id)
    assert (tell.kind, tell.parent) == ("consumer", request.id)
    callouts = {span.parent: span for span in spans if span.name == "gateway.callout"}
    assert set(callouts) == {process.id, tell.id}
    assert {span.kind for span in callouts.values()} == {"client"}
    called, told = callouts[process.id], callouts[tell.id]
    assert service.asked[0].headers["traceparent"] == f"00-{TRACE}-{called.id}-01"
    assert sent.headers["traceparent"] == f"00-{TRACE}-{told.id}-01"
    assert sent.message["data"]["traceparent"] == f"00-{TRACE}-{request.id}-01"
    upload_id = stored.json["upload_id"]
    assert request.attributes == {
        "http.request.method": "PUT",
        "url.scheme": "http",
        "url.path": "/upload/in/a.txt",
        "http.route": "uploads",
        "http.response.status_code": 201,
        "client.address": "127.0.0.1",
        "user_agent.original": "a test",
        "gateway.request_id": stored.headers["X-Request-Id"],
        "gateway.upload_id": upload_id,
    }
    assert commit.attributes == {"gateway.upload_id": upload_id, "gateway.bytes": 5}
    assert admit.attributes["gateway.outcome"] == "accepted"
    assert process.attributes["gateway.outcome"] == "done"
    assert process.attributes["gateway.attempt"] == 1
    assert process.attributes["gateway.upload_id"] == upload_id
    assert called.attributes["url.full"] == f"http://{service.authority}/seen"
    assert called.attributes["http.response.status_code"] == 200
    assert told.attributes["url.full"] == receiver.url.partition("?")[0]


async def test_the_span_of_a_websocket_handshake_has_the_status_of_its_upstream(
    traced: StartTraced, collector: Collector
) -> None:
    async with socket_server() as server:
        gateway = traced(socket_route(server))
        async with connecting(gateway):
            [asked] = await collector.wait_for("gateway.upstream")
    assert asked.attributes["gateway.upstream"] == server
    assert asked.attributes["http.response.status_code"] == 101


@pytest.mark.both_paths
async def test_each_upstream_that_a_request_tries_has_a_span(
    traced: StartTraced, collector: Collector, service: Api
) -> None:
    closed = f"127.0.0.1:{free_port()}"
    text = route("/r").replace("upstreams: []", f"upstreams: ['{closed}', '{service.authority}']")
    gateway = traced(text)
    answers = [await get(gateway, "/r?key=in-the-query", CONTEXT) for _ in range(2)]
    assert [one.status for one in answers] == [200, 200]
    await collector.wait_for("gateway.request", 2)
    spans = collector.spans()
    assert {span.trace for span in spans} == {TRACE}
    tries = [span for span in spans if span.name == "gateway.upstream"]
    refused = [span for span in tries if span.error]
    (failed,) = refused  # it is suspended then
    assert failed.attributes["gateway.upstream"] == closed
    assert failed.error_type == "connect"
    again = one([span for span in tries if span.parent == failed.parent and span != failed], failed.name)
    assert again.attributes["gateway.upstream"] == service.authority
    assert again.attributes["http.request.resend_count"] == 1
    assert again.attributes["http.response.status_code"] == 200
    assert {span.kind for span in tries} == {"client"}
    assert {span.parent for span in tries} == {
        span.id for span in spans if span.name == "gateway.request"
    }
    answered = {span.id for span in tries if not span.error}
    assert {f"00-{TRACE}-{span}-01" for span in answered} == {
        request.headers["traceparent"] for request in service.asked
    }
    assert {span.attributes["http.route"] for span in spans if span.kind == "server"} == {"/r"}


async def test_the_delivery_of_an_upload_that_a_crash_interrupted_stays_in_its_trace(
    traced: StartTraced, collector: Collector, service: Api
) -> None:
    process = PROCESS.format(authority=service.authority)
    dying = traced(process, die_at="before answer")
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await put(dying, "/upload/a.txt", b"hello", CONTEXT)
    assert await asyncio.to_thread(dying.wait) == -signal.SIGKILL
    traced(process)
    (delivered,) = await collector.wait_for("gateway.handler process")
    assert delivered.trace == TRACE
    assert delivered.parent not in {"", PARENT}, "the request's own span"
    assert service.asked[0].headers["traceparent"].startswith(f"00-{TRACE}-")


async def test_an_attempt_after_a_crash_is_linked_to_the_one_that_the_crash_has_ended(
    traced: StartTraced, collector: Collector, service: Api
) -> None:
    process = PROCESS.format(authority=service.authority)
    dying = traced(process, die_at="before settlement")
    stored = await put(dying, "/upload/a.txt", b"hello", CONTEXT)
    assert stored.status == 201
    assert await asyncio.to_thread(dying.wait) == -signal.SIGKILL
    traced(process)
    await wait_until(lambda: any(span.links for span in collector.named("gateway.handler process")))
    second = [span for span in collector.named("gateway.handler process") if span.links]
    assert [span.attributes["gateway.attempt"] for span in second] == [2]
    assert second[0].trace == TRACE
    earlier = [span for span in collector.named("gateway.handler process") if not span.links]
    assert {span.id for span in earlier} <= set(second[0].links)


@pytest.mark.both_paths
@pytest.mark.parametrize("sent", ["", "traceparent: 00-none", f"traceparent: 00-{'0' * 32}-{PARENT}-01"])
async def test_a_request_without_a_valid_context_begins_a_trace(
    traced: StartTraced, collector: Collector, sent: str
) -> None:
    gateway = traced()
    assert (await put(gateway, "/upload/a.txt", b"hello", *filter(None, [sent]))).status == 201
    (request,) = await collector.wait_for("gateway.request")
    assert request.parent == ""
    assert request.trace not in {TRACE, "0" * 32}


@pytest.mark.both_paths
async def test_without_otlp_the_context_of_a_client_passes_through_and_events_have_none(
    gateway_process: StartProcess, service: Api, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    texts = service.route("/r"), WEBHOOK.format(url=receiver.url)
    gateway = gateway_process("--plugins", str(write(tmp_path / "plugins", *texts)))
    sent = "traceparent: as the client likes it", "tracestate: a=1"
    await get(gateway, "/r", *sent)
    headers = service.asked[0].headers
    assert [headers["traceparent"], headers["tracestate"]] == ["as the client likes it", "a=1"]
    assert (await put(gateway, "/upload/a.txt", b"hello", CONTEXT)).status == 201
    told = await receiver.next()
    assert "traceparent" not in told.headers
    assert "traceparent" not in told.message["data"]


@pytest.mark.both_paths
async def test_the_state_of_other_vendors_is_passed_on_to_upstreams(
    traced: StartTraced, service: Api
) -> None:
    gateway = traced(service.route("/r"))
    await get(
        gateway, "/r", CONTEXT, "tracestate: rojo=00f067aa0ba902b7", "tracestate: congo=t61rcWkgMzE"
    )
    headers = service.asked[0].headers
    assert headers.getall("tracestate") == ["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"]
    assert headers.getall("traceparent")[0].startswith(f"00-{TRACE}-")


@pytest.mark.both_paths
async def test_requests_of_one_connection_have_contexts_of_their_own(
    traced: StartTraced, service: Api
) -> None:
    gateway = traced(service.route("/r"))
    async with raw_connection(gateway) as connection:
        for number in range(1, 5):
            context = CONTEXT.replace(TRACE, f"{number:032x}"), f"tracestate: a={number}"
            await connection.send(request_head("GET", "/r", *context))
            assert (await connection.answer()).status == 200
    found = [request.headers for request in service.asked]
    assert [int(headers["traceparent"].split("-")[1], 16) for headers in found] == [1, 2, 3, 4]
    assert [headers["tracestate"] for headers in found] == ["a=1", "a=2", "a=3", "a=4"]
    assert len({headers["traceparent"].split("-")[2] for headers in found} - {PARENT}) == 4


@pytest.mark.both_paths
async def test_what_is_not_sampled_is_passed_on_so_and_not_sent(
    traced: StartTraced, collector: Collector, service: Api
) -> None:
    gateway = traced(service.route("/r"), PROCESS.format(authority=service.authority))
    unsampled = f"traceparent: 00-{TRACE}-{PARENT}-00"
    await get(gateway, "/r", unsampled)
    assert (await put(gateway, "/upload/a.txt", b"hello", unsampled)).status == 201
    await wait_until(lambda: len(service.asked) == 2)
    for request in service.asked:
        assert request.headers["traceparent"].startswith(f"00-{TRACE}-")
        assert request.headers["traceparent"].endswith("-00")
    assert await asyncio.to_thread(gateway.terminate) == 0
    assert collector.bodies == []


async def test_a_refusal_is_told_by_its_code_and_a_failure_by_class_and_place(
    traced: StartTraced, collector: Collector
) -> None:
    fails = """
name: fails
event: APIGW.OnFileUploading
script: |
  async def fails(event, handle):
      raise ValueError("the text has a secret of " + event["path"])
"""
    gateway = traced(fails, route("/script", "raise KeyError('a secret')"))
    assert (await put(gateway, "/upload/a.txt", b"hello")).status == 503
    assert (await get(gateway, "/nothing")).status == 404
    assert (await get(gateway, "/script")).status == 500
    await collector.wait_for("gateway.request", 3)
    refused = {span.attributes["url.path"]: span for span in collector.named("gateway.request")}
    assert (refused["/upload/a.txt"].error_type, refused["/upload/a.txt"].error) == ("hook_failed", True)
    assert (refused["/nothing"].error_type, refused["/nothing"].error) == ("not_found", False)
    assert (refused["/script"].error_type, refused["/script"].error) == ("internal", True)
    handler = one(collector.spans(), "gateway.handler fails")
    assert (handler.error_type, handler.error) == ("ValueError", True)
    assert handler.attributes["code.file.path"].endswith("plugins/0.yaml")
    assert handler.attributes["code.line.number"] == 6
    script = one(collector.spans(), "gateway.handler /script")
    assert (script.error_type, script.parent) == ("KeyError", refused["/script"].id)
    assert not any(b"secret" in body for body in collector.bodies)


async def test_secrets_are_in_nothing_that_is_sent(
    traced: StartTraced,
    collector: Collector,
    service: Api,
    receiver: WebhookReceiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("THE_KEY", "key-of-a-plugin")
    calls = """
name: calls
event: APIGW.OnFileUploaded
script: |
  async def calls(event, handle):
      key = (await get_service_config("keys"))["key"]
      await callout("{authority}", "/bot" + key + "/send?key=" + key, "POST", {{}}, {{"X-Key": key}})
"""
    config = "name: keys\nconfig:\n  key: ${env:THE_KEY}\n"
    webhook = WEBHOOK.format(url=receiver.url.partition("?")[0] + "?k=${env:THE_KEY}")
    gateway = traced(
        calls.format(authority=service.authority), config, webhook, service.route("/r"),
        flags=("--redact", "X-Customer-Key"),
    )  # fmt: skip
    secret = (
        "Authorization: Bearer token-of-the-client",
        "X-Customer-Key: customer-key-of-the-client",
        "User-Agent: token-of-the-client customer-key-of-the-client",
    )
    path = "/upload/token-of-the-client.txt?access_token=token-in-the-query"
    assert (await put(gateway, path, b"hello", *secret)).status == 201
    assert (await get(gateway, "/r?key=in-the-query", *secret)).status == 200
    await receiver.next()
    await collector.wait_for("gateway.callout", 2)
    await collector.wait_for("gateway.request", 2)
    sent = b"".join(collector.bodies)
    for hidden in (b"of-a-plugin", b"of-the-client", b"in-the-query", b"hello"):
        assert hidden not in sent
    assert sent.count(b"[redacted]") >= 4


@pytest.mark.parametrize("state", ["away", "silent", "refusing"])
async def test_a_collector_that_takes_nothing_holds_neither_requests_nor_the_stop_up(
    traced: StartTraced, collector: Collector, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
    url = f"http://127.0.0.1:{free_port()}" if state == "away" else ""
    collector.status = 503
    if state == "silent":
        collector.free.clear()
    gateway = traced(url=url, flags=("--log-format", "json"))
    for number in range(40):
        assert (await put(gateway, f"/upload/{number}", b"hello")).status == 201
    assert await asyncio.to_thread(gateway.terminate) == 0
    assert gateway.log().count("traces.lost") <= 1


@pytest.mark.both_paths
async def test_the_lines_of_a_recorded_request_and_its_delivery_have_the_id_of_the_trace(
    traced: StartTraced, service: Api
) -> None:
    gateway = traced(PROCESS.format(authority=service.authority), flags=("--log-format", "json"))
    assert (await put(gateway, "/upload/a.txt", b"hello", CONTEXT)).status == 201

    def words() -> set[str]:
        lines = [json.loads(line) for line in complete_lines(gateway.log_path)]
        return {line["event"] for line in lines if line.get("trace_id") == TRACE}

    await wait_until(lambda: words() >= {"request.answered", "handler.finished"})


async def test_each_process_sends_its_spans(traced: StartTraced, collector: Collector) -> None:
    gateway = traced(flags=("--processes", "2"))
    for number in range(20):
        assert (await put(gateway, f"/upload/{number}", b"hello")).status == 201
    requests = await collector.wait_for("gateway.request", 20)
    assert {span.resource["service.name"] for span in requests} == {"upload-gateway"}
    assert {span.resource["gateway.slot"] for span in requests} <= {0, 1}
    assert len({span.resource["service.instance.id"] for span in requests}) == len(
        {span.resource["process.pid"] for span in requests}
    )
    assert await asyncio.to_thread(gateway.terminate) == 0
