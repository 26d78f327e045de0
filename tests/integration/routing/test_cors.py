"""Pages of other origins: who may call, and what browsers are told."""

from __future__ import annotations

import pytest

from tests.support.harness import RawResponse, get
from tests.support.routing.scripted import Serve, ask, route

GOOD = "https://app.example"
CORS = f"cors: {{origins: ['{GOOD}'], expose: [ETag], credentials: true, max_age: 7}}\n"
SPEC = "spec: [{method: PUT}, {method: GET}]\n"


async def preflight(serve: Serve, text: str, origin: str, **values: object) -> RawResponse:
    gateway = await serve(text, **values)
    lines = (f"Origin: {origin}", "Access-Control-Request-Method: PUT")
    return await ask(gateway, "OPTIONS", "/r", *lines, "Access-Control-Request-Headers: x-auth-token")


async def test_a_preflight_is_answered_before_authorization(serve: Serve) -> None:
    answer = await preflight(serve, route(script="return 1", more=CORS + SPEC, auth="token"), GOOD)
    assert answer.status == 204
    told = {name: value for name, value in answer.headers.items() if name.startswith("Access-Control")}
    assert told == {
        "Access-Control-Allow-Origin": GOOD,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": "ETag",
        "Access-Control-Allow-Methods": "GET, PUT",
        "Access-Control-Allow-Headers": "x-auth-token",
        "Access-Control-Max-Age": "7",
    }
    assert answer.headers["Vary"].startswith("Origin")


async def test_origins_have_no_case(serve: Serve) -> None:
    named = "cors: {origins: ['https://App.Example']}\n"
    answer = await preflight(serve, route(script="return 1", more=named + SPEC), GOOD)
    assert answer.headers["Access-Control-Allow-Origin"] == GOOD


@pytest.mark.parametrize("origin", ["https://evil.example", "null", f"{GOOD}.evil.example"])
async def test_other_origins_are_not_told_that_they_may(serve: Serve, origin: str) -> None:
    answer = await preflight(serve, route(script="return 1", more=CORS + SPEC), origin)
    assert answer.status == 403
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_a_route_without_cors_answers_no_preflight(serve: Serve) -> None:
    answer = await preflight(serve, route(script="return 1", more=SPEC), GOOD)
    assert answer.status == 204
    assert answer.headers["Allow"] == "GET, OPTIONS, PUT"
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_answers_and_refusals_carry_the_headers(serve: Serve) -> None:
    script = "return 200, 'x', {'Vary': 'Accept', 'Access-Control-Allow-Origin': '*'}"
    gateway = await serve(
        route(script=script, more=CORS),
        route("/t", "return 1", CORS, auth="token"),
        route("/bad", "return 1/0", CORS),
    )
    answer = await get(gateway, "/r", f"Origin: {GOOD}")
    assert (answer.headers["Access-Control-Allow-Origin"], answer.headers["Vary"]) == (
        GOOD,
        "Accept, Origin",
    )
    for path, status in (("/t", 401), ("/bad", 500)):
        refused = await get(gateway, path, f"Origin: {GOOD}")
        assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (status, GOOD)
    stranger = await get(gateway, "/r", "Origin: https://evil.example")
    assert "Access-Control-Allow-Origin" not in stranger.headers


async def test_the_setting_holds_for_routes_that_say_nothing(serve: Serve) -> None:
    text = route(script="return 'x'", more=SPEC)
    answer = await preflight(serve, text, "https://any.example", cors_origins=["*"])
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (204, "*")
