"""The life of a partial upload: who may go on with it, what is told of it, and every way it ends."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.commit import partial_expiry
from gateway.commit.batch import BatchCommitter
from gateway.commit.local_open_partial import LocalOpenPartial
from gateway.commit.partials import PartialLost
from gateway.domain.model import UPLOAD_FAILED, UPLOADED, UPLOADING
from gateway.domain.partial import PARTIAL_TTL
from gateway.endpoints.uploads.resumable.janitor import PartialJanitor
from gateway.endpoints.uploads.resumable.service import ResumableUploads
from gateway.errors import Refusal
from gateway.server.app import Gateway
from gateway.storage.local.partial_directory import PartialDirectory
from tests.conftest import StartGateway, StartProcess
from tests.support.harness import files_below, get, put, raw_connection, request_head, wait_until
from tests.support.recorders import EventRecorder, recording_events, write_handler
from tests.support.resumable import (
    PART_TYPE,
    Exchange,
    append,
    offset_of,
    request,
    target_of,
    upload_id,
    wait_received,
)

OPEN, END = "Upload-Complete: ?0", "Upload-Complete: ?1"


@pytest.fixture
def events() -> Iterator[EventRecorder]:
    with recording_events() as recorder:
        yield recorder


async def created(
    gateway: Gateway, *lines: str, body: bytes = b"", target: str = "/upload/x", method: str = "POST"
) -> str:
    exchange = await request(gateway, method, target, OPEN, *lines, body=body)
    assert exchange.status == 201, exchange
    return exchange.resource


def operations(gateway: Gateway) -> ResumableUploads:
    endpoint = gateway.endpoints.dispatcher.files.resumable
    assert endpoint is not None
    assert isinstance(endpoint.uploads, ResumableUploads)
    return endpoint.uploads


async def status(gateway: Gateway, resource: str) -> Any:
    return (await get(gateway, f"/-/uploads/{upload_id(resource)}")).json


def kept(data: Path) -> list[str]:
    return [name for name in os.listdir(data / ".gateway/partials") if name != "identities"]


def stored(data: Path) -> dict[str, bytes]:
    return files_below(data / "upload")


def error(exchange: Exchange) -> str:
    return f"{exchange.status} {exchange.final.json['error']}"


# -- what is told


async def test_the_status_page_tells_how_far_an_upload_has_come(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    resource = await created(gateway, "Upload-Length: 9", body=b"abc")
    await append(gateway, resource, 3, b"def")
    told = await status(gateway, resource)
    assert told["state"] == "waiting"
    assert (told["offset"], told["bytes"], told["length"], told["appends"]) == (6, 6, 9, 2)
    assert told["protocol"] == "draft"
    assert told["path"] == "/upload/x"
    assert told["expires"] > told["created"]

    await append(gateway, resource, 6, b"ghi", end=True)
    told = await status(gateway, resource)
    assert (told["state"], told["bytes"]) == ("stored", 9)
    assert "offset" not in told


async def test_what_waits_is_listed(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    names = [await created(gateway, body=b"abc", target=f"/upload/{number}") for number in range(5)]
    await append(gateway, names[0], 3, b"", end=True)
    pages: list[str] = []
    target = "/-/uploads?state=waiting&limit=2"
    cursor: str | None = None
    while True:
        answer = (await get(gateway, target + (f"&cursor={cursor}" if cursor else ""))).json
        assert len(answer["uploads"]) <= 2
        pages += [row["upload_id"] for row in answer["uploads"]]
        assert all((row["state"], row["offset"]) == ("waiting", 3) for row in answer["uploads"])
        if (cursor := answer["next"]) is None:
            break
    assert pages == sorted(map(upload_id, names[1:]), reverse=True)
    everything = (await get(gateway, "/-/uploads")).json["uploads"]
    assert [row["state"] for row in everything] == ["waiting"] * 4 + ["stored"]


async def test_a_cancelled_upload_is_told_of_as_failed(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    resource = await created(gateway, body=b"abc")
    await request(gateway, "DELETE", resource)
    told = await status(gateway, resource)
    assert (told["state"], told["error"], told["bytes"]) == ("failed", "cancelled", 3)


async def test_metrics_count_uploads_appends_and_ends(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    resource = await created(gateway, body=b"abc")
    async with raw_connection(gateway) as hanging:
        fields = (PART_TYPE, "Upload-Offset: 3", OPEN, "Content-Length: 9")
        await hanging.send(request_head("PATCH", resource, *fields) + b"def")
        await wait_received(gateway, upload_id(resource), 6)
        assert await offset_of(gateway, resource) == 6
    await append(gateway, resource, 6, b"", end=True)
    await request(gateway, "DELETE", await created(gateway))
    told = (await get(gateway, "/-/metrics")).body.decode()
    for line in (
        'gateway_partial_appends_total{end="whole",protocol="draft"} 3.0',
        'gateway_partial_appends_total{end="superseded",protocol="draft"} 1.0',
        'gateway_partial_ended_total{how="stored"} 1.0',
        'gateway_partial_ended_total{how="cancelled"} 1.0',
        "gateway_partial_handover_seconds_count 1.0",
        'gateway_partial_uploads{state="receiving"} 0.0',
        "gateway_uploads_active 0.0",
    ):
        assert line in told, line


async def test_the_secret_of_the_url_and_those_of_the_request_are_kept_nowhere(
    start_gateway: StartGateway, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gateway = await start_gateway(log_level="debug")
    secrets = ("Authorization: Bearer of-a-thousand", "X-Api-Key: open-sesame")
    resource = await created(gateway, *secrets, target="/upload/x?token=magic-word&colour=red")
    secret = resource.partition(".")[2]
    [head] = [(data / ".gateway/partials" / name).read_text() for name in kept(data) if ".json" in name]
    for text in (head, "".join(capfd.readouterr())):
        assert not any(word in text for word in (secret, "thousand", "sesame", "magic-word"))
    assert "colour" in head


# -- events


async def test_handlers_run_once_for_all_requests(
    start_gateway: StartGateway, tmp_path: Path, events: EventRecorder
) -> None:
    plugins = events.write_handler(tmp_path / "plugins", UPLOADING, "before")
    events.write_handler(tmp_path / "plugins", UPLOADED, "after")
    events.write_handler(tmp_path / "plugins", UPLOAD_FAILED, "failed")
    gateway = await start_gateway(plugins=plugins)
    lines = ("Content-Type: image/png", "X-Amz-Meta-Album: 7", "Upload-Length: 6")
    resource = await created(gateway, *lines, body=b"ab")
    async with raw_connection(gateway) as cut:
        fields = (PART_TYPE, "Upload-Offset: 2", OPEN, "Content-Length: 4")
        await cut.send(request_head("PATCH", resource, *fields) + b"cd")
        await wait_received(gateway, upload_id(resource), 4)
    await wait_until(lambda: len(gateway.endpoints.inflight) == 0)
    assert (await append(gateway, resource, 4, b"ef", end=True)).status == 201
    handler, before = await events.next_event()
    assert (handler, before["resumable"], before["concat"]) == ("before", "draft", None)
    assert (before["content_length"], before["content_type"]) == (6, "image/png")
    handler, after = await events.next_event()
    assert (handler, after["bytes"], after["mime"]) == ("after", 6, "image/png")
    assert after["upload_id"] == before["upload_id"] == upload_id(resource)
    assert after["metadata"] == {"album": "7"}
    assert events.is_empty()


async def test_a_handler_may_send_the_file_elsewhere(
    start_gateway: StartGateway, tmp_path: Path, data: Path
) -> None:
    plugins = write_handler(tmp_path / "plugins", 'event["path"] = "/inbox/y"')
    gateway = await start_gateway(plugins=plugins)
    resource = await created(gateway, body=b"ab")
    assert resource.startswith("/upload/x?")
    assert (await append(gateway, resource, 2, b"cd", end=True)).status == 201
    assert files_below(data / "inbox") == {"y": b"abcd"}


async def test_a_refused_creation_leaves_nothing(
    start_gateway: StartGateway, tmp_path: Path, data: Path
) -> None:
    plugins = write_handler(tmp_path / "plugins", "await handle.terminate(code=402, output='pay')")
    gateway = await start_gateway(plugins=plugins)
    answer = await request(gateway, "POST", "/upload/x", OPEN, body=b"ab")
    assert (answer.status, answer.final.body) == (402, b"pay")
    assert kept(data) == []


async def failed(events: EventRecorder) -> tuple[str, int]:
    _, event = await events.next_event()
    return event["reason"], event["bytes"]


async def test_an_upload_that_is_cancelled_or_refused_for_good_has_failed(
    start_gateway: StartGateway, tmp_path: Path, data: Path, events: EventRecorder
) -> None:
    plugins = events.write_handler(tmp_path / "plugins", UPLOAD_FAILED, "failed")
    gateway = await start_gateway(plugins=plugins, on_conflict="reject", max_bytes=10)
    await request(gateway, "DELETE", await created(gateway, body=b"abc"))
    assert await failed(events) == ("cancelled", 3)

    resource = await created(gateway, body=b"abc")
    await put(gateway, "/upload/x", b"mine")
    assert error(await append(gateway, resource, 3, b"d", end=True)) == "409 conflict"
    assert await failed(events) == ("conflict", 4)

    resource = await created(gateway, body=b"abc", target="/upload/y")
    assert error(await append(gateway, resource, 3, b"12345678")) == "413 too_large"
    assert await failed(events) == ("too_large", 3)

    resource = await created(gateway, "Upload-Length: 5", body=b"abc", target="/upload/y")
    assert error(await append(gateway, resource, 3, b"123")) == "400 length_exceeded"
    assert await failed(events) == ("length_exceeded", 3)
    assert events.is_empty()
    assert kept(data) == []
    assert stored(data) == {"x": b"mine"}


async def test_an_upload_that_expires_has_failed(
    start_gateway: StartGateway,
    tmp_path: Path,
    data: Path,
    events: EventRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(partial_expiry, "CONFIRM_INTERVAL", 0.0)
    plugins = events.write_handler(tmp_path / "plugins", UPLOAD_FAILED, "failed")
    gateway = await start_gateway(plugins=plugins)
    old, new = await created(gateway, body=b"abc"), await created(gateway, body=b"abcd")
    before = time.time() - PARTIAL_TTL - 60
    os.utime(data / ".gateway/partials" / upload_id(old), (before, before))
    uploads = operations(gateway)
    janitor = PartialJanitor(uploads.access.store, uploads.requests.completion)
    for _ in range(2):
        await janitor.sweep(time.time())
    await janitor.count()
    assert await failed(events) == ("expired", 3)
    assert (await request(gateway, "HEAD", old)).status == 404
    assert (await status(gateway, old))["error"] == "expired"
    assert await offset_of(gateway, new) == 4
    told = (await get(gateway, "/-/metrics")).body.decode()
    assert 'gateway_partial_ended_total{how="expired"} 1.0' in told
    assert 'gateway_partial_uploads{state="waiting"} 1.0' in told
    assert "gateway_partial_bytes 4.0" in told


# -- cuts and pauses


async def test_all_that_came_before_a_cut_is_kept(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway()
    body = os.urandom(3 << 20)
    resource = await created(gateway, f"Upload-Length: {len(body)}")
    fields = (PART_TYPE, "Upload-Offset: 0", OPEN, f"Content-Length: {len(body)}")
    async with raw_connection(gateway) as cut:
        await cut.send(request_head("PATCH", resource, *fields) + body[: 2 << 20])
        await wait_received(gateway, upload_id(resource), 2 << 20)
        cut.reset()
    await wait_until(lambda: len(gateway.endpoints.inflight) == 0)
    assert await offset_of(gateway, resource) == 2 << 20
    assert (await append(gateway, resource, 2 << 20, body[2 << 20 :], end=True)).status == 201
    assert stored(data) == {"x": body}


async def test_what_was_read_and_waits_to_be_written_is_kept(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, waits, may_write = await start_gateway(), asyncio.Event(), asyncio.Event()
    resource, write = await created(gateway), LocalOpenPartial.write

    async def write_late(self: LocalOpenPartial, chunk: bytes) -> None:
        waits.set()
        await may_write.wait()
        await write(self, chunk)

    monkeypatch.setattr(LocalOpenPartial, "write", write_late)
    fields = (PART_TYPE, "Upload-Offset: 0", OPEN, "Content-Length: 100000")
    async with raw_connection(gateway) as cut:
        await cut.send(request_head("PATCH", resource, *fields) + b"a" * 1000)
        await waits.wait()
        await cut.send(b"b" * 20_000)
    running = operations(gateway).requests.running._running[upload_id(resource)].request
    await wait_until(lambda: running.content.exception() is not None)
    may_write.set()
    await wait_until(lambda: len(gateway.endpoints.inflight) == 0)
    assert await offset_of(gateway, resource) == 21_000


async def test_a_client_that_pauses_too_long_is_told_what_has_come(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(idle_timeout=0.3)
    resource = await created(gateway)
    fields = (PART_TYPE, "Upload-Offset: 0", OPEN, "Content-Length: 100")
    async with raw_connection(gateway) as slow:
        await slow.send(request_head("PATCH", resource, *fields) + b"x" * 40)
        answer = await slow.answer()
    assert (answer.status, answer.headers["Upload-Offset"]) == (408, "40")
    assert await offset_of(gateway, resource) == 40


async def test_a_stop_keeps_what_has_come(gateway_process: StartProcess) -> None:
    gateway = gateway_process("--grace", "0")
    answer = await request(gateway, "POST", "/upload/x", OPEN, body=b"abc")
    resource, body = answer.resource, os.urandom(20 << 20)
    fields = (PART_TYPE, "Upload-Offset: 3", OPEN, f"Content-Length: {2 * len(body)}")
    file = gateway.directory / ".gateway/partials" / upload_id(resource)
    async with raw_connection(gateway) as running:
        await running.send(request_head("PATCH", resource, *fields) + body)
        await wait_until(lambda: file.stat().st_size == 3 + len(body))
        assert await asyncio.to_thread(gateway.terminate) in {0, -signal.SIGTERM}
        assert await running.closed() == b""
    again = gateway_process("--grace", "0")
    assert await offset_of(again, resource) == 3 + len(body)
    assert "Traceback" not in gateway.log()


async def test_an_upload_that_cannot_be_stored_now_can_be_completed_later(
    start_gateway: StartGateway, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start_gateway()
    resource, commit = await created(gateway, body=b"abc"), LocalOpenPartial.commit

    async def refuse(*_: Any) -> None:
        raise Refusal("journal_unavailable", "the journal cannot be written now")

    monkeypatch.setattr(LocalOpenPartial, "commit", refuse)
    answer = await append(gateway, resource, 3, b"def", end=True)
    assert error(answer) == "503 journal_unavailable"
    assert (answer.offset, answer.complete) == (6, "?0")
    assert answer.final.headers["Retry-After"]
    monkeypatch.setattr(LocalOpenPartial, "commit", commit)
    assert await offset_of(gateway, resource) == 6
    assert (await append(gateway, resource, 6, b"", end=True)).status == 201
    assert stored(data) == {"x": b"abcdef"}


# -- signed URLs


async def signed(gateway: Gateway, **terms: Any) -> str:
    url = await gateway.resources.plugins.services.sign_url("PUT", "/upload/x", **terms)
    return target_of(str(url))


async def test_a_signed_url_creates_an_upload_that_goes_on_without_it(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway(auth="token")
    target = await signed(gateway, length=6, content_type="image/png")
    lines = ("Content-Type: image/png", "Upload-Length: 6")
    assert (
        error(await request(gateway, "PUT", target, OPEN, *lines[:1], body=b"ab")) == "403 not_granted"
    )
    wrong = ("Content-Type: image/png", "Upload-Length: 7")
    assert error(await request(gateway, "PUT", target, OPEN, *wrong, body=b"ab")) == "403 not_granted"
    resource = await created(gateway, *lines, body=b"ab", target=target, method="PUT")
    assert "X-Gateway" not in resource
    assert await offset_of(gateway, resource) == 2
    assert (await append(gateway, resource, 2, b"cdef", end=True)).status == 201
    assert stored(data) == {"x": b"abcdef"}
    complete = await request(gateway, "HEAD", resource)
    assert (complete.offset, complete.complete) == (6, "?1")


async def test_a_signed_url_bounds_what_comes_without_a_length(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="token")
    target = await signed(gateway, max_length=5)
    resource = await created(gateway, body=b"ab", target=target, method="PUT")
    assert error(await append(gateway, resource, 2, b"cdef")) == "413 too_large"


async def test_a_one_time_url_is_used_up_by_the_upload_that_is_stored(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway(auth="token")
    target = await signed(gateway, once=True)
    first, second, third = [
        await created(gateway, body=b"ab", target=target, method="PUT") for _ in range(3)
    ]
    await request(gateway, "DELETE", third)
    assert (await append(gateway, second, 2, b"cd", end=True)).status == 201
    assert error(await append(gateway, first, 2, b"xy", end=True)) == "403 used_up"
    assert stored(data) == {"x": b"abcd"}
    answer = await request(gateway, "PUT", target, OPEN, body=b"ab")
    assert error(answer) == "403 used_up"


# -- references


async def test_whatever_is_no_reference_of_ours_is_not_found(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    resource = await created(gateway, body=b"abc")
    other = await created(gateway, body=b"abc")
    secret, another = (text.partition(".")[2] for text in (resource, other))
    wrong = [
        resource.replace(secret, another),
        resource.replace(secret, secret[:-1]),
        resource.replace(secret, ""),
        resource + "x",
        resource.replace(upload_id(resource), "../" + upload_id(resource)),
        re.sub(r"upload=.", "upload=9", resource),
    ]
    for target in wrong:
        for method in ("HEAD", "DELETE"):
            assert (await request(gateway, method, target)).status == 404, target
        assert (await append(gateway, target, 3, b"x")).status == 404, target
    assert await offset_of(gateway, resource) == 3


async def test_a_new_key_of_the_installation_leaves_old_urls_valid(
    start_gateway: StartGateway, tmp_path: Path, data: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("a" * 40 + "\n")
    key.chmod(0o600)
    first = await start_gateway(installation_key_file=str(key), directory=str(data))
    resource = await created(first, body=b"abc")
    key.write_text("b" * 40 + "\n" + "a" * 40 + "\n")
    second = await start_gateway(installation_key_file=str(key), directory=str(tmp_path / "other"))
    reference = resource.partition("=")[2]
    assert operations(second).access.references.verify(reference) == upload_id(resource)
    assert operations(second).access.references.reference(upload_id(resource)) != reference


async def test_an_upload_is_never_unknown_between_its_name_and_the_end_of_its_commit(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, may_end = threading.Event(), threading.Event()
    sync_folders = BatchCommitter._sync_folders

    def wait_and_sync(*arguments: Any) -> None:
        named.set()
        may_end.wait(10)
        sync_folders(*arguments)

    gateway = await start_gateway()
    resource = await created(gateway)
    monkeypatch.setattr(BatchCommitter, "_sync_folders", wait_and_sync)
    committing = asyncio.create_task(append(gateway, resource, 0, b"whole", end=True))
    await asyncio.to_thread(named.wait)
    looking = asyncio.create_task(request(gateway, "HEAD", resource))
    await asyncio.wait({looking}, timeout=0.2)  # a response that came before the outcome would be wrong
    may_end.set()
    assert (await committing).status == 201
    answer = await looking
    assert (answer.status, answer.offset, answer.complete) == (204, 5, "?1")


async def test_what_came_behind_bytes_that_the_disk_refused_never_counts(
    start_gateway: StartGateway, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the file would have a hole: the next bytes may fit where the larger batch did not."""
    gateway, waits, may_write = await start_gateway(), asyncio.Event(), asyncio.Event()
    resource, body = await created(gateway), os.urandom(100_000)

    async def refuse(self: LocalOpenPartial, chunk: bytes) -> None:
        monkeypatch.undo()
        waits.set()
        await may_write.wait()
        raise Refusal("no_space", "the disk is full")

    monkeypatch.setattr(LocalOpenPartial, "write", refuse)
    fields = (PART_TYPE, "Upload-Offset: 0", OPEN, "Content-Length: 100000")
    async with raw_connection(gateway) as sender:
        await sender.send(request_head("PATCH", resource, *fields) + body[:1000])
        await waits.wait()
        await sender.send(body[1000:50_000])
        running = operations(gateway).requests.running._running[upload_id(resource)].request
        await wait_until(lambda: running.content.total_bytes >= 50_000)
        may_write.set()
        assert (await sender.answer()).status == 507
    assert await offset_of(gateway, resource) == 0
    assert (await append(gateway, resource, 0, body, end=True)).status == 201
    assert stored(data) == {"x": body}


