"""Copies of the streams in a cluster, one server of which is away for a while."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.events.nats.engine import NatsEngine
from tests.support.harness import wait_until
from tests.support.nats.fixtures import MakeEngine
from tests.support.nats.servers import SECONDS, Cluster, cluster_of_three

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


async def copies(nats: NatsEngine) -> set[int | None]:
    js = nats._connection.raw_js
    streams = [await js.stream_info(f"apigw-{name}") for name in ("queue", "dead", "runs")]
    return {stream.config.num_replicas for stream in streams}


async def test_streams_made_while_a_server_is_down_have_a_copy_for_each_that_is_named(
    cluster: Cluster, connect: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    away = cluster.follower()
    await asyncio.to_thread(away.stop)
    nats = await connect(cluster.url, wait=False)
    await wait_until(lambda: nats.ready or "no suitable peers" in caplog.text)
    await asyncio.to_thread(away.start)
    async with asyncio.timeout(SECONDS):
        await nats.wait_ready()
    assert await copies(nats) == {3}


async def test_streams_that_cannot_have_more_copies_now_are_used_and_have_them_later(
    tmp_path: Path,
    connect: MakeEngine,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.events.nats.connection.INCOMPLETE_DELAY", 0.2)
    with cluster_of_three(tmp_path / "nats", started=2) as cluster:
        two = await connect(cluster.url, "with two", events_replicas="2")
        nats = await connect(cluster.url, "with three")
        assert await copies(nats) == {2}
        await asyncio.to_thread(cluster.servers[2].start)
        async with asyncio.timeout(SECONDS):
            while await copies(nats) != {3}:
                await asyncio.sleep(0.1)  # the servers are the only sign
        assert caplog.text.count("cannot have 3 copies yet") == 3  # once for each stream
        await two.close()
        await nats.close()
