"""What a web page can make a browser send to a gateway on the same machine, and what happens then."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web

from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import RawResponse, raw_connection, write_plugin
from tests.support.routing.api import api
from tests.support.routing.scripted import SPEC, Serve, ask, route

pytestmark = pytest.mark.both_paths

PAGES = ["/-/events", "/-/metrics", "/-/openapi.json", "/-/health", "/-/ready", "/-/objects/upload/a"]
EVIL = "Origin: https://evil.example"


async def send(gateway: Gateway, method: str, target: str, host: str, body: bytes = b"") -> RawResponse:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}", "", ""]
    async with raw_connection(gateway) as connection:
        await connection.send("\r\n".join(lines).encode() + body)
        return await connection.answer()


async def test_a_page_whose_name_was_rebound_reaches_nothing(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "plugins", route("/r", "return 'x'", auth="default"))
    gateway = await start_gateway(plugins=[str(folder)], downloads=True)
    port = gateway.address[1]
    assert (await send(gateway, "PUT", "/upload/a", f"localhost:{port}", b"x")).status == 201
    evil = f"evil.example:{port}"
    requests = [("GET", page) for page in [*PAGES, "/upload/a", "/r", "/"]]
    requests += [("PUT", "/upload/b"), ("POST", "/-/events/drop"), ("POST", "/-/notifications")]
    for method, target in requests:
        answer = await send(gateway, method, target, evil, b"x" if method != "GET" else b"")
        assert (answer.status, answer.json["error"]) == (421, "misdirected_request"), target
    assert not (tmp_path / "data/upload/b").exists()


async def test_a_gateway_whose_auth_was_said_answers_under_any_name(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="none")
    assert (await send(gateway, "GET", "/-/events", "files.example")).status == 200


@pytest.mark.parametrize(
    "line",
    [EVIL, "Origin: null", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site",
     "Sec-Fetch-Site: CROSS-SITE"],
)  # fmt: skip
@pytest.mark.parametrize("auth", ["none", "default"])
async def test_a_page_of_another_origin_changes_nothing_where_all_may_call(
    serve: Serve, line: str, auth: str
) -> None:
    gateway = await serve(route("/r", "return request.method", auth=auth))
    forms = ("text/plain", "Text/Plain;charset=UTF-8", "application/x-www-form-urlencoded",
             "multipart/form-data; boundary=x")  # fmt: skip
    for lines in ((), *((f"Content-Type: {kind}",) for kind in forms)):
        answer = await ask(gateway, "POST", "/r", line, *lines, body=b"{}")
        assert (answer.status, answer.json["error"]) == (403, "forbidden")
        assert "--cors-origins" in answer.json["message"]
    assert (await ask(gateway, "GET", "/r", line)).body == b"GET"


async def test_a_page_whose_preflight_the_upstream_allows_may_call(serve: Serve) -> None:
    async def allow(request: web.Request) -> web.Response:
        return web.Response(headers={"Access-Control-Allow-Origin": request.headers["Origin"]})

    page = ("Origin: https://app.example", "Sec-Fetch-Site: cross-site")
    async with api(allow) as up:
        gateway = await serve(up.route("/r"))
        asks = await ask(gateway, "OPTIONS", "/r", *page, "Access-Control-Request-Method: PUT")
        assert asks.headers["Access-Control-Allow-Origin"] == "https://app.example"
        for method, kind in (("PUT", "text/plain"), ("DELETE", ""), ("POST", "application/json")):
            lines = (*page, f"Content-Type: {kind}") if kind else page
            answer = await ask(gateway, method, "/r", *lines, body=b"{}")
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (
                200,
                "https://app.example",
            )


async def test_pages_of_this_gateway_and_programs_may_call(serve: Serve) -> None:
    gateway = await serve(route("/r", "return 'x'"))
    own = ("Origin: http://localhost", "Sec-Fetch-Site: same-origin")
    for lines in ((), own, own[:1], own[1:], ("Sec-Fetch-Site: none",)):
        assert (await ask(gateway, "POST", "/r", *lines)).status == 200


async def test_pages_that_cors_names_may_call_and_no_others(serve: Serve) -> None:
    named = "cors: {origins: [https://app.example]}\n"
    gateway = await serve(
        route("/r", "return 'x'", named),
        route("/all", "return 'x'", "cors: {origins: ['*']}\n"),
        route("/s", "return 'x'"),
        cors_origins=["https://app.example"],
    )
    good = ("Origin: https://app.example", "Sec-Fetch-Site: cross-site")
    cases = {("/r", good[0]): 200, ("/r", EVIL): 403, ("/s", good[0]): 200, ("/s", EVIL): 403}
    for (path, line), status in {**cases, ("/all", EVIL): 200}.items():
        assert (await ask(gateway, "POST", path, line, good[1])).status == status, (path, line)


async def test_a_token_is_enough_from_any_page(start_gateway: StartGateway, tmp_path: Path) -> None:
    folder = write_plugin(tmp_path / "plugins", route("/r", "return 'x'"))
    gateway = await start_gateway(auth="token", plugins=[str(folder)])
    token = f"X-Auth-Token: {gateway.resources.base.shared.token}"
    assert (await ask(gateway, "POST", "/r", EVIL, token)).status == 200
    assert (await ask(gateway, "POST", "/r", EVIL)).status == 403


GOOD = b'{"id": 1, "name": "a"}'


@pytest.mark.parametrize(
    "kind",
    ["text/plain; charset=iso-8859-1", "multipart/form-data; boundary=x", "text/html",
     "application/xml", "application/json; charset=utf-16", "application/jsonx"],
)  # fmt: skip
async def test_a_body_that_says_it_is_no_json_passes_no_schema(serve: Serve, kind: str) -> None:
    gateway = await serve(route(script="return 1", more=SPEC))
    answer = await ask(gateway, "PUT", "/r", "X-Count: 1", f"Content-Type: {kind}", body=GOOD)
    assert (answer.status, answer.json["error"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("application/json; charset=UTF-8", None),
        ("application/json; charset=utf8", None),
        ("application/merge-patch+json", None),
        ("application/vnd.api+json", None),
        ("text/plain;charset=UTF-8", "application/json"),
        ("application/x-www-form-urlencoded", "application/json"),
        ("", "application/json"),
    ],
)
async def test_json_passes_and_what_nobody_named_becomes_json(
    serve: Serve, kind: str, seen: str | None
) -> None:
    gateway = await serve(route(script="return request.headers['Content-Type']", more=SPEC))
    lines = (f"Content-Type: {kind}",) if kind else ()
    answer = await ask(gateway, "PUT", "/r", "X-Count: 1", *lines, body=GOOD)
    assert (answer.status, answer.body.decode()) == (200, seen or kind)


@pytest.mark.parametrize("name", ["Authorization", "Content-Type"])
async def test_a_header_that_decides_something_is_not_sent_twice(serve: Serve, name: str) -> None:
    gateway = await serve(route(script="return 1"))
    answer = await ask(gateway, "GET", "/r", f"{name}: one", f"{name.lower()}: other")
    assert (answer.status, answer.json["error"]) == (400, "bad_request")
