"""plugins/photos with users of an Amazon Cognito pool: the published client, and the page."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from playwright.async_api import expect

from tests.jwt.cognito import Pool, make_pool, moto_server
from tests.photos.browser import visiting
from tests.photos.conftest import Serve
from tests.photos.pictures import picture

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with moto_server(tmp_path_factory.mktemp("moto") / "log") as url:
        yield asyncio.run(make_pool(url))


async def test_the_published_client_shows_its_id_token_and_owns_its_photo(
    serve: Serve, pool: Pool
) -> None:
    client = await serve(auth="jwt", **pool.flags)
    where = f"{client.photos}/initiate-upload"
    facts = {"title": "my title", "description": "my description", "contentType": "image/png"}
    for shown, status in (("", 401), (pool.id_token + "x", 401), (pool.id_token, 201)):
        # Without the word Bearer, as that client sends it.
        headers = {"Authorization": shown}
        async with client.session.post(where, json=facts, headers=headers) as answer:
            assert answer.status == status
            begun = await answer.json()
    assert await client.put(begun["s3PutObjectUrl"], picture()) == 201
    client.token = pool.access_token
    [told] = await client.looked_at(begun["photoId"])
    assert (told["title"], told["removable"]) == ("my title", True)
    assert told["owner"], "the subject of the pool's user"


async def test_the_page_takes_a_token_of_the_pool(serve: Serve, pool: Pool) -> None:
    client = await serve(auth="jwt", **pool.flags)
    async with visiting() as visit:
        await visit.open(client.url)
        await expect(visit("#token")).to_be_focused()
        await visit("#token").fill(pool.id_token)
        await visit.page.keyboard.press("Enter")
        await expect(visit("#gate")).to_be_hidden()
        await visit.choose(("small.png", "image/png", picture()))
        await visit.shows(1)
        assert [line for line in visit.said if "401" not in line] == []
