"""Photos of iPhones in plugins/photos: taken with the extra `heic`, else refused with what to do."""

from __future__ import annotations

import io

import pillow_heif
import pytest
from PIL import Image
from playwright.async_api import expect

from tests.integration.photos.browser import visiting
from tests.integration.photos.conftest import Serve
from tests.support.pictures import picture

pytestmark = pytest.mark.integration


def heic() -> bytes:
    file = io.BytesIO()
    image = Image.open(io.BytesIO(picture(size=(640, 480))))
    pillow_heif.from_pillow(image).save(file, quality=80)
    return file.getvalue()


async def test_a_heic_photo_gets_its_copies(serve: Serve) -> None:
    client = await serve()
    photo_id = await client.upload(heic(), contentType="image/heic")
    [photo] = await client.looked_at(photo_id)
    assert (photo["state"], photo["width"], photo["height"]) == ("ready", 640, 480)
    status, kind, copy = await client.fetch(photo["url"])
    assert (status, kind) == (200, "image/webp")
    assert Image.open(io.BytesIO(copy)).size == (640, 480)


async def test_a_heic_photo_with_too_many_pixels_is_rejected(serve: Serve) -> None:
    client = await serve(config={"max_pixels": 1000})
    [photo] = await client.looked_at(await client.upload(heic(), contentType="image/heic"))
    assert photo["state"] == "rejected"


@pytest.mark.slow
async def test_the_page_tells_how_to_switch_heic_off_where_it_is_not_taken(serve: Serve) -> None:
    client = await serve(config={"heic": "never"})
    assert (await client.initiate(contentType="image/heic"))[0] == 400
    async with visiting() as visit:
        await visit.open(client.url)
        await visit.choose(("IMG_0001.HEIC", "", heic()))
        await expect(visit("#jobs .state")).to_have_text(
            "HEIC photos are not taken here. On an iPhone: Settings, Camera, Formats, Most Compatible; "
            "then photos are JPEG."
        )
