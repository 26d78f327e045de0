"""Browsers get pages where programs get JSON, from nothing but the path and `Accept`."""

from __future__ import annotations

import pytest

from tests.integration.console.shell.visits import BROWSER
from tests.support.harness import get, raw_connection, request_head
from tests.support.routing.scripted import Serve, route

pytestmark = pytest.mark.slow

PROGRAM = "Accept: application/json"
FRONT = route("/", 'return 200, "front", {"Content-Type": "text/html"}')


@pytest.mark.parametrize("path", ["/", "/-/", "/-/events", "/-/uploads/none", "/-/session"])
async def test_a_path_has_a_page_for_browsers_and_caches_are_told(serve: Serve, path: str) -> None:
    gateway = await serve()
    page = await get(gateway, path, BROWSER)
    assert (page.status, page.headers["Vary"]) == (200, "Accept")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    again = await get(gateway, path, BROWSER, f"If-None-Match: {page.headers['ETag']}")
    assert (again.status, again.headers["Vary"]) == (304, "Accept")
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("HEAD", path, BROWSER))
        head = await connection.answer(head=True)
    unlike = {"Date", "X-Request-Id"}
    assert {key: value for key, value in head.headers.items() if key not in unlike} == {
        key: value for key, value in page.headers.items() if key not in unlike
    }
    for accept in ("Accept: */*", PROGRAM, f"{BROWSER}, application/json"):
        answer = await get(gateway, path, accept)
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
        assert answer.headers["Vary"] == "Accept"


async def test_a_page_needs_no_credentials_and_other_methods_have_none(serve: Serve) -> None:
    gateway = await serve()
    assert (await get(gateway, "/-/events", PROGRAM)).status == 401
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("DELETE", "/-/events", BROWSER, "X-Auth-Token: secret-alice"))
        answer = await connection.answer()
    assert (answer.status, answer.json["error"]) == (405, "method_not_allowed")
    assert "Vary" not in answer.headers
    assert (await get(gateway, "/-/events/depth", BROWSER)).status == 401


async def test_a_route_at_the_path_comes_first(serve: Serve) -> None:
    gateway = await serve(FRONT)
    for accept in (BROWSER, PROGRAM):
        answer = await get(gateway, "/", accept)
        assert (answer.status, answer.body) == (200, b"front")
        assert "Vary" not in answer.headers
    assert (await get(gateway, "/-/", BROWSER)).status == 200


async def test_without_pages_everybody_is_a_program(serve: Serve) -> None:
    gateway = await serve(web="off")
    for accept in (BROWSER, PROGRAM):
        answer = await get(gateway, "/", accept)
        assert answer.json == {"message": "uploads go to PUT /upload/<name>", "docs": "/-/openapi.json"}
        assert "Vary" not in answer.headers
        assert (await get(gateway, "/-/events", accept)).status == 401
        for path in ("/-/docs", "/-/pages/gateway.css"):
            answer = await get(gateway, path, accept)
            assert (answer.status, answer.json["error"]) == (404, "not_found")
            assert answer.json["message"] == "this gateway has no pages: --web=off"
    assert (await get(gateway, "/-/openapi.json", PROGRAM)).status == 401
