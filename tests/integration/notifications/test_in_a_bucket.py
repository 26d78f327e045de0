"""Object events with a real bucket: what the gateway stores, what clients put there, what is lost."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from gateway.errors import Refusal
from gateway.settings.values import Bucket
from gateway.storage.s3.client import Clients
from gateway.storage.s3.storage import S3Storage
from tests.conftest import StartProcess
from tests.support.harness import (
    GatewayProcess,
    RawResponse,
    complete_lines,
    get,
    put,
    raw_connection,
    request_head,
    wait_settled,
    write_plugin,
)
from tests.support.notifications.samples import amazon, records

pytestmark = pytest.mark.slow

SECONDS = 30.0

PLUGINS = """
- name: seen
  event: APIGW.OnObjectCreated
  script: |
    async def seen(event, handle):
        async with files.open(event) as file:
            content = await file.read()
        with open("FOLDER/seen", "a") as log:
            log.write(json.dumps({**event, "content": content.decode()}) + "\\n")
- name: failed
  event: APIGW.OnFileUploadFailed
  script: |
    async def failed(event, handle):
        with open("FOLDER/failed", "a") as log:
            log.write(json.dumps(event) + "\\n")
- upstreams: []
  name: sign
  proxy: {path: /sign, authorization: {auth: none}}
  request_script: |
    return await sign_url("PUT", request.params["path"][0], content_type="image/png",
                          max_length=10, metadata={"title": "Sunrise"})
  spec: [{command: callout, method: GET}]
