"""Fault injection: processes of a deployment are killed at random and started again during uploads.

`test_chaos.py` runs it for seconds, `bench/chaos.py` for minutes; `promise.judge` counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Final

from tests.support.deployment import Deployment, Restartable
from tests.support.harness import put
from tests.support.promise import UploadAttempt, Verdict, judge

RECOVERY_TIMEOUT: Final = 120.0
"""Seconds in which all handlers run after the last fault."""

CLIENTS: Final = 6


# -- uploads


@dataclass
class UploadClients:
    """Clients that upload `count` files, as fast as they are allowed to, and the responses."""

    deployment: Deployment
    count: int
    attempts: list[UploadAttempt] = field(default_factory=list)
    longest_pause: float = 0.0
    _allowed: int = 0
    _last: float = 0.0
    _progress: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def tried(self) -> int:
        return len(self.attempts)

    def acknowledged(self) -> list[UploadAttempt]:
        return [attempt for attempt in self.attempts if attempt.acknowledged]

    def refused(self) -> Counter[int]:
        """The statuses of refusals."""
        return Counter(a.status for a in self.attempts if a.status is not None and not a.acknowledged)

    async def run(self) -> None:
        """Upload. An upload without a response is not repeated: its name is checked in the end."""
        self._last = time.monotonic()
        numbers = iter(range(self.count))
        await asyncio.gather(*(self._client(n, numbers) for n in range(CLIENTS)))

    async def _client(self, client: int, numbers: Iterator[int]) -> None:
        for number in numbers:
            await self._wait_allowed(number)
            name = f"{client}/{number}"
            attempt = UploadAttempt(name, f"/upload/{name}", 8000)
            if not await self._send(attempt, first=number):
                attempt.status = 503
            await self._record(attempt)
            if attempt.status == 503:
                await asyncio.sleep(0.2)  # a client's pause

    async def _send(self, attempt: UploadAttempt, first: int) -> bool:
        """Upload to the first gateway that accepts the connection, as a load balancer does."""
        gateways = self.deployment.gateways
        for turn in range(len(gateways)):
            gateway = gateways[(first + turn) % len(gateways)].process
            assert gateway is not None
            try:
                attempt.status = (await put(gateway, attempt.tag, attempt.body)).status
            except ConnectionRefusedError:
                continue  # nothing was sent
            except TimeoutError:  # an OSError: a gateway that hangs is no broken connection
                raise
            except (OSError, asyncio.IncompleteReadError):
                attempt.status = None
            return True
        return False

    async def _record(self, attempt: UploadAttempt) -> None:
        if attempt.acknowledged:
            now = time.monotonic()
            self.longest_pause = max(self.longest_pause, now - self._last)
            self._last = now
        self.attempts.append(attempt)
        async with self._progress:
            self._progress.notify_all()

    async def _wait_allowed(self, number: int) -> None:
        async with self._progress:
            await self._progress.wait_for(lambda: number < self._allowed)

    async def allow(self, more: int) -> None:
        """Let the clients go on with so many."""
        async with self._progress:
            self._allowed = self.tried + more
            self._last = time.monotonic()
            self._progress.notify_all()

    async def until_tried(self, number: int) -> None:
        """Wait until so many have been tried."""
        async with self._progress:
            await self._progress.wait_for(lambda: self.tried >= min(number, self.count))


# -- faults


@dataclass
class FaultInjector:
    """Kills at random, but the same for the same seed, whenever some more uploads were tried."""

    deployment: Deployment
    uploads: UploadClients
    every: int
    chance: random.Random
    killed: Counter[str] = field(default_factory=Counter)
    uploads_without_nats: int = 0
    pause_without_nats: float = 0.0

    async def run(self) -> None:
        """Kill until all uploads are tried; half way all of NATS is down for a while."""
        turn = 0
        while self.uploads.tried < self.uploads.count:
            if self.uploads.tried > self.uploads.count // 2 and not self.killed["all of NATS"]:
                await self._kill_all_of_nats()
            else:
                await self._kill_one(turn)
                turn += 1

    async def _kill_one(self, turn: int) -> None:
        """Kill one process in the middle of a burst of uploads, which goes on meanwhile."""
        kind = ("gateway", "worker", "NATS server", "NATS leader")[turn % 4]
        member = await self._member(kind)
        before = self.uploads.tried
        await self.uploads.allow(self.every)
        await self.uploads.until_tried(before + self.chance.randint(1, self.every // 2))
        self.killed[kind] += 1
        await asyncio.to_thread(member.kill)
        await asyncio.sleep(self.chance.uniform(0.05, 0.5))  # how long it is down
        await asyncio.to_thread(member.start)
        await self.uploads.until_tried(before + self.every)

    async def _member(self, kind: str) -> Restartable:
        if kind == "gateway":
            return self.chance.choice(self.deployment.gateways)
        if kind == "worker":
            return self.chance.choice(self.deployment.workers)
        if kind == "NATS leader":
            return await self._leader()
        return self.chance.choice(self.deployment.nats.servers)

    async def _leader(self) -> Restartable:
        """Wait until the servers have a leader: they elect one after the fault before this one."""
        async with asyncio.timeout(RECOVERY_TIMEOUT):
            while (leader := await asyncio.to_thread(self._leader_now)) is None:
                await asyncio.sleep(0.1)  # there is no event to wait for
        return leader

    def _leader_now(self) -> Restartable | None:
        with contextlib.suppress(AssertionError, OSError, HTTPException, KeyError, StopIteration):
            return self.deployment.nats.leader_of("apigw-queue")
        return None

    async def _kill_all_of_nats(self) -> None:
        """Kill all three; some uploads later they start again."""
        self.killed["all of NATS"] += 1
        await asyncio.to_thread(self.deployment.nats.kill)
        before = len(self.uploads.acknowledged())
        self.uploads.longest_pause, pause = 0.0, self.uploads.longest_pause
        await self.uploads.allow(self.uploads.count // 5)
        await self.uploads.until_tried(self.uploads.tried + self.uploads.count // 5)
        self.uploads_without_nats = len(self.uploads.acknowledged()) - before
        self.pause_without_nats = self.uploads.longest_pause
        self.uploads.longest_pause = max(pause, self.pause_without_nats)
        await asyncio.to_thread(self.deployment.nats.start)


# -- the report


@dataclass
class PromiseReport:
    """What was counted; `verdict` must be empty."""

    uploads: UploadClients
    injector: FaultInjector
    verdict: Verdict
    duplicates: dict[str, int]
    repeated_attempts: int
    seconds: float

    def rows(self) -> list[tuple[str, object]]:
        """Name and figure of all that was counted."""
        uploads, injector, verdict = self.uploads, self.injector, self.verdict
        killed = ", ".join(f"{count} {kind}" for kind, count in injector.killed.items())
        return [
            ("uploads tried", uploads.tried),
            ("answered 2xx", len(uploads.acknowledged())),
            ("without a response", sum(attempt.status is None for attempt in uploads.attempts)),
            ("refused", uploads.refused().total()),
            ("killed", killed),
            ("2xx while all of NATS was down", injector.uploads_without_nats),
            ("longest pause between two 2xx meanwhile, s", round(injector.pause_without_nats, 2)),
            ("longest pause between two 2xx, s", round(uploads.longest_pause, 2)),
            *((f"{len(tags)} uploads are {name}", tags[:5]) for name, tags in verdict.broken().items()),
            *((f"duplicate runs of {name}", count) for name, count in self.duplicates.items()),
            ("runs that were not a first attempt", self.repeated_attempts),
            ("seconds in all", round(self.seconds, 1)),
        ]


async def upload_under_faults(
    deployment: Deployment, count: int, every: int, seed: int
) -> PromiseReport:
    """Upload while processes are killed, wait until all handlers have run, count."""
    started = time.monotonic()
    uploads = UploadClients(deployment, count)
    injector = FaultInjector(deployment, uploads, every, random.Random(seed))
    async with asyncio.TaskGroup() as group:
        group.create_task(uploads.run())
        group.create_task(injector.run())
    await _wait_for_runs(deployment, {attempt.tag for attempt in uploads.acknowledged()})
    recorders = deployment.recorders
    verdict = judge(uploads.attempts, deployment.stored(), *(one.digests() for one in recorders))
    duplicates = {one.name: len(one.tags()) - len(set(one.tags())) for one in recorders}
    repeated = sum(run["attempt"] != 1 for one in recorders for run in one.runs())
    return PromiseReport(uploads, injector, verdict, duplicates, repeated, time.monotonic() - started)


async def _wait_for_runs(deployment: Deployment, acknowledged: set[str]) -> None:
    """Wait until each handler ran for all stored and `acknowledged` uploads, if they ever do."""
    deadline = time.monotonic() + RECOVERY_TIMEOUT
    while time.monotonic() < deadline:
        due = acknowledged | {f"/upload/{name}" for name in deployment.stored()}
        if all(due <= set(recorder.tags()) for recorder in deployment.recorders):
            return
        await asyncio.sleep(0.1)  # the log is the only sign
