"""Routes in front of an upstream: what goes up, what comes back, who may."""

from __future__ import annotations

import pytest
from aiohttp import web

from gateway.auth.tokens import token_digest
from gateway.server.app import Gateway
from tests.support.harness import get
from tests.support.routing.proxying import aiohttp_upstream
from tests.support.routing.scripted import Serve, ask, route

pytestmark = pytest.mark.both_paths

ECHO = """
return {"headers": dict(request.headers), "path": request.path, "params": request.params,
        "body": request.body.decode()}
"""


async def behind(serve: Serve, *texts: str, **values: object) -> Gateway:
    """A gateway with an upstream that says what it got; `UP` in the texts is its address."""
    back = await serve(route("/{all:path}", ECHO))
    up = "{}:{}".format(*back.address)
    folder = f"{back.resources.settings.directory}-front"
    return await serve(
        *(text.replace("[]", f"['{up}']", 1) for text in texts), directory=folder, **values
    )


async def test_the_target_is_made_of_the_variables_as_they_were_sent(serve: Serve) -> None:
    target = "target: {path: '/api/{rest:path}'}\n"
    gateway = await behind(serve, route("/v1/{rest:path}", more=target))
    answer = await get(gateway, "/v1/a%20b/c?x=1%202&x=3")
    assert answer.json["path"] == "/api/a b/c"
    assert answer.json["params"] == {"x": ["1 2", "3"]}


async def test_tokens_of_this_gateway_go_no_further_and_those_of_the_upstream_do(serve: Serve) -> None:
    gateway = await behind(
        serve, route("/a", auth="token"), route("/b"), tokens=[f"ann:{token_digest('ours')}"]
    )
    ours, theirs = "X-Auth-Token: ours", "Authorization: Bearer theirs"
    seen = {name.lower() for name in (await get(gateway, "/a", ours, theirs)).json["headers"]}
    assert "authorization" in seen
    assert "x-auth-token" not in seen
    assert (await get(gateway, "/a", theirs)).status == 401
    assert (await get(gateway, "/b", theirs)).json["headers"]["Authorization"] == "Bearer theirs"


async def test_a_token_of_this_gateway_goes_up_in_no_line(serve: Serve) -> None:
    gateway = await behind(serve, route("/a"), tokens=[f"ann:{token_digest('ours')}"])
    for lines in (("theirs", "ours"), ("ours", "theirs"), ("theirs", " ours ", "more")):
        answer = await get(gateway, "/a", *(f"X-Auth-Token: {token}" for token in lines))
        assert b"ours" not in answer.body
    untouched = await get(gateway, "/a", "X-Auth-Token: theirs", "X-Auth-Token: more")
    assert b"theirs" in untouched.body


async def test_a_client_whose_chains_disagree_is_not_believed_and_neither_goes_up(serve: Serve) -> None:
    proxied = {"trusted_proxies": ["127.0.0.0/8"]}
    rated = route("/rated", "return request.remote", "rate_limit: {count: 2, seconds: 60}\n")
    gateway = await behind(serve, route("/a"), rated, **proxied)
    told = ("X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https", "X-Real-IP: 192.0.2.7")
    agreed = (await get(gateway, "/a", *told)).json["headers"]
    assert (agreed["X-Real-IP"], agreed["X-Forwarded-For"]) == ("192.0.2.7", "192.0.2.7, 127.0.0.1")
    for forged in ("for=unknown", "for=6.6.6.6", "proto=https"):
        headers = (await get(gateway, "/a", *told, f"Forwarded: {forged}")).json["headers"]
        assert headers["Forwarded"] == 'for=127.0.0.1;proto=http;host="localhost"'
        assert (headers["X-Forwarded-For"], headers["X-Forwarded-Proto"]) == ("127.0.0.1", "http")
        assert "X-Real-IP" not in headers
    others = [f"Forwarded: for={number}.6.6.6" for number in range(1, 4)]
    statuses = [(await get(gateway, "/rated", *told, line)).status for line in others]
    assert statuses == [200, 200, 429]  # one bucket for all who do so, and it is nobody else's
    assert (await get(gateway, "/rated", *told)).body == b"192.0.2.7"


