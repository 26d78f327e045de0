"""Upstreams that refuse, reset, get sick, hang and come back, while clients go on asking."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import StartProcess
from tests.support.harness import GatewayProcess, wait_until
from tests.support.routing.faulty import FAULTS, Clients, Fault, FaultyUpstream, Outcome
from tests.support.routing.scripted import route, write

pytestmark = [pytest.mark.both_paths, pytest.mark.slow]

# Time-outs that no busy machine reaches by itself: what works must not look as if it failed.
SETTINGS = """
health: {path: /health, every: 100ms, timeout: 4s}
passive: {failures: 3, statuses: [503], aside: 1h}
limits: {connect: 10, idle: 5}
"""
PROBE_FAILED = "a probe of the upstream failed"


@contextlib.asynccontextmanager
async def upstreams(count: int) -> AsyncIterator[list[FaultyUpstream]]:
    made = [FaultyUpstream() for _ in range(count)]
    for each in made:
        await each.mend()
    try:
        yield made
    finally:
        for each in made:
            each.fault = None
            await each.close()


def failed_probes(gateway: GatewayProcess, upstream: FaultyUpstream) -> int:
    """Count the changes to the worse that probes of an upstream have found."""
    lines = gateway.log().splitlines()
    return sum(PROBE_FAILED in line and upstream.authority in line for line in lines)


async def fail(gateway: GatewayProcess, upstream: FaultyUpstream, fault: Fault) -> None:
    """Let an upstream fail, and wait until a probe has found that."""
    before = failed_probes(gateway, upstream)
    await upstream.fail(fault)
    await wait_until(lambda: failed_probes(gateway, upstream) > before)


async def fail_and_mend(
    gateway: GatewayProcess, sick: FaultyUpstream, others: list[FaultyUpstream], fault: Fault
) -> tuple[float, float]:
    """Let one fail until that is known, and work again; return when it was not known yet."""
    began = time.monotonic()
    await fail(gateway, sick, fault)
    known = time.monotonic()
    await asyncio.gather(*(until_served(other) for other in others))
    await sick.mend()
    await until_served(sick)
    return began, known


async def until_served(upstream: FaultyUpstream) -> None:
    """Wait until it has served some more requests of clients."""

    def count() -> int:
        return sum(times for name, times in upstream.served.items() if name)

    wanted = count() + 5
    await wait_until(lambda: count() >= wanted)


async def test_no_idempotent_request_fails_and_others_only_at_the_moment_of_a_fault(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    async with upstreams(3) as servers:
        names = str([server.authority for server in servers])
        folder = write(tmp_path / "plugins", route(more=SETTINGS).replace("[]", names, 1))
        gateway = gateway_process("--plugins", str(folder))
        clients = Clients(gateway)
        running = asyncio.create_task(clients.run(gets=6, posts=3))
        windows = []
        for number, fault in enumerate(FAULTS):
            sick = servers[number % len(servers)]
            others = [server for server in servers if server is not sick]
            windows.append(await fail_and_mend(gateway, sick, others, fault))
        clients.stopping = True
        await running
        check_outcomes(clients.outcomes, windows)
        times = sum((server.arrived for server in servers), Counter[str]())
        assert {name for name, count in times.items() if name.startswith("POST") and count > 1} == set()
        served = sum((server.served for server in servers), Counter[str]())
        assert all(served[outcome.name] for outcome in clients.outcomes if outcome.status == 200)


def check_outcomes(outcomes: list[Outcome], windows: list[tuple[float, float]]) -> None:
    failed = [outcome for outcome in outcomes if outcome.status != 200]
    assert [outcome for outcome in failed if outcome.method == "GET"] == []
    assert sum(outcome.method == "POST" for outcome in outcomes) > len(failed)
    for outcome in failed:
        assert any(outcome.began <= known and outcome.ended >= began for began, known in windows), (
            outcome,
            windows,
        )


async def test_a_route_whose_upstreams_fail_one_after_the_other_serves_with_the_last_one(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    async with upstreams(3) as servers:
        names = str([server.authority for server in servers])
        folder = write(tmp_path / "plugins", route(more=SETTINGS).replace("[]", names, 1))
        gateway = gateway_process("--plugins", str(folder))
        clients = Clients(gateway)
        running = asyncio.create_task(clients.run(gets=6, posts=0))
        await fail(gateway, servers[0], "sick")
        await fail(gateway, servers[1], "refuse")
        await until_served(servers[2])
        for server in servers[:2]:
            await server.mend()
            await until_served(server)
        clients.stopping = True
        await running
    assert {outcome.status for outcome in clients.outcomes} == {200}
