"""plugins/photos behind `--auth jwt`: who signed in at a user pool may, nobody else."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.async_api import expect

from tests.integration.photos.browser import visiting
from tests.integration.photos.conftest import Serve
from tests.integration.photos.service import Client
from tests.support.jwt.cognito import Pool, make_pool, moto_server
from tests.support.pictures import picture

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with moto_server(tmp_path_factory.mktemp("moto") / "log") as url:
        yield asyncio.run(make_pool(url))


def with_(client: Client, token: str) -> Client:
    return dataclasses.replace(client, token=token)


async def test_uploads_begin_with_a_token_of_the_pool_and_not_without(serve: Serve, pool: Pool) -> None:
    client = await serve(auth="jwt", **pool.flags)
    assert (await client.initiate())[0] == 401
    forged = pool.id_token[:-8] + "AAAAAAAA"
    for bad in ("", "junk", forged, pool.id_token.rpartition(".")[0]):
        assert (await with_(client, bad).initiate())[0] == 401
        assert (await with_(client, bad).ask("GET", client.photos))[0] == 401
    for token in (pool.id_token, pool.access_token):
        status, begun = await with_(client, token).initiate()
        assert status == 201
        # The signed URL is enough for the bytes: the published client sends no token with them.
        assert token not in begun["s3PutObjectUrl"]
        assert await client.put(begun["s3PutObjectUrl"], picture()) == 201
        bare = urlsplit(begun["s3PutObjectUrl"])._replace(query="").geturl()
        assert await client.put(bare, picture()) in {401, 403}


async def test_a_photo_is_its_users_whichever_of_the_pools_tokens_is_shown(
    serve: Serve, pool: Pool
) -> None:
    client = await serve(auth="jwt", **pool.flags)
    ann = with_(client, pool.id_token)
    photo_id = await ann.upload()
    [told] = await ann.looked_at(photo_id)
    assert told["state"] == "ready"
    again = with_(client, pool.access_token)
    assert [(one["id"], one["removable"]) for one in await again.listed()] == [(photo_id, True)]
    assert (await client.fetch(told["thumbnailUrl"]))[:2] == (200, "image/webp")
    assert (await client.ask("DELETE", f"{client.photos}/{photo_id}"))[0] == 401
    assert (await again.ask("DELETE", f"{client.photos}/{photo_id}"))[0] in {200, 204}
    assert await again.listed() == []


async def test_the_published_client_shows_its_token_without_the_word_bearer(
    serve: Serve, pool: Pool
) -> None:
    client = await serve(auth="jwt", **pool.flags)
    where = f"{client.photos}/initiate-upload"
    facts = {"title": "my title", "description": "my description", "contentType": "image/png"}
    for shown, status in (("", 401), (f"{pool.id_token}x", 401), (pool.id_token, 201)):
        headers = {"Authorization": shown}
        async with client.session.post(where, json=facts, headers=headers) as answer:
            assert answer.status == status


async def test_the_page_takes_a_token_of_the_pool(serve: Serve, pool: Pool) -> None:
    client = await serve(auth="jwt", **pool.flags)
    async with visiting() as visit:
        await visit.open(client.url)
        await expect(visit("#gate")).to_be_visible()
        await visit("#token").fill(pool.access_token)
        await visit.page.keyboard.press("Enter")
        await expect(visit("#gate")).to_be_hidden()
        await visit.choose(("lantern.png", "image/png", picture()))
        await visit.shows(1)
        assert [line for line in visit.said if "401" not in line] == []
