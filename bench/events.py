"""Bench of the embedded event engine: `python -m bench.events [NAME ...]`.

A complete event is publish + claim + a trivial handler + the stored outcome, all in this process, on
this disk, with `synchronous=FULL`. Run it on a quiet machine.

    closed    64 publishers, each waits for its result before it publishes again
    paced     open loop: 2,000 events a second, independent of the results
    slots     closed, with the default concurrency of a handler (4)
    executor  closed, with a plugin's handler in the real executor instead of a coroutine on the loop
    backlog   the cost of a claim and an outcome while 1,000, 100,000 and 1,000,000 deliveries wait
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from gateway.domain.model import UPLOADED, Delivery, HandlerSpec
from gateway.events.dispatch import DeliveryDispatcher, RunResult
from gateway.events.journal import Journal
from gateway.events.protocols import NewEvent
from gateway.events.runner import Runner
from gateway.plugins import KINDS, Plugins
from gateway.plugins.hooks import Hooks
from gateway.plugins.scripting.namespace import Services

PUBLISHERS = 64
RATE = 2000
MEASURE_SECONDS = 5.0
BODY = {"path": "/upload/a.bin", "headers": {f"X-Header-{n}": "v" * 40 for n in range(12)}, "bytes": 1}
PLUGIN = """
name: trivial
event: APIGW.OnFileUploaded
concurrency: {concurrency}
script: |
  async def trivial(event, handle):
      pass
"""

_numbers = itertools.count()


def event(handler: str) -> NewEvent:
    """Return a new event of about a kilobyte."""
    return NewEvent(f"E{next(_numbers):025}-0", UPLOADED, (handler,), BODY, time.time())


@dataclass
class Seen:
    """Results of one run. Times in seconds."""

    published: list[float] = field(default_factory=list)
    started: dict[str, float] = field(default_factory=dict)
    reached: list[float] = field(default_factory=list)
    done: int = 0

    def record_run(self, handler: str, outcome: str, seconds: float) -> None:
        """Count a run that ended."""
        self.done += outcome == "done"


@asynccontextmanager
async def running(
    folder: Path, dispatcher: DeliveryDispatcher, seen: Seen, concurrency: int, name: str = "h"
) -> AsyncIterator[Journal]:
    """A journal on disk with a runner."""
    journal = Journal(folder / "journal.db")
    journal.open()
    runner = Runner(journal.queue, dispatcher, seen)
    await runner.start([HandlerSpec(name, UPLOADED, 10.0, concurrency)])
    try:
        yield journal
    finally:
        await runner.stop(10.0)
        journal.close()


def share(values: list[float], part: float) -> float:
    """Return a quantile, in milliseconds."""
    return sorted(values)[min(int(len(values) * part), len(values) - 1)] * 1000


def tell(what: str, seen: Seen, seconds: float, cpu: float) -> None:
    """Print one line of results."""
    print(
        f"{what:<34} {seen.done / seconds:8,.0f} ev/s   publish p50 {share(seen.published, 0.5):6.2f}"
        f"  p99 {share(seen.published, 0.99):6.2f} ms   to handler p50 {share(seen.reached, 0.5):6.2f}"
        f"  p99 {share(seen.reached, 0.99):6.2f} ms   CPU {cpu / seen.done * 1e6:5.0f} us/ev",
        flush=True,
    )


@dataclass
class TrivialHandler:
    """The trivial handler: a coroutine on the loop, and with `hooks` a plugin's in its executor."""

    seen: Seen
    hooks: Hooks | None = None

    def submit(self, delivery: Delivery, done: Callable[[RunResult], None]) -> None:
        """Leave it to `run`."""

    def slots(self, spec: HandlerSpec) -> int:
        """Return the concurrency of the handler."""
        return spec.concurrency

    async def run(self, delivery: Delivery) -> RunResult:
        """Record the latency of a delivery."""
        now = time.monotonic()
        self.seen.reached.append(now - self.seen.started.pop(delivery.event_id, now))
        if self.hooks is not None:
            await self.hooks.run_delivery(delivery, delivery.body)
        return RunResult("succeeded")


async def publish(journal: Journal, seen: Seen, name: str) -> None:
    """Publish one event and record its latency."""
    new_event = event(name)
    seen.started[new_event.id] = started = time.monotonic()
    await journal.outbox.publish([new_event])
    seen.published.append(time.monotonic() - started)


async def closed(journal: Journal, seen: Seen, name: str) -> None:
    """Publish with many publishers that wait for their results."""
    end = time.monotonic() + MEASURE_SECONDS

    async def publisher() -> None:
        while time.monotonic() < end:
            await publish(journal, seen, name)

    await asyncio.gather(*(publisher() for _ in range(PUBLISHERS)))


