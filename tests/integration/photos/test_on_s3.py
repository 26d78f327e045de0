"""plugins/photos with its photos in a bucket of a real S3 server: the same set, the same clients."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientSession, encode_basic_auth

from tests.conftest import StartProcess
from tests.integration.photos.browser import visiting
from tests.integration.photos.conftest import Serve
from tests.integration.photos.scenes import NAMES, scene
from tests.integration.photos.service import EVENT, Client
from tests.support import PROJECT
from tests.support.doc_pages import blocks
from tests.support.pictures import opened, photo, picture
from tests.support.s3.servers import S3Server

pytestmark = pytest.mark.slow

SECRET = "a secret that the store shows"
PAGE = PROJECT / "docs/how-to/photo-service.md"


@pytest.fixture
async def client(serve: Serve, server: S3Server, bucket: str, tmp_path: Path) -> Client:
    """A client of a gateway that keeps all in the bucket and takes its notifications."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    return await serve(storage=f"s3://{bucket}/a prefix", notifications_secret_file=str(secret))


async def keys(s3: S3Server, bucket: str) -> set[str]:
    """What lies in the bucket below the gateway's prefix, without its own state."""
    async with s3.client() as store:
        found = await store.list_objects_v2(Bucket=bucket)
    names = {one["Key"].removeprefix("a prefix/") for one in found.get("Contents", ())}
    return {name for name in names if not name.startswith(".gateway/")}


async def notify(client: Client, bucket: str, key: str) -> None:
    """Tell the gateway of an object, in the form in which stores do."""
    told = {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put"}
    described = {"bucket": {"name": bucket}, "object": {"key": f"a+prefix/{key}", "sequencer": "01"}}
    body = json.dumps({"Records": [{**told, "s3": described}]})
    where = f"{client.url}/-/notifications"
    shown = {"Authorization": encode_basic_auth("gateway", SECRET)}
    async with client.session.post(where, data=body, headers=shown) as answer:
        assert answer.status == 200, await answer.text()


async def test_the_published_client_sends_straight_to_the_bucket_and_the_photo_is_looked_at(
    client: Client, server: S3Server, bucket: str
) -> None:
    facts = {"title": "기조 연설", "description": "Steve walking out on stage"}
    status, begun = await client.initiate(**facts, contentType="image/jpeg")
    assert status == 201
    url, photo_id = begun["s3PutObjectUrl"], begun["photoId"]
    assert url.startswith(f"{server.url}/")
    content = photo(size=(1000, 500))
    assert await client.put(url, content, "image/png") == 403
    assert await client.put(url, content, "image/jpeg") == 200
    key = f"uploads/event_{EVENT}/{photo_id}.jpg"
    await notify(client, bucket, key)

    [told] = await client.looked_at(photo_id)
    assert told.items() >= {**facts, "state": "ready", "width": 500, "height": 1000}.items()
    assert [one["id"] for one in await client.listed()] == [photo_id]
    for name in ("url", "thumbnailUrl", "originalUrl"):
        assert told[name].startswith(f"{server.url}/")
    assert (await client.fetch(told["originalUrl"]))[2] == content
    status, content_type, thumb = await client.fetch(told["thumbnailUrl"])
    assert (status, content_type, opened(thumb).size) == (200, "image/webp", (240, 480))
    place = f"event_{EVENT}/{photo_id}.webp"
    assert await keys(server, bucket) == {key, f"photos/{place}", f"thumbs/{place}"}

    await notify(client, bucket, key)
    assert (await client.ask("DELETE", f"{client.photos}/{photo_id}"))[0] == 204
    assert await keys(server, bucket) == set()
    assert await client.listed() == []


async def test_what_is_no_picture_is_rejected_and_leaves_the_bucket(
    client: Client, server: S3Server, bucket: str
) -> None:
    _, begun = await client.initiate()
    assert await client.put(begun["s3PutObjectUrl"], b"I am no picture") == 200
    await notify(client, bucket, f"uploads/event_{EVENT}/{begun['photoId']}.png")
    [told] = await client.looked_at(begun["photoId"])
    assert (told["state"], "no picture" in told["reason"]) == ("rejected", True)
    while await keys(server, bucket):  # the record comes first
        await client.listed()


async def test_a_photo_whose_notification_was_lost_is_found(
    serve: Serve, s3_storage: str, s3: S3Server
) -> None:
    client = await serve(storage=s3_storage, reconcile_after="1")
    photo_id = await client.upload()
    [told] = await client.looked_at(photo_id)
    assert (told["state"], told["title"]) == ("ready", "Keynote Speech")


async def test_photos_may_come_through_the_gateway_and_then_the_bucket_needs_nothing(
    serve: Serve, s3_storage: str, s3: S3Server, bucket: str
) -> None:
    client = await serve(storage=s3_storage, config={"through": "gateway"})
    _, begun = await client.initiate()
    url = begun["s3PutObjectUrl"]
    assert urlsplit(url).path.startswith("/-/objects/")
    assert await client.put(url, picture()) == 201
    assert await client.put(url, picture()) in {409, 412}
    [told] = await client.looked_at(begun["photoId"])
    assert await client.fetch(told["originalUrl"]) == (200, "image/png", picture())
    assert len(await keys(s3, bucket)) == 3


async def test_whoever_sets_a_bucket_up_as_the_page_says_sends_to_it_from_a_browser(
    gateway_process: StartProcess,
    session: ClientSession,
    s3: S3Server,
    s3_storage: str,
    bucket: str,
    tmp_path: Path,
) -> None:
    text = {block.language: block.text for block in blocks(PAGE) if "gateway --directory" in block.text}
    [command] = [line for line in text["console"].splitlines() if line.startswith("gateway ")]
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    flags = command.replace(" secret", f" {tmp_path}/secret").replace(
        "s3://event-photos/site", "STORAGE"
    )
    words = [s3_storage if word == "STORAGE" else word for word in shlex.split(flags)]
    assert words[:3] == ["gateway", "--directory", "photo-data"]
    client = Client(session, gateway_process(*words[3:]).url)

    [rules] = [block.text for block in blocks(PAGE) if "CORSRules" in block.text]
    async with s3.client() as store:
        told = json.loads(rules.replace("http://127.0.0.1:8080", client.url))
        await store.put_bucket_cors(Bucket=bucket, CORSConfiguration=told)
    sent: list[Any] = []
    async with visiting() as visit:
        await visit.open(client.url)
        visit.page.on("request", lambda one: sent.append(one) if one.method == "PUT" else None)
        await visit.choose((f"{NAMES[0]}.jpg", "image/jpeg", scene(0)))
        await visit("#jobs .state").filter(has_text="Making the thumbnail").wait_for()
        assert [one.url.startswith(f"{s3.url}/") for one in sent] == [True]
        [key] = await keys(s3, bucket)
        await notify(client, bucket, key)
        await visit.shows(1)
        assert visit.said == []
