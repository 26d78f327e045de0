"""Lists of folders of a bucket: what the gateway keeps there for itself is in none."""

from __future__ import annotations

import pytest

from tests.conftest import StartGateway
from tests.support.harness import get, put
from tests.support.s3.servers import SeaweedFS

pytestmark = pytest.mark.slow


async def test_a_folder_of_a_bucket_is_listed_in_pages(
    start_gateway: StartGateway, s3: SeaweedFS, bucket: str, s3_storage: str
) -> None:
    gateway = await start_gateway(listing=True, downloads=True, storage=s3_storage)
    assert (await get(gateway, "/upload/")).json["entries"] == []
    for name in ("a", "b/1", "b/2", "c", "d/e/f", "z%C3%BC"):
        assert (await put(gateway, f"/upload/{name}", b"12345")).status == 201
    async with s3.client() as client:
        for key in (".gateway/held/x", "upload/folder marker/"):
            await client.put_object(Bucket=bucket, Key=f"a prefix/{key}", Body=b"")
    names: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        more = f"&cursor={cursor}" if cursor else ""
        page = (await get(gateway, f"/upload/?limit=2{more}")).json
        names += [entry["name"] for entry in page["entries"]]
        cursor = page["next"]
    assert sorted(names) == ["a", "b", "c", "d", "folder marker", "zü"]
    below = (await get(gateway, "/upload/b/")).json["entries"]
    assert [entry["name"] for entry in below] == ["1", "2"]
    assert (below[0]["bytes"], below[0]["mime"]) == (5, None)
    sent = await get(gateway, "/upload/b/1")
    assert sent.headers["ETag"] == f'"{below[0]["etag"]}"'
    assert (await get(gateway, "/upload/none/")).status == 404
    for query in ("cursor=Zi4uLw", "cursor=Znh4eHg", "cursor=Zv8"):
        assert (await get(gateway, f"/upload/?{query}")).status in {200, 400}
    html = (await get(gateway, "/upload/", "Accept: text/html")).body
    assert b".gateway" not in html
