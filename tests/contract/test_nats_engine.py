"""NATS JetStream against the suite that every engine must pass: one server, and three."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from gateway.domain.model import Delivery
from gateway.events.nats import queue
from gateway.events.protocols import Selection, run_all
from tests.contract.event_engines import Conformance, Engine, becomes
from tests.support.nats.fixtures import MakeEngine
from tests.support.nats.servers import Cluster, Server

LEASE = 30.0
SHORT = 3.0
"""For the tests in which a lease ends."""


class Patient(Engine):
    """Gathers what must come: the copies of a cluster give out a burst piece by piece."""

    async def claim(self, handler: str = "h", limit: int = 1) -> list[Delivery]:
        found = await super().claim(handler, limit)
        while len(found) < limit:
            more = await self.queue.claim(handler, limit - len(found), 0.1)
            if not more:
                break
            found += more
        return found


async def engine_at(url: str, connect: MakeEngine, request: pytest.FixtureRequest) -> Engine:
    """Connect; a claimer that dies is one that is silent for longer than its lease."""
    lease = SHORT if request.node.get_closest_marker("leases_end") else LEASE
    nats = await connect(url, events_lease=str(lease), events_prefix="apigw")

    async def crash() -> None:
        await asyncio.sleep(lease + 0.3)  # nothing but time ends a lease

    return Patient(nats.outbox, nats.queue, nats.ledger, crash, quiet=0.2)


@pytest.fixture
async def engine(server: Server, connect: MakeEngine, request: pytest.FixtureRequest) -> Engine:
    return await engine_at(server.url, connect, request)


class Streams(Conformance):
    """One difference: what is done has left the streams, so that the journals replay it."""

    async def test_a_replay_delivers_again_what_was_done(self, engine: Engine) -> None:
        (event,) = await engine.publish()
        await engine.queue.ack(await engine.claim_one(), 0.1)
        await becomes(engine, event, "done")
        assert await run_all(engine.ledger, "replay", Selection(events=(event.id,))) == 0
        assert await engine.nothing_for()


class TestOneServer(Streams):
    """A single server."""

    async def test_what_was_requeued_while_the_clock_was_ahead_comes_soon(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(queue, "MAX_REQUEUE_DELAY", 0.2)
        await engine.publish()
        claimed = await engine.claim_one()
        ahead = SimpleNamespace(time=lambda: time.time() + 3600, monotonic=time.monotonic)
        with monkeypatch.context() as patch:
            patch.setattr(queue, "time", ahead)
            await engine.queue.requeue([claimed], 1.0)
        (again,) = await engine.queue.claim("h", 1, 30.0)
        assert (again.event_id, again.attempt) == (claimed.event_id, 1)


@pytest.mark.slow
class TestThreeServers(Streams):
    """Three servers, three copies."""

    @pytest.fixture
    async def engine(
        self, cluster: Cluster, connect: MakeEngine, request: pytest.FixtureRequest
    ) -> Engine:
        return await engine_at(cluster.url, connect, request)