"""


@pytest.fixture
def plugins(tmp_path: Path) -> str:
    return str(write_plugin(tmp_path / "p", PLUGINS.replace("FOLDER", str(tmp_path))))


def flags(plugins: str, storage: str) -> tuple[str, ...]:
    return "--auth", "none", "--plugins", plugins, "--storage", storage


def lines(tmp_path: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in complete_lines(tmp_path / name)]


async def awaited(tmp_path: Path, name: str, count: int = 1) -> list[dict[str, Any]]:
    deadline = time.monotonic() + SECONDS
    while len(lines(tmp_path, name)) < count and time.monotonic() < deadline:
        await asyncio.sleep(0.05)  # the handler's file is the only sign
    return lines(tmp_path, name)


async def put_signed(gateway: GatewayProcess, path: str, content: bytes) -> str:
    """Put an object with a presigned URL; return its entity tag."""
    url = URL((await get(gateway, f"/sign?path={path}")).body.decode(), encoded=True)
    headers = {"Content-Type": "image/png"}
    async with aiohttp.request("PUT", url, data=content, headers=headers) as answer:
        assert answer.status == 200
        return answer.headers["ETag"]


async def notify(gateway: GatewayProcess, bucket: str, key: str, **changes: Any) -> RawResponse:
    record = amazon(key=key.replace(" ", "+"), **changes)
    record["s3"]["bucket"]["name"] = bucket
    async with raw_connection(gateway) as client:
        body = records(record)
        await client.send(
            request_head("POST", "/-/notifications", f"Content-Length: {len(body)}") + body
        )
        return await client.answer()


async def test_what_the_gateway_stores_is_told_once(
    gateway_process: StartProcess, plugins: str, s3_storage: str, bucket: str, tmp_path: Path
) -> None:
    gateway = gateway_process(*flags(plugins, s3_storage))
    answer = await put(gateway, "/upload/a.txt", b"hello", "X-Amz-Meta-Title: Sunset")
    (event,) = await awaited(tmp_path, "seen")
    assert (event["key"], event["path"], event["bucket"]) == ("upload/a.txt", "/upload/a.txt", bucket)
    assert (event["metadata"], event["content"]) == ({"title": "Sunset"}, "hello")
    assert (event["filepath"], event["upload_id"]) == (None, answer.json["upload_id"])
    told = await notify(gateway, bucket, "a prefix/upload/a.txt", eTag=event["etag"])
    assert told.json == {"notifications": {"own": 1}}
    await wait_settled(gateway)
    assert len(lines(tmp_path, "seen")) == 1


async def test_what_another_machine_stores_is_never_removed_and_never_told_again(
    gateway_process: StartProcess, plugins: str, s3_storage: str, bucket: str, tmp_path: Path
) -> None:
    """One gave a URL out that nobody uses; the other stores what that URL would not have allowed."""
    key = tmp_path / "installation.key"
    key.write_text("k" * 32)
    key.chmod(0o600)
    both = *flags(plugins, s3_storage), "--installation-key-file", str(key)
    asked = gateway_process(*both, "--reconcile-after", "1")
    other = gateway_process(*both, directory=tmp_path / "other")
    await get(asked, "/sign?path=/upload/a.txt")
    title = "X-Amz-Meta-Title: Sunrise"  # as what comes by the URL has it
    assert (await put(other, "/upload/a.txt", b"far too many letters", title)).status == 201
    (event,) = await awaited(tmp_path, "seen")
    told = await notify(asked, bucket, "a prefix/upload/a.txt", eTag=event["etag"])
    assert told.json == {"notifications": {"own": 1}}
    await put_signed(asked, "/photos/later.png", b"pixels")  # it is looked for after the other
    assert [one["key"] for one in await awaited(tmp_path, "seen", 2)] == [
        "upload/a.txt",
        "photos/later.png",
    ]
    assert lines(tmp_path, "failed") == []
    assert (await put(other, "/upload/a.txt", b"again", title)).status == 200


async def test_what_a_client_puts_there_is_told_by_the_store(
    gateway_process: StartProcess, plugins: str, s3_storage: str, bucket: str, tmp_path: Path
) -> None:
    gateway = gateway_process(*flags(plugins, s3_storage))
    etag = await put_signed(gateway, "/photos/a.png", b"pixels")
    told = await notify(gateway, bucket, "a prefix/photos/a.png", eTag=etag, size=6)
    assert told.json == {"notifications": {"told": 1}}
    (event,) = await awaited(tmp_path, "seen")
    assert (event["key"], event["mime"], event["content"]) == ("photos/a.png", "image/png", "pixels")
    assert (event["metadata"], event["bytes"]) == ({"title": "Sunrise"}, 6)
    assert (event["upload_id"], event["principal"], event["filepath"]) == (None, None, None)


async def test_what_nobody_tells_of_is_found(
    gateway_process: StartProcess, plugins: str, s3_storage: str, bucket: str, tmp_path: Path
) -> None:
    gateway = gateway_process(*flags(plugins, s3_storage), "--reconcile-after", "1")
    await put_signed(gateway, "/photos/b.png", b"pixels")
    (event,) = await awaited(tmp_path, "seen")
    assert (event["path"], event["metadata"]) == ("/photos/b.png", {"title": "Sunrise"})
    async with asyncio.timeout(SECONDS):  # handlers are told first, and only then is it noted
        while b'{end="reconciled"} 1.0' not in (await get(gateway, "/-/metrics")).body:
            await asyncio.sleep(0.05)
    late = await notify(gateway, bucket, "a prefix/photos/b.png", eTag=event["etag"])
    assert late.json == {"notifications": {"duplicate": 1}}
    metrics = (await get(gateway, "/-/metrics")).body.decode()
    assert 'gateway_initiated_uploads_total{end="reconciled"} 1.0' in metrics


async def test_what_is_larger_than_allowed_is_removed_and_told_as_failed(
    gateway_process: StartProcess, plugins: str, s3_storage: str, bucket: str, tmp_path: Path
) -> None:
    gateway = gateway_process(*flags(plugins, s3_storage), "--reconcile-after", "1")
    await put_signed(gateway, "/photos/c.png", b"far too many pixels")
    (event,) = await awaited(tmp_path, "failed")
    assert (event["path"], event["reason"], event["bytes"]) == ("/photos/c.png", "too_large", 19)
    clients = Clients()
    with pytest.raises(Refusal, match="no such file"):
        await S3Storage(Bucket(bucket, "a prefix"), clients).stat("/photos/c.png")
    await clients.close()
    assert lines(tmp_path, "seen") == []
