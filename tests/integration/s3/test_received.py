"""Handlers judge files on their way into a bucket, by every protocol; nobody else sees them before."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.domain.model import UPLOADED
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.contract.test_held_bodies import held_bodies, is_clean
from tests.contract.test_storage_writer import visible
from tests.support.harness import get, put, raw_connection, request_head, wait_until
from tests.support.received import LARGE, SENDERS, Judge, by_range, large, result_of, small
from tests.support.recorders import recording_events
from tests.support.s3.servers import SeaweedFS
from tests.support.tus import create, patch, tus

pytestmark = pytest.mark.slow


async def keys(s3: SeaweedFS, bucket: str) -> list[str]:
    async with s3.client() as client:
        listed = await client.list_objects_v2(Bucket=bucket)
    found = [entry["Key"] for entry in listed.get("Contents", ())]
    return [key for key in found if not key.endswith("/.gateway/probe")]


async def test_by_every_protocol_a_file_is_visible_as_handlers_leave_it_or_never(
    start_gateway: StartGateway, s3_storage: str, tmp_path: Path
) -> None:
    """Their client waits."""
    judge = Judge(tmp_path / "plugins")
    gateway = await start_gateway(storage=s3_storage, plugins=judge.plugins)
    stored: dict[str, bytes] = {}
    for send in SENDERS:
        name = f"{send.__name__}.bin"
        status, body, told = await send(gateway, name, f"X-Act: path /upload/moved/{name}")
        assert status in {201, 200, 204}, name
        assert (told["path"], told["result"]) == (f"/upload/moved/{name}", result_of(body))
        stored[f"/upload/moved/{name}"] = body
    for send in (small, large, by_range):
        status, _, _ = await send(gateway, "refused", "X-Act: refuse")
        assert status == 422
    await wait_until(lambda: is_clean(gateway))
    assert await visible(gateway) == stored
    for path in stored:
        stat = await gateway.resources.parts.storage.stat(path)
        assert stat.metadata["judged-by"] == "judge"


async def test_by_every_protocol_a_file_is_held_until_handlers_have_decided(
    start_gateway: StartGateway, s3_storage: str, tmp_path: Path
) -> None:
    judge = Judge(tmp_path / "plugins", "hold: true\nretry: {attempts: 2, backoff: 0.1}\n")
    gateway = await start_gateway(storage=s3_storage, plugins=judge.plugins)
    sent: dict[str, tuple[str, bytes]] = {}
    for send in SENDERS:
        name = f"{send.__name__}.bin"
        status, body, told = await send(gateway, name, "X-Act: wait")
        assert status == (201 if name == "by_tus.bin" else 202)
        assert (told["state"], told["bytes"]) == ("held", len(body))
        sent[told["upload_id"]] = f"/upload/{name}", body
    await wait_until(judge.has_begun)
    assert await visible(gateway) == {}
    assert sorted(await held_bodies(gateway)) == sorted(sent)
    judge.decide()
    await wait_until(lambda: is_clean(gateway), seconds=60)
    assert await visible(gateway) == dict(sent.values())
    for upload_id, (_, body) in sent.items():
        story = (await get(gateway, f"/-/uploads/{upload_id}")).json
        assert (story["state"], story["result"]) == ("stored", result_of(body))


async def test_a_private_object_is_served_listed_and_removed_for_nobody(
    start_gateway: StartGateway, s3_storage: str, tmp_path: Path
) -> None:
    judge = Judge(tmp_path / "plugins", "hold: true\n")
    gateway = await start_gateway(
        storage=s3_storage, plugins=judge.plugins, downloads=True, deletes=True, listing=True
    )
    told = await put(gateway, "/upload/x", b"private", "X-Act: wait")
    upload_id = told.json["upload_id"]
    assert await held_bodies(gateway) == [upload_id]
    names = (f"/.gateway/held/{upload_id}", f"/upload/%2e%2e/.gateway/held/{upload_id}")
    for target in (*names, f"/upload/../.gateway/held/{upload_id}", "/.gateway/held/", "/upload/x"):
        for method in ("GET", "HEAD", "DELETE", "PUT"):
            if (method, target) != ("PUT", "/upload/x"):
                async with raw_connection(gateway) as connection:
                    await connection.send(request_head(method, target, "Content-Length: 0"))
                    answer = await connection.head()
                assert answer.status in {400, 403, 404, 405}, (method, target)
    assert upload_id.encode() not in (await get(gateway, "/")).body
    assert [stat.path async for stat in gateway.resources.parts.storage.list("/")] == []
    judge.decide()
    await wait_until(lambda: is_clean(gateway))
    assert await visible(gateway) == {"/upload/x": b"private"}


async def test_what_is_refused_leaves_no_object_and_was_under_a_private_key_only(
    start_gateway: StartGateway, s3: SeaweedFS, s3_storage: str, bucket: str, tmp_path: Path
) -> None:
    judge = Judge(tmp_path / "plugins", "timeout: 30\n")
    gateway = await start_gateway(
        storage=s3_storage, plugins=judge.plugins, downloads="true", listing="true"
    )
    uploading = asyncio.create_task(put(gateway, "/upload/x", LARGE, "X-Act: wait"))
    await wait_until(judge.has_begun)
    assert all("/.gateway/" in key for key in await keys(s3, bucket))
    assert (await get(gateway, "/upload/x")).status == 404
    [upload_id] = gateway.endpoints.inflight._active
    for target in (f"/-/objects/.gateway/held/{upload_id}", f"/upload/.gateway/held/{upload_id}"):
        assert (await get(gateway, target)).status in {400, 401, 403, 404}, target
    judge.decide("refuse")
    assert (await uploading).status == 422
    for body in (b"small", LARGE):
        answer = await put(gateway, "/upload/x", body, "X-Act: path /.gateway/x")
        assert (answer.status, answer.json["error"]) == (503, "hook_failed")
    url = await create(gateway, "/upload/x", "X-Act: refuse", length=10)
    assert (await patch(gateway, url, 0, b"0123456789")).status == 422
    assert (await tus(gateway, "HEAD", url)).status == 404

    async def nothing_left() -> bool:
        return await keys(s3, bucket) == []

    await wait_until(nothing_left)


async def test_handlers_of_stored_files_run_for_what_is_published_only(
    start_gateway: StartGateway, s3_storage: str, tmp_path: Path
) -> None:
    judge, acts = Judge(tmp_path / "plugins"), ["", "refuse"] * 5
    with recording_events() as recorder:
        recorder.write_handler(tmp_path / "plugins", UPLOADED, "hears")
        gateway = await start_gateway(storage=s3_storage, plugins=judge.plugins)
        answers = await asyncio.gather(
            *(put(gateway, f"/upload/{n}", b"x", f"X-Act: {act}") for n, act in enumerate(acts))
        )
        assert [answer.status for answer in answers] == [201, 422] * 5
        heard = [(await recorder.next_event())[1]["path"] for _ in range(5)]
        assert sorted(heard) == [f"/upload/{n}" for n in range(0, 10, 2)]
        assert recorder.is_empty()


async def test_a_handler_that_reads_as_it_likes_gets_the_bytes_it_asks_for(
    start_gateway: StartGateway, s3_storage: str, tmp_path: Path
) -> None:
    """A script executor has a client of its own; the private object is read by it."""
    judge = Judge(tmp_path / "plugins")
    gateway: Gateway = await start_gateway(storage=s3_storage, plugins=judge.plugins)
    for size in (0, 1, 9_000_000):
        body = b"z" * size
        answer = await put(gateway, "/upload/x", body)
        assert (answer.status in {200, 201}, answer.json["result"]) == (True, result_of(body))