async def test_a_request_cannot_name_another_method_where_a_route_lists_its_methods(
    serve: Serve,
) -> None:
    only_post = "spec: [{method: POST}]\n"
    gateway = await behind(serve, route("/listed", more=only_post), route("/all"))
    for line in ("X-HTTP-Method-Override", "x-http-method", "X-Method-Override"):
        answer = await ask(gateway, "POST", "/listed", f"{line}: DELETE", body=b"x")
        assert (answer.status, answer.json["error"]) == (400, "bad_request")
        assert (await ask(gateway, "POST", "/all", f"{line}: DELETE", body=b"x")).status == 200
    assert (await ask(gateway, "POST", "/listed?%5Fmethod=delete", body=b"x")).status == 400
    assert (await ask(gateway, "POST", "/listed?method=delete", body=b"x")).status == 200


async def test_headers_of_the_server_are_the_upstreams_where_a_response_passes_through(
    serve: Serve,
) -> None:
    async def respond(_: web.BaseRequest) -> web.Response:
        own = {"Server": "up/1", "X-Request-Id": "theirs", "X-Frame-Options": "DENY"}
        return web.Response(text="x", headers=own)

    async with aiohttp_upstream(respond) as up:
        routes = (route("/plain"), route("/head", answers="response.headers['X-New'] = '1'"),
                  route("/read", answers="response.body"))  # fmt: skip
        gateway = await serve(*(text.replace("[]", f"['{up}']", 1) for text in routes))
        for path in ("/plain", "/head"):
            headers = (await get(gateway, path)).headers
            assert (headers["Server"], headers["X-Frame-Options"]) == ("up/1", "DENY"), path
            assert "X-Content-Type-Options" not in headers
            assert headers["X-Request-Id"] != "theirs"
        for path in ("/read", "/not-found"):
            headers = (await get(gateway, path)).headers
            assert (headers["Server"], headers["X-Content-Type-Options"]) == (
                "upload-gateway",
                "nosniff",
            )


async def test_the_request_script_changes_what_goes_up(serve: Serve) -> None:
    script = 'request.headers["X-User"] = "bob"\ndel request.headers["X-Old"]\n'
    gateway = await behind(serve, route("/a", script))
    headers = (await ask(gateway, "POST", "/a", "X-Old: 1", body=b"x")).json["headers"]
    assert headers["X-User"] == "bob"
    assert "X-Old" not in headers


async def test_a_body_goes_up_whether_it_was_read_or_not(serve: Serve) -> None:
    gateway = await behind(serve, route("/read", "request.body.decode()"), route("/streamed"))
    for path in ("/read", "/streamed"):
        assert (await ask(gateway, "POST", path, body=b"hello")).json["body"] == "hello"


async def test_the_response_script_gets_the_upstreams_answer(serve: Serve) -> None:
    script = 'return response.code, {"up": json.loads(response.body)["path"], "by": request.method}'
    gateway = await behind(serve, route("/a", answers=script))
    assert (await get(gateway, "/a")).json == {"up": "/a", "by": "GET"}


async def test_an_upstream_that_is_not_there_is_a_502_with_the_headers_of_the_route(
    serve: Serve,
) -> None:
    gateway = await serve(
        route("/a", more="cors: {origins: ['*']}\n").replace("[]", "['127.0.0.1:1']", 1)
    )
    answer = await get(gateway, "/a", "Origin: https://a.example")
    assert (answer.status, answer.json["error"]) == (502, "bad_gateway")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def test_where_nobody_chose_who_may_a_request_through_a_proxy_is_refused(serve: Serve) -> None:
    gateway = await serve(route("/a", "return 'x'"), auth=None)
    assert (await get(gateway, "/a")).status == 200
    assert (await get(gateway, "/a", "X-Forwarded-For: 192.0.2.1")).status == 403