async def paced(journal: Journal, seen: Seen, name: str) -> None:
    """Publish RATE a second, independent of the results."""
    started, tasks = time.monotonic(), set[asyncio.Task[None]]()
    for number in range(int(RATE * MEASURE_SECONDS)):
        wait = started + number / RATE - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(publish(journal, seen, name))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)


Load = Callable[[Journal, Seen, str], Awaitable[None]]


async def measure(
    what: str, folder: Path, load: Load, concurrency: int, hooks: Hooks | None = None
) -> None:
    """Run a load until all of it is done."""
    seen = Seen()
    name = "h" if hooks is None else "trivial"
    async with running(folder, TrivialHandler(seen, hooks), seen, concurrency, name) as journal:
        started, cpu = time.monotonic(), time.process_time()
        await load(journal, seen, name)
        while seen.done < len(seen.published):
            await asyncio.sleep(0.005)
        tell(what, seen, time.monotonic() - started, time.process_time() - cpu)


async def in_executor(folder: Path, load: Load, concurrency: int, what: str) -> None:
    """Run a load with a plugin's handler in its executor."""
    plugins = folder / "plugins"
    plugins.mkdir()
    (plugins / "trivial.yaml").write_text(PLUGIN.format(concurrency=concurrency))
    loaded = Plugins([plugins], Services(), KINDS)
    loaded.load()
    hooks = Hooks(loaded)
    await hooks.start()
    await measure(what, folder, load, concurrency, hooks)
    await hooks.close(1.0)


# -- backlog


def fill(db: sqlite3.Connection, first: int, count: int) -> None:
    """Write waiting deliveries, half of them for another handler."""
    numbers = range(first, first + count)
    db.executemany(
        "INSERT INTO events (id, type, created, body) VALUES (?, 'x', 1.0, '{}')",
        ((f"B{number:025}",) for number in numbers),
    )
    db.executemany(
        "INSERT INTO deliveries (event_id, handler, state, due, created, updated)"
        " VALUES (?, ?, 'ready', 1.0, 1.0, 1.0)",
        ((f"B{number:025}", "h" if number % 2 else "other") for number in numbers),
    )


async def backlog(folder: Path) -> None:
    """Claim and settle batches of 64 with that backlog."""
    journal = Journal(folder / "journal.db")
    journal.open()
    written = 0
    for size in (1_000, 100_000, 1_000_000):
        while written < size:
            count = min(20_000, size - written)
            first = written
            journal._database.submit(lambda db: fill(db, first, count)).result()  # noqa: B023 (waited for)
            written += count
        claims, ends, cpu = list[float](), list[float](), time.process_time()
        for _ in range(7 if size == 1_000 else 100):
            started = time.monotonic()
            batch = await journal.queue.claim("h", 64, 0.0)
            claimed = time.monotonic()
            await asyncio.gather(*(journal.queue.ack(delivery, 0.0) for delivery in batch))
            claims.append(claimed - started)
            ends.append(time.monotonic() - claimed)
        used = (time.process_time() - cpu) / (64 * len(claims)) * 1e6
        print(
            f"backlog of {size:>9,}:"
            f" claim of 64 p50 {share(claims, 0.5):5.2f} p99 {share(claims, 0.99):5.2f} ms,"
            f"  64 outcomes p50 {share(ends, 0.5):5.2f} p99 {share(ends, 0.99):5.2f} ms,"
            f"  CPU {used:4.0f} us/ev",
            flush=True,
        )
    journal.close()


async def run(what: str, folder: Path) -> None:
    """Run one measurement in a folder of its own."""
    if what == "closed":
        await measure("closed, 64 slots", folder, closed, 64)
    elif what == "slots":
        await measure("closed, 4 slots", folder, closed, 4)
    elif what == "paced":
        await measure(f"open loop {RATE}/s, 4 slots", folder, paced, 4)
    elif what == "executor":
        await in_executor(folder, closed, 64, "closed, 64 slots, in the executor")
    elif what == "paced-executor":
        await in_executor(folder, paced, 4, f"open loop {RATE}/s, 4 slots, in the executor")
    else:
        await backlog(folder)


def main() -> int:
    """Run the named measurements, by default all."""
    everything = ("closed", "slots", "paced", "executor", "paced-executor", "backlog")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[[], *everything], help="which (default: all)")
    parser.add_argument("--directory", type=Path, default=Path(), help="a folder on the disk to measure")
    args = parser.parse_args()
    logging.getLogger("gateway").setLevel(logging.WARNING)
    for what in args.what or everything:
        with tempfile.TemporaryDirectory(dir=args.directory) as folder:
            uvloop.run(run(what, Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
