"""Handlers of OnFileReceived where files are objects: the private object is read, and never visible."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.conftest import StartGateway
from tests.support.harness import get, put, wait_until
from tests.support.received import LARGE, SENDERS, Judge, result_of
from tests.support.s3.servers import SeaweedFS
from tests.support.tus import create, patch, tus

pytestmark = pytest.mark.slow


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    return Judge(tmp_path / "data/plugins", "timeout: 30\n")


async def keys(s3: SeaweedFS, bucket: str) -> list[str]:
    async with s3.client() as client:
        listed = await client.list_objects_v2(Bucket=bucket)
    found = [entry["Key"] for entry in listed.get("Contents", ())]
    return [key for key in found if not key.endswith("/.gateway/probe")]


async def test_by_every_protocol_the_handler_reads_the_private_object(
    start_gateway: StartGateway, s3: SeaweedFS, s3_storage: str, bucket: str, judge: Judge
) -> None:
    gateway = await start_gateway(storage=s3_storage, plugins=judge.plugins)
    files = gateway.resources.scripts.files
    for send in SENDERS:
        name = f"{send.__name__}.bin"
        status, body, told = await send(gateway, name)
        assert (status, told["result"]) == (201, result_of(body)), name
        assert (await files.stat(f"/upload/{name}")).metadata == {"judged-by": "judge"}, name
        async with files.open_path(f"/upload/{name}") as stored:
            assert await stored.read() == body, name
        story = (await get(gateway, f"/-/uploads/{told['upload_id']}")).json
        assert (story["state"], story["result"]) == ("stored", result_of(body))

    async def only_published() -> bool:
        return all("/.gateway/held/" not in key for key in await keys(s3, bucket))

    await wait_until(only_published)
    published = [key for key in await keys(s3, bucket) if "/.gateway/" not in key]
    assert len(published) == len(SENDERS)


async def test_what_is_refused_leaves_no_object_and_was_under_a_private_key_only(
    start_gateway: StartGateway, s3: SeaweedFS, s3_storage: str, bucket: str, judge: Judge
) -> None:
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


async def test_by_every_protocol_a_held_object_is_published_when_it_is_accepted(
    start_gateway: StartGateway, s3: SeaweedFS, s3_storage: str, bucket: str, tmp_path: Path
) -> None:
    judge = Judge(tmp_path / "data/plugins", "hold: true\nconcurrency: 8\n")
    gateway = await start_gateway(storage=s3_storage, plugins=judge.plugins)
    sent: dict[str, tuple[str, bytes]] = {}
    for send in SENDERS:
        name = f"{send.__name__}.bin"
        status, body, told = await send(gateway, name, "X-Act: wait")
        assert (status, told["state"]) == (201 if send.__name__ == "by_tus" else 202, "held"), name
        sent[told["upload_id"]] = name, body
    assert all("/.gateway/" in key for key in await keys(s3, bucket))
    judge.decide()

    async def all_stored() -> bool:
        pages = [await get(gateway, f"/-/uploads/{upload_id}") for upload_id in sent]
        return all(page.json["state"] == "stored" for page in pages)

    await wait_until(all_stored)
    files = gateway.resources.scripts.files
    for upload_id, (name, body) in sent.items():
        async with files.open_path(f"/upload/{name}") as stored:
            assert await stored.read() == body, name
        page = (await get(gateway, f"/-/uploads/{upload_id}")).json
        assert page["result"] == result_of(body), name