async def test_an_empty_append_that_is_ended_by_a_newer_request_is_no_error(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start_gateway()
    resource, begin = await created(gateway), LocalOpenPartial.begin
    begun, may_go_on = asyncio.Event(), asyncio.Event()

    async def begin_late(self: LocalOpenPartial, declared: int | None, **terms: bool) -> None:
        begun.set()
        await may_go_on.wait()
        await begin(self, declared, **terms)

    monkeypatch.setattr(LocalOpenPartial, "begin", begin_late)
    async with raw_connection(gateway) as older:
        await older.send(
            request_head("PATCH", resource, PART_TYPE, "Upload-Offset: 0", OPEN, "Content-Length: 0")
        )
        await begun.wait()
        looking = asyncio.create_task(offset_of(gateway, resource))
        running = operations(gateway).requests.running._running[upload_id(resource)]
        await wait_until(lambda: running.superseded)
        may_go_on.set()
        assert await looking == 0
        assert await older.closed() == b""  # no response: it is the newer request's upload now


async def test_an_upload_that_could_not_be_removed_is_not_cancelled(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start_gateway()
    resource = await created(gateway, body=b"abc")

    def refuse(*_: Any) -> None:
        raise OSError(errno.EIO, "the disk is damaged")

    with monkeypatch.context() as damaged:
        damaged.setattr(PartialDirectory, "remove_files", refuse)
        assert error(await request(gateway, "DELETE", resource)) == "503 storage_unavailable"
    assert await offset_of(gateway, resource) == 3
    assert (await request(gateway, "DELETE", resource)).status == 204


async def test_a_creation_that_ends_while_its_file_is_stored_has_not_failed(
    start_gateway: StartGateway, tmp_path: Path, events: EventRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, may_end = threading.Event(), threading.Event()
    sync_folders = BatchCommitter._sync_folders

    def wait_and_sync(*arguments: Any) -> None:
        named.set()
        may_end.wait(10)
        sync_folders(*arguments)

    plugins = events.write_handler(tmp_path / "plugins", UPLOAD_FAILED, "failed")
    events.write_handler(tmp_path / "plugins", UPLOADED, "after")
    gateway = await start_gateway(plugins=plugins)
    monkeypatch.setattr(BatchCommitter, "_sync_folders", wait_and_sync)
    async with raw_connection(gateway) as sender:
        lines = ("Tus-Resumable: 1.0.0", "Upload-Length: 5", "Content-Length: 5")
        kind = "Content-Type: application/offset+octet-stream"
        await sender.send(request_head("POST", "/upload/x", kind, *lines) + b"whole")
        await asyncio.to_thread(named.wait)
        ((upload, running),) = operations(gateway).requests.running._running.items()
        assert running.request.task.cancel()
        await asyncio.sleep(0)
        may_end.set()
        assert await sender.closed() == b""
    handler, event = await events.next_event()
    assert (handler, event["bytes"]) == ("after", 5)
    await wait_until(lambda: len(gateway.endpoints.inflight) == 0)
    assert gateway.endpoints.inflight.describe(upload) is None  # it is not among those that failed


@pytest.mark.parametrize("step", ["begin", "settle", "commit"])
async def test_a_request_whose_upload_another_gateway_has_taken_gets_no_response(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Any status would tell of an upload that is the newer request's."""
    gateway = await start_gateway()
    resource = await created(gateway)

    async def lose(*_: Any, **__: Any) -> None:
        raise PartialLost("taken over")

    fields = (PART_TYPE, "Upload-Offset: 0", END, "Content-Length: 1")
    with monkeypatch.context() as lost:
        lost.setattr(LocalOpenPartial, step, lose)
        async with raw_connection(gateway) as older:
            await older.send(request_head("PATCH", resource, *fields) + b"x")
            assert await older.closed() == b""
    await offset_of(gateway, resource)
