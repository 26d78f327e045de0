"""Handlers of OnFileReceived over real sockets: nothing is visible before they have accepted it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from pathlib import Path

import pytest
from yarl import URL

from gateway.domain.model import RECEIVED, UPLOAD_FAILED, UPLOADED, UPLOADING
from tests.conftest import StartGateway
from tests.support.harness import (
    files_below,
    get,
    leftovers,
    put,
    raw_connection,
    request_head,
    wait_until,
)
from tests.support.received import LARGE, SENDERS, Judge, Send, is_clean, result_of
from tests.support.recorders import EventRecorder, write_handler
from tests.support.tus import tus


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    return Judge(tmp_path / "data/plugins")


def stored(tmp_path: Path) -> dict[str, bytes]:
    return files_below(tmp_path / "data/upload")


# -- every protocol


@pytest.mark.parametrize("send", SENDERS, ids=lambda send: send.__name__)
async def test_by_every_protocol_the_handler_reads_the_whole_private_file_and_answers_the_client(
    start_gateway: StartGateway, tmp_path: Path, judge: Judge, send: Send
) -> None:
    gateway = await start_gateway(plugins=judge.plugins)
    status, body, told = await send(gateway, "x.bin")
    assert (status, told["result"]) == (201, result_of(body))
    assert stored(tmp_path) == {"x.bin": body}
    assert leftovers(tmp_path / "data") == []
    story = (await get(gateway, f"/-/uploads/{told['upload_id']}")).json
    assert story["state"] == "stored"
    stat = await gateway.resources.scripts.files.stat("/upload/x.bin")
    assert stat.metadata == {"judged-by": "judge"}


# -- refusals


@pytest.mark.parametrize("act", ["refuse", "raise", "hang", "path /upload/../x", "path /.gateway/x"])
async def test_what_is_not_accepted_leaves_nothing(
    start_gateway: StartGateway, tmp_path: Path, judge: Judge, recorder: EventRecorder, act: str
) -> None:
    recorder.write_handler(tmp_path / "data/plugins", UPLOAD_FAILED, "failed")
    recorder.write_handler(tmp_path / "data/plugins", UPLOADED, "uploaded")
    gateway = await start_gateway(plugins=judge.plugins)
    for body in (b"small", LARGE):
        answer = await put(gateway, "/upload/x", body, f"X-Act: {act}")
        name, event = await recorder.next_event()
        assert (name, event["bytes"], event["path"]) == ("failed", len(body), event["path"])
        if act == "refuse":
            assert (answer.status, answer.json) == (422, {"virus": "EICAR"})
            assert event["reason"] == "rejected"
        else:
            assert (answer.status, answer.json["error"]) == (503, "hook_failed")
            assert event["reason"] == "hook_failed"
    assert is_clean(tmp_path / "data")
    metrics = (await get(gateway, "/-/metrics")).body.decode()
    outcome = "rejected" if act == "refuse" else "hook_failed"
    assert f'gateway_uploads_total{{outcome="{outcome}"}} 2.0' in metrics


async def test_a_refused_file_was_never_visible_to_anybody(
    start_gateway: StartGateway, tmp_path: Path, judge: Judge
) -> None:
    gateway = await start_gateway(plugins=judge.plugins, downloads="true", listing="true")
    await put(gateway, "/upload/a/other", b"other")
    uploading = asyncio.create_task(put(gateway, "/upload/a/x", b"secret", "X-Act: wait"))
    await wait_until(judge.has_begun)
    [upload_id] = gateway.endpoints.inflight._active
    assert (await get(gateway, f"/-/uploads/{upload_id}")).json["state"] == "deciding"
    assert (await get(gateway, "/upload/a/x")).status == 404
    listed = (await get(gateway, "/upload/a/", "Accept: application/json")).json
    assert "x" not in json.dumps(listed["entries"])
    archive = await get(gateway, "/upload/a/?format=zip")
    assert b"secret" not in archive.body
    assert stored(tmp_path) == {"a/other": b"other"}
    judge.decide("refuse")
    assert (await uploading).status == 422
    assert stored(tmp_path) == {"a/other": b"other"}
    assert leftovers(tmp_path / "data") == []


async def test_a_client_that_disconnects_while_handlers_decide_leaves_nothing(
    start_gateway: StartGateway, tmp_path: Path, judge: Judge
) -> None:
    gateway = await start_gateway(plugins=judge.plugins)
    async with raw_connection(gateway) as connection:
        lines = ("Content-Length: 5", "X-Act: wait")
        await connection.send(request_head("PUT", "/upload/x", *lines) + b"small")
        await wait_until(judge.has_begun)
        connection.reset()
    await wait_until(lambda: len(gateway.endpoints.inflight) == 0)
    judge.decide()
    assert (await put(gateway, "/upload/y", b"y")).status == 201
    assert stored(tmp_path) == {"y": b"y"}
    assert leftovers(tmp_path / "data") == []


# -- what handlers change


async def test_the_target_and_the_conflict_policy_count_when_the_file_is_published(
    start_gateway: StartGateway, tmp_path: Path, judge: Judge
) -> None:
    gateway = await start_gateway(plugins=judge.plugins, on_conflict="reject")
    moved = await put(gateway, "/upload/x", b"one", "X-Act: path /upload/sub/taken.png")
    assert (moved.status, moved.json["path"], moved.json["mime"]) == (
        201,
        "/upload/sub/taken.png",
        "image/png",
    )
    refused = await put(gateway, "/upload/y", b"two", "X-Act: path /upload/sub/taken.png")
    assert (refused.status, refused.json["error"]) == (409, "conflict")
    uploading = asyncio.create_task(put(gateway, "/upload/z", b"three", "X-Act: wait"))
    await wait_until(judge.has_begun)
    assert (await put(gateway, "/upload/z", b"first")).status == 201
    judge.decide()
    assert (await uploading).json["error"] == "conflict"
    assert stored(tmp_path) == {"sub/taken.png": b"one", "z": b"first"}


async def test_a_handler_that_may_fail_is_left_out_when_it_does(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = tmp_path / "data/plugins"
    write_handler(folder, "handle.result({'first': 1, 'both': 1})", name="a", event=UPLOADING)
    write_handler(
        folder, "event['path'] = '/no'; 1 / 0", name="b", event=RECEIVED, more="on_error: allow\n"
    )
    plugins = write_handler(folder, "handle.result({'both': 2})", name="c", event=RECEIVED)
    gateway = await start_gateway(plugins=plugins)
    answer = await put(gateway, "/upload/x", b"small")
    assert (answer.status, answer.json["path"]) == (201, "/upload/x")
    assert answer.json["result"] == {"first": 1, "both": 2}


async def test_results_of_admission_are_in_the_answers_of_both_paths(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    body = "handle.result({'left': '3 GB'}) if event['path'] != '/upload/plain' else None"
    plugins = write_handler(tmp_path / "data/plugins", body)
    for short in ("true", "false"):
        gateway = await start_gateway(plugins=plugins, short_path=short, directory=str(tmp_path / short))
        answer = await put(gateway, "/upload/x", b"small")
        assert (answer.status, answer.json["result"]) == (201, {"left": "3 GB"})
        assert "result" not in (await put(gateway, "/upload/plain", b"small")).json


async def test_handlers_come_and_go_with_a_reload(start_gateway: StartGateway, tmp_path: Path) -> None:
    folder = tmp_path / "data/plugins"
    plugins = write_handler(folder, "pass")
    gateway = await start_gateway(plugins=plugins)
    assert (await put(gateway, "/upload/a", b"a")).status == 201
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", "/upload/b", "Content-Length: 9") + b"begun")
        await wait_until(lambda: any(p.received for p in gateway.endpoints.inflight._active.values()))
        write_handler(folder, "await handle.terminate(451)", name="judge", event=RECEIVED)
        await gateway.resources.plugins.reload()
        await connection.send(b"late")
        assert (await connection.answer()).status == 451
    assert (await put(gateway, "/upload/c", b"c")).status == 451
    (folder / "judge.yaml").unlink()
    await gateway.resources.plugins.reload()
    assert (await put(gateway, "/upload/d", b"d")).status == 201
    assert sorted(stored(tmp_path)) == ["a", "d"]


async def test_the_handler_is_told_the_digests_that_were_verified_and_the_one_of_the_settings(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    body = "handle.result({'digests': event['digests']})"
    plugins = write_handler(tmp_path / "data/plugins", body, event=RECEIVED)
    gateway = await start_gateway(plugins=plugins, digest="sha256")
    content = b"digest me"
    sha256, md5 = (
        base64.b64encode(hashlib.new(name, content).digest()).decode() for name in ("sha256", "md5")
    )
    plain = await put(gateway, "/upload/x", content, f"Content-MD5: {md5}")
    by_tus = await tus(gateway, "POST", "/upload/y", "Upload-Length: 9", body=content)
    assert plain.json["result"]["digests"] == {"md5": md5, "sha-256": sha256}
    assert by_tus.json["result"]["digests"] == {"sha-256": sha256}
    assert by_tus.json["digest"] == f"sha-256=:{sha256}:"


async def test_what_scripts_save_is_not_decided_about_here_or_through_another_node(
    start_gateway: StartGateway, tmp_path: Path, judge: Judge
) -> None:
    gateway = await start_gateway(plugins=judge.plugins)
    judge.decide("refuse")
    saved = await gateway.resources.scripts.files.save("/upload/here", b"saved")
    assert (saved.path, saved.result) == ("/upload/here", None)
    target = "/-/objects/upload/there"
    call = gateway.resources.base.installation.credentials_for("PUT", URL(gateway.url + target))
    assert call is not None
    answer = await put(
        gateway, target, b"saved", f"X-Gateway-Internal: {call.credential}", "X-Act: wait"
    )
    assert (answer.status, "result" in answer.json) == (201, False)
    assert sorted(stored(tmp_path)) == ["here", "there"]
