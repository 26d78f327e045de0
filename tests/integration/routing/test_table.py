"""Which route answers, and which routes cannot stand together."""

from __future__ import annotations

from tests.support.harness import get, raw_connection, request_head
from tests.support.routing.scripted import Serve, ask, route
from tests.unit.endpoints.routing.test_table import ANSWER, spec


async def test_405_and_options_tell_the_methods(serve: Serve) -> None:
    gateway = await serve(route("/r", ANSWER, spec("GET", "PUT")))
    wrong = await ask(gateway, "DELETE", "/r")
    assert (wrong.status, wrong.headers["Allow"]) == (405, "GET, PUT")
    assert wrong.json["error"] == "method_not_allowed"
    options = await ask(gateway, "OPTIONS", "/r")
    assert (options.status, options.headers["Allow"]) == (204, "GET, OPTIONS, PUT")
    assert (await ask(gateway, "OPTIONS", "/else")).status == 404


async def test_head_is_get_where_an_upstream_answers(serve: Serve) -> None:
    back = await serve(route("/b", "return request.method", spec("GET", "HEAD")))
    host, port = back.address
    front = await serve(
        route("/b", more=spec("GET")).replace("[]", f"['{host}:{port}']"),
        directory=str(back.resources.settings.directory) + "2",
    )
    answer = await ask(front, "HEAD", "/b")
    assert (answer.status, answer.headers["Content-Length"]) == (200, "4")
    assert (await ask(front, "GET", "/b")).body == b"GET"


async def test_uploads_and_own_pages_come_before_a_catch_all(serve: Serve) -> None:
    gateway = await serve(route("/{all:path}", ANSWER))
    assert (await ask(gateway, "PUT", "/upload/a", body=b"1")).status == 201
    assert (await get(gateway, "/-/health")).json == {"status": "ok"}
    assert (await get(gateway, "/whatever")).body == b"x"


async def test_a_refused_request_is_refused_before_its_body(serve: Serve) -> None:
    gateway = await serve(route("/r", "return request.body", spec("PUT"), auth="token"))
    lines = ("Content-Length: 5", "Expect: 100-continue")
    for method, target, status in (("PUT", "/r", 401), ("POST", "/r", 405), ("PUT", "/x", 404)):
        async with raw_connection(gateway) as connection:
            await connection.send(request_head(method, target, *lines))
            assert (await connection.line()).startswith(f"HTTP/1.1 {status} ".encode())
