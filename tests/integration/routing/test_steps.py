"""Routes in front of an upstream: what goes up, what comes back, who may."""

from __future__ import annotations

from gateway.auth.tokens import token_digest
from gateway.server.app import Gateway
from tests.support.harness import get
from tests.support.routing.scripted import Serve, ask, route

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
