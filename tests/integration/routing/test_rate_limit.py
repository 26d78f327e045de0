"""How often a client may call."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from gateway.auth.tokens import token_digest
from tests.conftest import StartProcess
from tests.support.harness import RawResponse, get, wait_until
from tests.support.routing.scripted import Serve, route, write

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


@pytest.mark.slow
async def test_all_processes_count_together_and_a_restarted_one_goes_on_with_it(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    script = "import os\nreturn str(os.getpid())"
    many, few = LIMIT.replace("2", "100000"), LIMIT.replace("2", "20")
    folder = write(tmp_path / "plugins", route("/r", script, many), route("/few", script, few))
    gateway = gateway_process("--processes", "2", "--plugins", str(folder))

    async def at_once(path: str, count: int) -> list[RawResponse]:
        return await asyncio.gather(*(get(gateway, path) for _ in range(count)))

    assert sorted(answer.status for answer in await at_once("/few", 32)) == [200] * 20 + [429] * 12
    served = await at_once("/r", 8)
    while len({answer.body for answer in served}) < 2:  # a free process accepts the next connection
        served += await at_once("/r", 8)
    left = sorted(int(answer.headers["RateLimit-Remaining"]) for answer in served)
    assert left == [*range(100_000 - len(served), 100_000)]
    os.kill(int(served[0].body), signal.SIGKILL)
    await wait_until(lambda: "serves again" in gateway.log())
    more = await at_once("/r", 8)
    left = sorted(int(answer.headers["RateLimit-Remaining"]) for answer in more)
    assert left == [*range(100_000 - len(served) - 8, 100_000 - len(served))]
