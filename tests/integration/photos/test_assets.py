"""plugins/photos: the files of the page, and the policy that they come under."""

from __future__ import annotations

import pytest

from tests.integration.photos.conftest import Serve
from tests.unit.shipped_plugins.test_photo_page import PAGE


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/photos/", "text/html"),
        ("/photos/index.html", "text/html"),
        ("/photos/app.js", "text/javascript"),
        ("/photos/style.css", "text/css"),
        ("/photos/icon.svg", "image/svg+xml"),
    ],
)
async def test_the_page_is_served_with_a_policy_that_allows_nothing_inline_and_nobody_else(
    serve: Serve, path: str, content_type: str
) -> None:
    client = await serve(auth="token")
    async with client.session.get(client.url + path) as answer:
        assert (answer.status, answer.content_type) == (200, content_type)
        assert await answer.read() == (PAGE / (path.rpartition("/")[2] or "index.html")).read_bytes()
        policy = answer.headers["Content-Security-Policy"]
        tag = answer.headers["ETag"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == "'self'"
    assert rules["img-src"] == "'self' blob:"
    assert rules["connect-src"] == "'self'"
    assert "unsafe" not in policy
    async with client.session.get(client.url + path, headers={"If-None-Match": tag}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")


async def test_the_page_is_found_without_its_slash_and_nothing_beside_it_is_served(serve: Serve) -> None:
    client = await serve()
    async with client.session.get(f"{client.url}/photos", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (308, "/photos/")
    for name in ("..%2Fphotos.yaml", "photos.yaml", ".hidden", "photo_page.py", "a%00"):
        async with client.session.get(f"{client.url}/photos/{name}") as answer:
            assert answer.status in {400, 404}


async def test_the_page_is_told_what_is_taken_here(serve: Serve) -> None:
    client = await serve(config={"max_bytes": 1234})
    _, told = await client.ask("GET", f"{client.url}/photos/settings.json")
    assert (told["maxBytes"], "image/png" in told["types"]) == (1234, True)
