"""How often a client may call."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.auth.tokens import token_digest
from tests.support.harness import get
from tests.support.routing.scripted import Serve, route

pytestmark = pytest.mark.both_paths

LIMIT = "rate_limit: {count: 2, seconds: 3600}\n"


async def test_one_request_too_many_is_told_when_to_come_again(serve: Serve) -> None:
    gateway = await serve(route(script="return 'x'", more=LIMIT), route("/other", "return 'x'", LIMIT))
    left = [(await get(gateway, "/r")).headers["RateLimit-Remaining"] for _ in range(2)]
    assert left == ["1", "0"]
    refused = await get(gateway, "/r")
    assert (refused.status, refused.json["error"]) == (429, "too_many_requests")
    assert 3590 < int(refused.headers["Retry-After"]) <= 3600
    assert refused.headers["RateLimit-Limit"] == "2"
    assert (await get(gateway, "/other")).status == 200


async def test_clients_are_told_apart_by_address_or_by_principal(serve: Serve, tmp_path: Path) -> None:
    by_principal = LIMIT.replace("3600}", "3600, by: principal}")
    tokens = [f"{name}:{token_digest(name)}" for name in ("ann", "bob")]
    gateway = await serve(
        route(script="return 'x'", more=LIMIT),
        route("/p", "return 'x'", by_principal),
        trusted_proxies=["127.0.0.1/32"],
        tokens=tokens,
    )
    for address in ("192.0.2.1", "192.0.2.2"):
        got = [await get(gateway, "/r", f"X-Forwarded-For: {address}") for _ in range(3)]
        assert [one.status for one in got] == [200, 200, 429]
    for name in ("ann", "bob"):
        got = [await get(gateway, "/p", f"X-Auth-Token: {name}") for _ in range(3)]
        assert [one.status for one in got] == [200, 200, 429]
