"""Resumable uploads and forms that handlers of OnFileReceived decide about when they are whole."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from gateway.endpoints.uploads.resumable import handover
from tests.conftest import StartGateway, StartProcess
from tests.support.harness import curl, files_below, get, put, raw_connection, request_head, wait_until
from tests.support.received import Judge, is_clean, result_of
from tests.support.resumable import append, request
from tests.support.tus import BYTES, VERSION, create, patch, store_part, target_of, tus

BODY = b"0123456789"


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    return Judge(tmp_path / "data/plugins")


async def test_a_refusal_ends_the_upload_with_the_answer_of_the_handler(
    start_gateway: StartGateway, tmp_path: Path, judge: Judge
) -> None:
    gateway = await start_gateway(plugins=judge.plugins)
    act = "X-Act: refuse"
    url = await create(gateway, "/upload/x", act, length=10)
    answer = await patch(gateway, url, 0, BODY)
    assert (answer.status, answer.json) == (422, {"virus": "EICAR"})
    assert (await tus(gateway, "HEAD", url)).status == 404
    upload_id = answer.headers["Link"].partition("uploads/")[2][:28]
    story = (await get(gateway, f"/-/uploads/{upload_id}")).json
    assert (story["state"], story["error"]) == ("rejected", "rejected")
    assert (story["refusal"]["handler"], story["refusal"]["status"]) == ("judge", 422)

    first = await request(gateway, "POST", "/upload/x", "Upload-Complete: ?0", act, body=BODY)
    last = await append(gateway, first.resource, 10, b"more", end=True)
    assert (last.status, last.final.json) == (422, {"virus": "EICAR"})
    ranged = await put(gateway, "/upload/x?resume=0123456789abcdef", BODY, act)
    assert (ranged.status, ranged.json) == (422, {"virus": "EICAR"})
    assert is_clean(tmp_path / "data")


async def test_an_upload_whose_handler_failed_is_kept_and_decided_about_again(
    start_gateway: StartGateway, tmp_path: Path, judge: Judge
) -> None:
    gateway = await start_gateway(plugins=judge.plugins)
    judge.decide("raise")
    url = await create(gateway, "/upload/x", "X-Act: wait", length=10)
    failed = await patch(gateway, url, 0, BODY)
    assert (failed.status, failed.json["error"]) == (503, "hook_failed")
    assert files_below(tmp_path / "data/upload") == {}
    judge.decide("path /upload/moved")
    told = await tus(gateway, "HEAD", url)
    assert (told.status, told.headers["Upload-Offset"]) == (200, "10")
    assert files_below(tmp_path / "data/upload") == {"moved": BODY}
    assert (await tus(gateway, "HEAD", url)).headers["Upload-Offset"] == "10"


async def test_a_newer_request_does_not_end_a_decision_and_a_lost_client_finds_it_made(
    start_gateway: StartGateway, tmp_path: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "TAKEOVER_TIMEOUT", 0.1)
    gateway = await start_gateway(plugins=judge.plugins)
    url = await create(gateway, "/upload/x", "X-Act: wait", length=10)
    async with raw_connection(gateway) as connection:
        lines = (VERSION, BYTES, "Upload-Offset: 0", "Content-Length: 10")
        await connection.send(request_head("PATCH", target_of(url), *lines) + BODY)
        await wait_until(judge.has_begun)
        busy = await tus(gateway, "HEAD", url)
        assert busy.status == 423
        connection.reset()
    assert files_below(tmp_path / "data/upload") == {}
    judge.decide()
    await wait_until(lambda: files_below(tmp_path / "data/upload") == {"x": BODY})
    assert (await tus(gateway, "HEAD", url)).headers["Upload-Offset"] == "10"


async def test_a_file_made_of_parts_is_decided_about_as_a_whole(
    start_gateway: StartGateway, tmp_path: Path, judge: Judge
) -> None:
    gateway = await start_gateway(plugins=judge.plugins)
    parts = [await store_part(gateway, part) for part in (b"one", b"two")]
    final = f"Upload-Concat: final;{' '.join(parts)}"
    refused = await tus(gateway, "POST", "/upload/x", final, "X-Act: refuse")
    assert (refused.status, refused.json) == (422, {"virus": "EICAR"})
    joined = await tus(gateway, "POST", "/upload/x", final)
    assert (joined.status, joined.json["result"]) == (201, result_of(b"onetwo"))
    assert files_below(tmp_path / "data/upload") == {"x": b"onetwo"}


async def test_each_file_of_a_form_is_decided_about_by_itself(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = tmp_path / "data/plugins"
    judge = Judge(folder)
    text = (folder / "judge.yaml").read_text()
    refuses = 'act = "refuse" if event["path"].endswith("bad") else ""\n      if act == "refuse":'
    (folder / "judge.yaml").write_text(text.replace('if act == "refuse":', refuses))
    gateway = await start_gateway(plugins=judge.plugins)
    files = [option for name in ("good", "bad", "late") for option in ("-F", f"f=@-;filename={name}")]
    answer = await curl(*files, f"{gateway.url}/upload/", stdin=b"content")
    assert answer.status == 207
    good, bad = json.loads(answer.body)["uploads"]
    assert (good["status"], good["result"]["size"]) == (201, 7)
    assert (bad["status"], bad["filename"]) == (422, "bad")
    assert list(files_below(tmp_path / "data/upload")) == ["good"]


async def test_any_process_reads_the_file_that_another_one_received(
    gateway_process: StartProcess, tmp_path: Path, judge: Judge
) -> None:
    gateway = gateway_process("--plugins", judge.plugins[0], "--processes", "2")

    async def in_pieces(name: str) -> None:
        first = await request(gateway, "POST", f"/upload/{name}", "Upload-Complete: ?0", body=BODY)
        last = await append(gateway, first.resource, 10, name.encode(), end=True)
        assert (last.status, last.final.json["result"]) == (201, result_of(BODY + name.encode()))

    await asyncio.gather(*(in_pieces(f"file{number}") for number in range(8)))
    answers = await asyncio.gather(*(put(gateway, f"/upload/p{n}", b"x" * n) for n in range(8)))
    assert [answer.json["result"]["size"] for answer in answers] == list(range(8))
    assert len(files_below(tmp_path / "data/upload")) == 16


async def test_a_kill_after_the_decision_leaves_nothing_or_lets_the_upload_go_on(
    gateway_process: StartProcess, tmp_path: Path, judge: Judge
) -> None:
    flags = ("--plugins", judge.plugins[0])
    dying = gateway_process(*flags, die_at="after decision")
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await put(dying, "/upload/x", BODY)
    assert dying.wait() == -9
    dying = gateway_process(*flags, die_at="after decision")
    assert is_clean(tmp_path / "data")
    url = await create(dying, "/upload/x", "X-Act: path /upload/moved", length=10)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await patch(dying, url, 0, BODY)
    assert dying.wait() == -9
    gateway = gateway_process(*flags)
    assert files_below(tmp_path / "data/upload") == {}
    assert (await tus(gateway, "HEAD", url)).headers["Upload-Offset"] == "10"
    assert files_below(tmp_path / "data/upload") == {"moved": BODY}
