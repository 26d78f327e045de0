"""The gateway's own pages: who may see them, what they tell, and what they never tell."""

from __future__ import annotations

import asyncio
import gc
import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.auth.tokens import token_digest
from gateway.domain.model import Upload
from gateway.endpoints.admin import status as observe
from gateway.endpoints.inflight import Inflight
from gateway.server.app import Gateway
from tests.conftest import StartGateway, StartProcess
from tests.support.harness import (
    TIMEOUT,
    RawResponse,
    complete_lines,
    get,
    handlers_done,
    put,
    raw_connection,
    request_head,
    wait_settled,
    write_plugin,
)
from tests.support.recorders import FAILING
from tests.support.records import claim_deliveries, publish_uploads, result_of, settle_run, upload_record

PAGES = ["/-/metrics", "/-/events", "/-/events/E1", "/-/uploads/U1"]


async def request(gateway: Gateway, method: str, target: str, *lines: str) -> RawResponse:
    async with raw_connection(gateway) as connection:
        await connection.send(request_head(method, target, *lines))
        return await connection.answer(head=method == "HEAD")


# -- who may see them


@pytest.mark.parametrize("page", ["/-/health", "/-/ready"])
async def test_health_and_readiness_are_open_to_all(start_gateway: StartGateway, page: str) -> None:
    gateway = await start_gateway(auth="token")
    assert (await get(gateway, page)).status == 200


NOT_SERVED = ["/-/", "/-/nope", "/-/health/", "/-/%68ealth/x", "/-/%6Fbjects/x", "/-/objects"]


@pytest.mark.parametrize("page", [*PAGES, *NOT_SERVED])
async def test_everything_else_asks_who_is_there_before_it_tells_anything(
    start_gateway: StartGateway, page: str
) -> None:
    gateway = await start_gateway(auth="token")
    assert (await get(gateway, page)).status == 401
    answer = await get(gateway, page, f"Authorization: Bearer {gateway.resources.base.shared.token}")
    assert answer.status == (200 if page in PAGES[:2] else 404)


async def test_a_proxy_nobody_named_opens_no_page(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    assert (await get(gateway, "/-/metrics", "X-Forwarded-For: 1.2.3.4")).status in {401, 403}
    assert (await get(gateway, "/-/metrics")).status == 200


@pytest.mark.parametrize(
    "page", ["/-/nope", "/-/uploads/a/b", "/-/events/a/b", "/-/uploads/", "/-/Health"]
)
async def test_pages_that_are_not_there_are_404(start_gateway: StartGateway, page: str) -> None:
    gateway = await start_gateway()
    answer = await get(gateway, page)
    assert (answer.status, answer.json["error"]) == (404, "not_found")


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH"])
async def test_pages_are_only_read(start_gateway: StartGateway, method: str) -> None:
    gateway = await start_gateway()
    answer = await request(gateway, method, "/-/health", "Content-Length: 0")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("page", ["/-/health", "/-/ready", "/-/events", "/-/metrics", "/-/nope"])
async def test_head_tells_what_get_would_without_a_body(start_gateway: StartGateway, page: str) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("HEAD", page) + request_head("GET", page))
        without = await connection.answer(head=True)
        with_body = await connection.answer()
    assert without.status == with_body.status
    assert without.headers["Content-Type"] == with_body.headers["Content-Type"]
    assert with_body.body


# -- readiness


