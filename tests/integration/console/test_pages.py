"""The files of the gateway's pages: open to all, without data, under a strict policy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.endpoints.console.static_files import STATIC
from tests.support.harness import RawResponse, get, raw_connection, request_head
from tests.support.routing.scripted import Serve

CSS = STATIC / "gateway.css"
STATIC_FILES = [path for path in STATIC.rglob("*") if path.is_file()]
FILES = {f"/-/pages/{path.relative_to(STATIC)}": path for path in STATIC_FILES if path.suffix != ".html"}
KINDS = {
    ".html": "text/html", ".css": "text/css", ".js": "text/javascript",
    ".svg": "image/svg+xml", ".json": "application/json",
}  # fmt: skip


STORED = {"texts.js": "localStorage", "guest.js": "sessionStorage"}
"""What a script keeps: the chosen language; until the tab is closed, what a link's password gave."""


def assert_strict(answer: RawResponse, kind: str) -> None:
    assert answer.headers["Content-Type"] == f"{kind}; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules.pop("default-src") == rules.pop("frame-ancestors") == "'none'"
    assert rules.pop("require-trusted-types-for") == "'script'"
    assert rules.pop("img-src") == "'self' blob: data:"
    assert rules.pop("font-src") == "'self' data:"
    assert set(rules.values()) == {"'self'", "'none'"}
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"


async def test_files_are_served_with_a_policy_that_allows_nothing_inline_and_no_other_host(
    serve: Serve,
) -> None:
    gateway = await serve()
    for path, file in FILES.items():
        answer = await get(gateway, path)
        assert (answer.status, answer.body) == (200, file.read_bytes()), path
        assert_strict(answer, KINDS[file.suffix])
        assert answer.headers["Cache-Control"] == "no-cache"
        again = await get(gateway, path, f"If-None-Match: {answer.headers['ETag']}")
        assert (again.status, again.body) == (304, b"")
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("HEAD", "/-/pages/gateway.css"))
        head = await connection.answer(head=True)
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(CSS.read_bytes())))


async def test_pages_name_the_version_of_their_files_which_caches_may_keep(serve: Serve) -> None:
    gateway = await serve()
    page = await get(gateway, "/-/docs")
    assert_strict(page, "text/html")
    assert page.headers["Cache-Control"] == "no-cache"
    urls = re.findall(rb'(?:href|src)="\./(pages/[^"]+)"', page.body)
    assert len(urls) == 5
    for url in urls:
        file = await get(gateway, f"/-/{url.decode()}")
        assert file.status == 200
        assert file.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    old = await get(gateway, "/-/pages/v-0000000000000000/gateway.css")
    assert (old.body, old.headers["Cache-Control"]) == (CSS.read_bytes(), "no-cache")


async def test_nothing_beside_the_files_is_served(serve: Serve) -> None:
    gateway = await serve()
    for name in ("handler.py", "..%2Fhandler.py", "%2e%2e%2Fhandler.py", "a%00", ".hidden", "none.js"):
        assert (await get(gateway, f"/-/pages/{name}")).status in {400, 404}, name


@pytest.mark.parametrize("file", sorted(STATIC.rglob("*.js")), ids=lambda file: file.name)
def test_scripts_write_texts_not_markup(file: Path) -> None:
    source = file.read_text()
    markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function"
    stored = {"localStorage", "sessionStorage"} - {STORED.get(file.name)}
    assert re.findall("|".join([markup, *stored]), source) == []


def test_files_of_pages_are_small() -> None:
    sources = [file for file in STATIC_FILES if file.suffix != ".json"]
    assert {file.name for file in sources if len(file.read_text().splitlines()) > 300} == set()


async def test_the_page_holds_no_data_and_says_where_programs_look(serve: Serve) -> None:
    gateway = await serve()
    assert (await get(gateway, "/")).json["docs"] == "/-/docs"
    assert b"/-/openapi.json" in (await get(gateway, "/-/docs")).body
