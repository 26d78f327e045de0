"""202 over real sockets: what the client is told, and what becomes of the file once it is decided."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.domain.model import RECEIVED, UPLOAD_FAILED, UPLOADED
from tests.conftest import StartGateway
from tests.support.harness import files_below, get, put, wait_until
from tests.support.received import SENDERS, Judge, Send, is_clean, result_of
from tests.support.recorders import EventRecorder, write_handler
from tests.support.tus import create, offset_of, patch


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    return Judge(tmp_path / "data/plugins", "hold: true\nretry: {attempts: 2, backoff: 0.1}\n")


@pytest.mark.parametrize("send", SENDERS, ids=lambda send: send.__name__)
async def test_by_every_protocol_a_held_file_is_told_as_such_and_published_when_it_is_accepted(
    start_gateway: StartGateway, tmp_path: Path, judge: Judge, send: Send
) -> None:
    write_handler(tmp_path / "data/plugins", "handle.result({'first': 1})", name="a", event=RECEIVED)
    gateway = await start_gateway(plugins=judge.plugins)
    status, body, told = await send(gateway, "x.bin", "X-Act: wait")
    assert status == (201 if send.__name__ == "by_tus" else 202)
    upload_id = told["upload_id"]
    assert told == {
        "upload_id": upload_id,
        "state": "held",
        "path": "/upload/x.bin",
        "bytes": len(body),
        "mime": "application/octet-stream",
        "result": {"first": 1},
    }
    await wait_until(judge.has_begun)
    story = (await get(gateway, f"/-/uploads/{upload_id}")).json
    assert (story["state"], story["result"]) == ("held", {"first": 1})
    assert files_below(tmp_path / "data/upload") == {}
    judge.decide("path /upload/moved/y.bin")

    async def stored() -> bool:
        return str((await get(gateway, f"/-/uploads/{upload_id}")).json["state"]) == "stored"

    await wait_until(stored)
    assert files_below(tmp_path / "data/upload") == {"moved/y.bin": body}
    story = (await get(gateway, f"/-/uploads/{upload_id}")).json
    assert story["result"] == {"first": 1, **result_of(body)}
    stat = await gateway.resources.scripts.files.stat("/upload/moved/y.bin")
    assert stat.metadata == {"judged-by": "judge"}


async def test_a_held_file_that_is_refused_leaves_its_story(
    start_gateway: StartGateway, tmp_path: Path, judge: Judge, recorder: EventRecorder
) -> None:
    recorder.write_handler(tmp_path / "data/plugins", UPLOAD_FAILED, "failed")
    recorder.write_handler(tmp_path / "data/plugins", UPLOADED, "uploaded")
    gateway = await start_gateway(plugins=judge.plugins)
    held = await put(gateway, "/upload/x", b"held", "X-Act: refuse")
    assert held.status == 202
    name, event = await recorder.next_event()
    assert (name, event["reason"], event["upload_id"]) == ("failed", "rejected", held.json["upload_id"])
    story = (await get(gateway, held.headers["Location"])).json
    assert story["state"] == "rejected"
    assert (story["refusal"]["handler"], story["refusal"]["status"]) == ("judge", 422)
    await wait_until(lambda: is_clean(tmp_path / "data"))
    assert list((tmp_path / "data/.gateway/held").iterdir()) == []


async def test_a_held_upload_of_tus_is_complete_for_its_client(
    start_gateway: StartGateway, tmp_path: Path, judge: Judge
) -> None:
    gateway = await start_gateway(plugins=judge.plugins)
    url = await create(gateway, "/upload/x", "X-Act: wait", length=10)
    assert (await patch(gateway, url, 0, b"0123456789")).status == 204
    assert await offset_of(gateway, url) == 10
    await wait_until(judge.has_begun)
    judge.decide()
    await wait_until(lambda: files_below(tmp_path / "data/upload") == {"x": b"0123456789"})
    assert await offset_of(gateway, url) == 10