async def test_readiness_names_each_check(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    answer = await get(gateway, "/-/ready")
    assert answer.json == {
        "ready": True,
        "checks": {"journal": True, "disk": True, "scripts": True, "descriptors": True},
    }


async def test_a_journal_whose_file_was_removed_accepts_nothing_and_says_why(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    gateway.resources.base.directory.journal.unlink()
    answer = await get(gateway, "/-/ready")
    assert (answer.status, answer.json["checks"]["journal"]) == (503, False)
    assert answer.json["reasons"]["journal"].startswith("journal-0.db was removed or replaced")
    refused = await put(gateway, "/upload/a", b"1")
    assert (refused.status, refused.json["error"]) == (503, "journal_unavailable")
    assert not (gateway.resources.settings.directory / "upload/a").exists()


async def test_a_closed_journal_makes_it_unready_but_not_dead(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    await asyncio.to_thread(gateway.resources.journal.close)
    answer = await get(gateway, "/-/ready")
    assert (answer.status, answer.json["checks"]["journal"]) == (503, False)
    assert (await get(gateway, "/-/health")).status == 200


# -- the status page of an upload


async def test_the_status_page_shows_of_an_error_its_first_line_only(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(plugins=[str(write_plugin(tmp_path / "p", FAILING))])
    answer = await put(gateway, "/upload/x")
    story = await handlers_done(gateway, answer.json["upload_id"], state="dead")
    (handler,) = story["handlers"]
    errors = [handler["error"], *(run["error"] for run in handler["runs"])]
    assert errors == ["RuntimeError: no luck"] * 3
    assert "Traceback" not in str(story)
    assert "p/plugin.yaml" not in str(story)


async def test_an_upload_on_its_way_and_a_failed_one_have_a_page(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        lines = ("Content-Length: 100", "Expect: 100-continue")
        await connection.send(request_head("PUT", "/upload/x", *lines))
        assert b"100" in await connection.line()
        (upload_id,) = gateway.endpoints.inflight._active
        story = (await get(gateway, f"/-/uploads/{upload_id}")).json
        assert (story["state"], story["path"], story["content_length"]) == (
            "receiving",
            "/upload/x",
            100,
        )
    await gateway.endpoints.dispatcher.drain(TIMEOUT)
    story = (await get(gateway, f"/-/uploads/{upload_id}")).json
    assert (story["state"], story["error"], story["handlers"]) == ("failed", "connection_lost", [])


def test_a_failed_upload_is_remembered_without_its_headers() -> None:
    inflight = Inflight()
    progress = inflight.begin_upload(Upload("an id", "/x", headers={"X-Long": "x" * 16_000}))
    inflight.end_failed(progress, "forbidden")
    del progress
    told = inflight.describe("an id")
    assert told is not None
    assert (told["state"], told["error"]) == ("failed", "forbidden")
    assert not [one for one in gc.get_objects() if isinstance(one, Upload) and one.id == "an id"]


async def test_a_refused_upload_has_a_page_too(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_bytes="3")
    refused = await put(gateway, "/upload/x", b"12345")
    story = (await get(gateway, f"/-/uploads/{refused.json['upload_id']}")).json
    assert (story["state"], story["error"], story["bytes"]) == ("failed", "too_large", 0)


async def test_an_upload_is_not_told_as_stored_before_it_is(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        lines = ("Content-Length: 100", "Expect: 100-continue")
        await connection.send(request_head("PUT", "/upload/x", *lines))
        assert b"100" in await connection.line()
        (upload_id,) = gateway.endpoints.inflight._active
        result_of(
            gateway.resources.journal.outbox.record_uploads([upload_record(upload_id)])
        )  # as the commit does, to publish next
        assert (await get(gateway, f"/-/uploads/{upload_id}")).json["state"] == "receiving"
        result_of(gateway.resources.journal.outbox.forget_uploads([upload_id]))


async def test_an_upload_nobody_knows_is_404(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    answer = await get(gateway, "/-/uploads/01J-0")
    assert (answer.status, answer.json["error"]) == (404, "not_found")


# -- metrics


def samples(answer: RawResponse) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return every sample by its name and label values, in the order of the labels' names."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


async def test_metrics_count_what_happened(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway(plugins=[str(write_plugin(tmp_path / "p", FAILING))], max_bytes="100")
    await put(gateway, "/upload/a", b"12345")
    await put(gateway, "/upload/b", b"123")
    await put(gateway, "/upload/c", b"x" * 200)
    async with raw_connection(gateway) as connection:
        lines = ("Content-Length: 5000", "Expect: 100-continue")
        await connection.send(request_head("PUT", "/upload/d", *lines))
        assert (await connection.answer()).status == 413
    await wait_settled(gateway)
    answer = await get(gateway, "/-/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    told = samples(answer)
    assert told["gateway_uploads_total", ("stored",)] == 2
    assert told["gateway_uploads_total", ("too_large",)] == 2
    assert told["gateway_upload_bytes_total", ()] == 8
    assert told["gateway_refused_bytes_total", ()] == 5000
    assert told["gateway_requests_total", ("PUT", "201")] == 2
    assert told["gateway_requests_total", ("PUT", "413")] == 2
    assert told["gateway_handler_runs_total", ("failing", "retry")] == 2
    assert told["gateway_handler_runs_total", ("failing", "dead")] == 2
    assert told["gateway_handler_seconds_count", ("failing",)] == 4
    assert told["gateway_deliveries", ("failing", "dead")] == 2
    assert told["gateway_uploads_active", ()] == 0


async def test_metrics_tell_what_waits_how_long_and_who_is_paused(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    publish_uploads(gateway.resources.journal, "a", "b", "c", "d")
    [dead, delayed] = claim_deliveries(gateway.resources.journal, "h", 2)
    settle_run(gateway.resources.journal, dead, "dead")
    settle_run(gateway.resources.journal, delayed, "retry", delay=900.0)
    claim_deliveries(gateway.resources.journal)
    await gateway.resources.journal.ledger.pause("h")
    told = samples(await get(gateway, "/-/metrics"))
    states = {labels[1]: n for (name, labels), n in told.items() if name == "gateway_deliveries"}
    assert states == {"ready": 1, "delayed": 1, "running": 1, "dead": 1}
    assert 0 < told["gateway_oldest_ready_seconds", ("h",)] < TIMEOUT
    assert told["gateway_handler_paused", ("h",)] == 1


async def test_very_many_are_not_counted_anew_for_every_scrape(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start_gateway()
    monkeypatch.setattr(observe, "MANY_DELIVERIES", 2)

    async def counted() -> float:
        told = samples(await get(gateway, "/-/metrics"))
        return told["gateway_deliveries", ("h", "ready")]

    for name, count in (("a", 1), ("b", 2), ("c", 2)):
        publish_uploads(gateway.resources.journal, name)
        assert await counted() == count
    gateway.endpoints.operators.metrics_endpoint._cached = (0.0, [])  # as if it were long ago
    assert await counted() == 3


async def test_metrics_of_a_closed_journal_say_so(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    await asyncio.to_thread(gateway.resources.journal.close)
    answer = await get(gateway, "/-/metrics")
    assert (answer.status, answer.json["error"]) == (503, "journal_unavailable")


async def test_methods_that_clients_invent_do_not_become_labels(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    for method in ("MKCOL", "PROPFIND"):
        await request(gateway, method, "/upload/x")
    told = samples(await get(gateway, "/-/metrics"))
    methods = {labels[0] for name, labels in told if name == "gateway_requests_total"}
    assert methods <= {"GET", "other"}
    assert sum(v for (name, labels), v in told.items() if labels[:1] == ("other",)) == 2


async def test_two_gateways_in_one_process_do_not_add_up(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    first = await start_gateway()
    second = await start_gateway(directory=str(tmp_path / "second"))
    await put(first, "/upload/x")
    assert ("gateway_uploads_total", ("stored",)) not in samples(await get(second, "/-/metrics"))


# -- what is never told


async def test_secrets_of_a_request_are_found_nowhere(
    start_gateway: StartGateway,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    gateway = await start_gateway(
        plugins=[str(write_plugin(tmp_path / "p", FAILING))], redact=["X-Custom"], auth="none"
    )
    secret = "hunter2-hunter2"
    lines = [
        f"{name}: {secret}"
        for name in (
            "Authorization",
            "COOKIE",
            "x-auth-token",
            "X-Api-Key",
            "X-Custom",
            "Proxy-Authorization",
        )
    ]
    query = f"?token={secret}&X-Amz-Signature={secret}&X-Amz-Credential={secret}&plain=shown"
    answer = await put(gateway, f"/upload/x{query}", b"1", *lines, "X-Plain: shown")
    story: Any = await handlers_done(gateway, answer.json["upload_id"], state="dead")
    event_id = story["handlers"][0]["event_id"]
    event = await get(gateway, f"/-/events/{event_id}")
    headers = {name.lower(): value for name, value in event.json["body"]["headers"].items()}
    assert (headers["x-plain"], headers["cookie"], headers["x-custom"]) == ("shown", *["[redacted]"] * 2)
    assert event.json["body"]["params"]["plain"] == ["shown"]
    told = [event.body.decode(), str(story), caplog.text, str(capsys.readouterr())]
    told += [(await get(gateway, page)).body.decode() for page in ("/-/events", "/-/metrics")]
    files = [file for file in (tmp_path / "data").rglob("*") if file.is_file()]
    told += [file.read_bytes().decode("latin-1") for file in files]
    assert [text for text in told if secret in text] == []
    assert any(re.search("journal-0.db", file.name) for file in files)


# -- who uploaded


async def test_who_uploaded_is_told_by_the_log_and_by_the_status_page_also_after_a_restart(
    gateway_process: StartProcess,
) -> None:
    tokens = {"ann": "the-secret-of-ann", "bob": "the-secret-of-bob"}
    items = ",".join(f"{name}:{token_digest(text)}" for name, text in tokens.items())
    flags = ("--auth", "token", "--log-format", "json", "--tokens", items)
    gateway = gateway_process(*flags)
    stored = {
        name: (await put(gateway, f"/upload/{name}", b"1", f"X-Auth-Token: {text}")).json["upload_id"]
        for name, text in tokens.items()
    }
    known = f"X-Auth-Token: {tokens['bob']}"
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", "/upload/slow", "Content-Length: 9", known) + b"1")
        refused = await put(gateway, "/upload/x", b"1", "X-Auth-Token: nobody's")
    assert refused.status == 401
    gateway.kill()
    log = [json.loads(line) for line in complete_lines(gateway.log_path)]
    lines = {line["upload_id"]: line for line in log if line.get("event") == "request.answered"}
    for name, upload_id in stored.items():
        assert lines[upload_id]["principal"] == name
    assert "principal" not in lines[refused.json["upload_id"]]

    again = gateway_process(*flags)
    for name, upload_id in stored.items():
        story = (await get(again, f"/-/uploads/{upload_id}", known)).json
        assert story["principal"] == {"name": name, "kind": "token"}
        assert story["remote"] == "127.0.0.1"
    for told in (str(story), gateway.log()):
        assert not any(text in told for text in tokens.values())


async def test_who_is_uploading_is_told_meanwhile(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="token")
    known = f"X-Auth-Token: {gateway.resources.base.shared.token}"
    async with raw_connection(gateway) as connection:
        waits = ("Content-Length: 9", "Expect: 100-continue", known)
        await connection.send(request_head("PUT", "/upload/x", *waits))
        assert await connection.line() == b"HTTP/1.1 100 Continue\r\n"
        (upload_id,) = gateway.endpoints.inflight._active
        story = (await get(gateway, f"/-/uploads/{upload_id}", known)).json
    assert story["principal"]["kind"] == "token"
    assert story["remote"] == "127.0.0.1"
