"""Pages of any origin and the signed URLs that they were given, over real sockets."""

from __future__ import annotations

from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import RawResponse, put, raw_connection, request_head

ORIGIN = "Origin: https://app.example"
ASKED = ("Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: content-type,x-odd")


async def ask(gateway: Gateway, method: str, target: str, *lines: str) -> RawResponse:
    async with raw_connection(gateway) as connection:
        await connection.send(request_head(method, target, *lines))
        return await connection.answer(head=method == "HEAD")


async def signed(gateway: Gateway) -> str:
    url = await gateway.resources.plugins.services.sign_url(
        "PUT", "/uploads/a.png", content_type="image/png"
    )
    return str(url).removeprefix(gateway.url)


async def test_a_browser_that_asks_first_may_send_what_the_url_allows(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(auth="token")
    target = await signed(gateway)
    answer = await ask(gateway, "OPTIONS", target, ORIGIN, *ASKED)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "PUT" in answer.headers["Access-Control-Allow-Methods"]
    assert answer.headers["Access-Control-Allow-Headers"] == "content-type,x-odd"
    assert "Access-Control-Allow-Credentials" not in answer.headers
    answer = await put(gateway, target, b"x", ORIGIN, "Content-Type: image/png")
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (201, "*")


async def test_a_page_may_read_why_it_was_refused(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="token")
    target = await signed(gateway)
    for bad, lines in ((f"{target}x", ()), (target, ("Content-Type: text/html",))):
        answer = await put(gateway, bad, b"x", ORIGIN, *lines)
        assert answer.status >= 400
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def test_who_is_no_page_is_told_nothing_of_origins_and_other_paths_stay_closed(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(auth="none")
    answer = await put(gateway, await signed(gateway), b"x", "Content-Type: image/png")
    assert [name for name in answer.headers if name.startswith("Access-Control")] == []
    for path in ("/upload/a.png", "/-/health", "/-/objects"):
        answer = await ask(gateway, "OPTIONS", path, ORIGIN, *ASKED)
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert (await ask(gateway, "OPTIONS", "/-/objects/a", "Content-Length: 0")).status in {401, 403, 405}
