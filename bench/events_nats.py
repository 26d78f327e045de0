"""Bench of the event path over NATS: journal, relay, NATS and back, all on this machine.

    python -m bench.events_nats [--events 20000] [--servers 1|3] [--sync always|INTERVAL]

Three figures, each in events per second: into the journal and out of the relay; out of NATS by a
consumer that settles each delivery; and both at once. Servers, relay and consumer share the machine,
so the figures are a floor. The servers sync before they acknowledge, unless `--sync`
says otherwise, which only `--servers 1` heeds.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import uvloop

from gateway.events.handler_consumer import MAX_UNSETTLED
from gateway.events.journal import Journal
from gateway.events.nats.engine import NatsEngine
from gateway.events.protocols import Depth, NewEvent
from gateway.events.relay import Relay, RelayContext
from gateway.settings import load
from tests.support.nats.servers import cluster_of_three, single

PUBLISHERS = 64
BODY = {"params": {"a": ["1"]}, "headers": {f"X-Header-{n}": "value" * 6 for n in range(18)}}


async def publish(journal: Journal, count: int, first: int) -> None:
    """Publish one event after the other from many tasks, as uploads do."""
    numbers = iter(range(first, first + count))

    async def publish_one() -> None:
        for number in numbers:
            event = NewEvent(f"e{number}", "APIGW.OnFileUploaded", ("h",), BODY, time.time())
            await journal.outbox.publish([event])

    await asyncio.gather(*(publish_one() for _ in range(PUBLISHERS)))


async def consume(nats: NatsEngine, count: int) -> None:
    """Claim and settle as the runner does, claiming while outcomes are being written."""
    left = count
    settling: set[asyncio.Task[None]] = set()
    while left > 0:
        claimed = await nats.queue.claim("h", 256, 30)
        left -= len(claimed)
        for delivery in claimed:
            task = asyncio.create_task(nats.queue.ack(delivery, 0.0))
            settling.add(task)
            task.add_done_callback(settling.discard)
        while len(settling) > MAX_UNSETTLED:
            await asyncio.wait(settling, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*settling)
    await nats.queue.flush_run_log()


async def relayed(journal: Journal) -> None:
    """Wait until the journal is empty."""
    while await journal.ledger.depth():
        await asyncio.sleep(0.005)


async def measure(folder: Path, url: str, count: int) -> dict[str, float]:
    """Return events per second of each part."""
    nats = NatsEngine(load({"directory": str(folder), "events": url}, {}), "bench")
    nats.start()
    await nats.wait_ready()
    journal = Journal(folder / "journal.db")
    journal.open()

    async def etags(_: Sequence[str]) -> Mapping[str, str]:
        return {}

    async def depth() -> Sequence[Depth]:
        return await journal.ledger.depth()

    relay = Relay(journal.queue, nats.outbox, RelayContext(lambda: "h:1", "http", etags, depth))
    relay.start()
    await publish(journal, 200, -1000)
    await consume(nats, 200)
    figures: dict[str, float] = {}

    started = time.perf_counter()
    await publish(journal, count, 0)
    figures["published"] = count / (time.perf_counter() - started)
    await relayed(journal)
    figures["published and relayed"] = count / (time.perf_counter() - started)
    started = time.perf_counter()
    await consume(nats, count)
    figures["consumed"] = count / (time.perf_counter() - started)
    started = time.perf_counter()
    await asyncio.gather(publish(journal, count, count), consume(nats, count))
    figures["all at once, end to end"] = count / (time.perf_counter() - started)

    await relay.stop()
    await nats.close()
    journal.close()
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--servers", type=int, choices=(1, 3), default=3)
    parser.add_argument("--sync", default="always", help="sync_interval of the servers")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        running = (
            cluster_of_three(folder / "nats")
            if args.servers == 3
            else single(folder / "nats", sync=args.sync)
        )
        with running as servers:
            figures = uvloop.run(measure(folder, servers.url, args.events))
    for what, rate in figures.items():
        print(f"{what:28} {rate:8,.0f} events/s")


if __name__ == "__main__":
    main()
