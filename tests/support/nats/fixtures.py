"""Fixtures: a real nats-server, or three of them, and engines that use them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from gateway.events.nats.engine import NatsEngine
from gateway.settings import load
from tests.support.nats.servers import SECONDS, Cluster, Server, cluster_of_three, single

MakeEngine = Callable[..., Awaitable[NatsEngine]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One server that syncs."""
    with single(tmp_path / "nats") as one:
        yield one


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three servers that sync."""
    with cluster_of_three(tmp_path / "nats") as three:
        yield three


@pytest.fixture
async def connect(tmp_path: Path) -> AsyncIterator[MakeEngine]:
    """Connect engines: `await connect(server.url, events_lease="2")`."""
    engines: list[NatsEngine] = []

    async def connect_one(
        url: str, node: str = "here", *, wait: bool = True, **values: str
    ) -> NatsEngine:
        settings = load({"directory": str(tmp_path), "events": url, **values}, {})
        engine = NatsEngine(settings, node)
        engine.start()
        engines.append(engine)
        if wait:
            async with asyncio.timeout(SECONDS):
                await engine.wait_ready()
        return engine

    yield connect_one
    for engine in engines:
        await engine.close()
