"""No descriptor is left: requests are told to come back, the balancer is told, and it ends by itself."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import StartProcess
from tests.support.harness import (
    GatewayProcess,
    RawConnection,
    RawResponse,
    leftovers,
    put,
    raw_connection,
    request_head,
    wait_until,
    write_plugin,
)

MIB = 1 << 20

ROUTE = """
name: api
upstreams: ["127.0.0.1:1"]
proxy:
  path: /api/{rest:path}
  authorization: {auth: none}
target:
  path: /{rest:path}
spec:
- {method: GET, usage: reads}
"""


REQUESTS = [
    ("PUT", "/upload/new", b"small"),
    ("PUT", "/upload/new", b"x" * MIB),
    ("PUT", "/upload/new", b"x" * 9 * MIB),
    ("GET", "/upload/a", b""),
    ("GET", "/upload/?format=zip", b""),
    ("GET", "/api/x", b""),
]
"""Small, streamed and large uploads, a download, an archive, a route to an upstream."""


@contextmanager
def no_descriptors(gateway: GatewayProcess) -> Iterator[None]:
    """Let the process open nothing more."""
    pid = gateway.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    first_free = next(number for number in range(max(used) + 2) if number not in used)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (first_free, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def ask(connection: RawConnection, method: str, target: str, body: bytes = b"") -> RawResponse:
    lines = (f"Content-Length: {len(body)}",) if body else ()
    await connection.send(request_head(method, target, *lines) + body)
    return await connection.answer()


@pytest.fixture
def gateway(gateway_process: StartProcess, tmp_path: Path) -> GatewayProcess:
    plugins = write_plugin(tmp_path / "plugins", ROUTE)
    return gateway_process("--plugins", str(plugins), "--downloads")


async def test_a_request_that_can_open_nothing_gets_503_and_leaves_nothing(
    gateway: GatewayProcess,
) -> None:
    assert (await put(gateway, "/upload/a", b"x")).status == 201
    for method, target, body in REQUESTS:
        async with raw_connection(gateway) as connection:
            assert (await ask(connection, "GET", "/-/health")).status == 200
            with no_descriptors(gateway):
                answer = await ask(connection, method, target, body)
            assert (answer.status, answer.json["error"]) == (503, "overloaded"), target
            assert "Retry-After" in answer.headers
        assert leftovers(gateway.directory) == []
    assert (await put(gateway, "/upload/new", b"small")).status == 201
    assert "Traceback" not in gateway.log()


async def test_a_gateway_without_descriptors_is_not_ready(gateway: GatewayProcess) -> None:
    async with raw_connection(gateway) as connection:
        assert (await ask(connection, "GET", "/-/health")).status == 200
        with no_descriptors(gateway):
            answer = await ask(connection, "GET", "/-/ready")
            assert (answer.status, answer.json["checks"]["descriptors"]) == (503, False)

        async def ready() -> bool:
            return (await ask(connection, "GET", "/-/ready")).status == 200

        await wait_until(ready)  # an answer is kept for a second
