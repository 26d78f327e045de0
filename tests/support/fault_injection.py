"""A director of accidents: gateways, workers and NATS servers as real processes, killed at random and
started again, while uploads go on. Used by `tests/test_chaos.py` and, longer, by `bench/chaos.py`.

What it counts is the promise. A handler writes a line at the end of each run; an upload that was
answered 2xx and has no line of some handler is `missing`, a line too many is a duplicate. An upload
without an answer must be whole with its runs, or not be there at all.
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

from tests.support.deployment import HANDLERS, Deployment, Restartable
from tests.support.harness import put

RECOVERY_TIMEOUT: Final = 120.0
"""Seconds that all handlers get to run after the last accident."""

CLIENTS: Final = 6


def body_of(path: str) -> bytes:
    """Return what is uploaded as `path`: no two are the same, and a piece of one is seen as such."""
    return f"{path}\n".encode() * 400


# -- uploads


@dataclass
class UploadClients:
    """Clients that upload `count` files, as fast as they are allowed to, and what they were told."""

    site: Deployment
    count: int
    acknowledged: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)
    refused_paths: list[str] = field(default_factory=list)
    longest_pause: float = 0.0
    _allowed: int = 0
    _last: float = 0.0
    _progress: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def tried(self) -> int:
        return len(self.acknowledged) + len(self.unanswered) + len(self.refused_paths)

    async def run(self) -> None:
        """Upload. An upload without an answer is not repeated: its name is looked at in the end."""
        self._last = time.monotonic()
        numbers = iter(range(self.count))
        await asyncio.gather(*(self._client(n, numbers) for n in range(CLIENTS)))

    async def _client(self, client: int, numbers: Iterator[int]) -> None:
        for number in numbers:
            await self._turn(number)
            path = f"/upload/{client}/{number}"
            for turn in range(len(self.site.gateways)):
                gateway = self.site.gateways[(number + turn) % len(self.site.gateways)].process
                assert gateway is not None
                try:
                    status = (await put(gateway, path, body_of(path))).status
                except ConnectionRefusedError:
                    continue  # nothing was sent; a balancer asks the next one
                except (OSError, asyncio.IncompleteReadError):
                    status = 0
                await self._told(path, status)
                break
            else:
                await self._told(path, 503)
                await asyncio.sleep(0.2)  # all are down: a client's pause

    async def _told(self, path: str, status: int) -> None:
        now = time.monotonic()
        if 200 <= status < 300:
            self.longest_pause = max(self.longest_pause, now - self._last)
            self._last = now
            self.acknowledged.append(path)
        elif status == 0:
            self.unanswered.append(path)
        else:
            self.refused[status] += 1
            self.refused_paths.append(path)
        async with self._progress:
            self._progress.notify_all()

    async def _turn(self, number: int) -> None:
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


# -- accidents


@dataclass
class FaultInjector:
    """Kills at random, but the same for the same seed, whenever some more uploads were tried."""

    site: Deployment
    uploads: UploadClients
    every: int
    chance: random.Random
    killed: Counter[str] = field(default_factory=Counter)
    uploads_without_nats: int = 0
    pause_without_nats: float = 0.0

    async def run(self) -> None:
        """Direct until all uploads are tried; in the middle all of NATS is away for a while."""
        turn = 0
        while self.uploads.tried < self.uploads.count:
            if self.uploads.tried > self.uploads.count // 2 and not self.killed["all of NATS"]:
                await self._all_of_nats()
            else:
                await self._one(turn)
                turn += 1

    async def _one(self, turn: int) -> None:
        """Kill one in the middle of a burst of uploads, which goes on while it is away."""
        kind = ("gateway", "worker", "NATS server", "NATS leader")[turn % 4]
        member = await self._member(kind)
        before = self.uploads.tried
        await self.uploads.allow(self.every)
        await self.uploads.until_tried(before + self.chance.randint(1, self.every // 2))
        self.killed[kind] += 1
        await asyncio.to_thread(member.kill)
        await asyncio.sleep(self.chance.uniform(0.05, 0.5))  # how long it is away
        await asyncio.to_thread(member.start)
        await self.uploads.until_tried(before + self.every)

    async def _member(self, kind: str) -> Restartable:
        if kind == "gateway":
            return self.chance.choice(self.site.gateways)
        if kind == "worker":
            return self.chance.choice(self.site.workers)
        if kind == "NATS leader":
            return await self._leader()
        return self.chance.choice(self.site.nats.servers)

    async def _leader(self) -> Restartable:
        """Wait until the servers know their leader: after the accident before this one they elect."""
        async with asyncio.timeout(RECOVERY_TIMEOUT):
            while (leader := await asyncio.to_thread(self._leader_now)) is None:
                await asyncio.sleep(0.1)  # asking is the only sign
        return leader

    def _leader_now(self) -> Restartable | None:
        with contextlib.suppress(AssertionError, OSError, HTTPException, KeyError, StopIteration):
            return self.site.nats.leader_of("apigw-queue")
        return None

    async def _all_of_nats(self) -> None:
        """Kill all three; some uploads later they come back."""
        self.killed["all of NATS"] += 1
        await asyncio.to_thread(self.site.nats.kill)
        before = len(self.uploads.acknowledged)
        self.uploads.longest_pause, pause = 0.0, self.uploads.longest_pause
        await self.uploads.allow(self.uploads.count // 5)
        await self.uploads.until_tried(self.uploads.tried + self.uploads.count // 5)
        self.uploads_without_nats = len(self.uploads.acknowledged) - before
        self.pause_without_nats = self.uploads.longest_pause
        self.uploads.longest_pause = max(pause, self.pause_without_nats)
        await asyncio.to_thread(self.site.nats.start)


# -- the reckoning


@dataclass
class PromiseReport:
    """What became of the promise. `missing`, `torn` and `orphans` must be empty."""

    uploads: UploadClients
    director: FaultInjector
    seconds: float
    missing: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    duplicates: dict[str, int] = field(default_factory=dict)
    begun_again: int = 0

    def rows(self) -> list[tuple[str, object]]:
        """Name and figure of all that was counted."""
        told, director = self.uploads, self.director
        killed = ", ".join(f"{count} {kind}" for kind, count in director.killed.items())
        return [
            ("uploads tried", told.tried),
            ("answered 2xx", len(told.acknowledged)),
            ("without an answer", len(told.unanswered)),
            ("refused", sum(told.refused.values())),
            ("killed", killed),
            ("2xx while all of NATS was away", director.uploads_without_nats),
            ("longest pause between two 2xx meanwhile, s", round(director.pause_without_nats, 2)),
            ("longest pause between two 2xx, s", round(told.longest_pause, 2)),
            ("2xx without a complete run of each handler", len(self.missing)),
            ("files that are not whole, or not there after 2xx", len(self.torn)),
            ("unanswered or refused, with a file but no run, or a run but no file", len(self.orphans)),
            *((f"duplicate runs of {name}", count) for name, count in self.duplicates.items()),
            ("runs that were not a first attempt", self.begun_again),
            ("seconds in all", round(self.seconds, 1)),
        ]


async def upload_under_faults(site: Deployment, count: int, every: int, seed: int) -> PromiseReport:
    """Upload under accidents, wait until all handlers have run, count."""
    started = time.monotonic()
    uploads = UploadClients(site, count)
    director = FaultInjector(site, uploads, every, random.Random(seed))
    async with asyncio.TaskGroup() as group:
        group.create_task(uploads.run())
        group.create_task(director.run())
    ran = await _all_have_run(site, set(uploads.acknowledged))
    reckoning = PromiseReport(uploads, director, time.monotonic() - started)
    evaluate(site, reckoning, ran)
    return reckoning


async def _all_have_run(site: Deployment, wanted: set[str]) -> dict[str, Counter[str]]:
    """Wait until each handler ran for all files that are there, and for `wanted`, if they ever do."""
    deadline = time.monotonic() + RECOVERY_TIMEOUT
    while True:
        ran = {name: Counter(line.split()[0] for line in site.lines(name)) for name in HANDLERS}
        due = wanted | set(site.stored())
        if all(due <= set(runs) for runs in ran.values()) or time.monotonic() > deadline:
            return ran
        await asyncio.sleep(0.1)  # the lines are the only sign


def evaluate(site: Deployment, reckoning: PromiseReport, ran: dict[str, Counter[str]]) -> None:
    """Compare what clients were told, what is stored and what has run."""
    told, stored = reckoning.uploads, site.stored()
    reckoning.missing = [
        path for path in told.acknowledged if not all(runs[path] for runs in ran.values())
    ]
    whole = {path for path, body in stored.items() if body == body_of(path)}
    reckoning.torn = [path for path in {*told.acknowledged, *stored} if path not in whole]
    reckoning.orphans = [
        path
        for path in (*told.unanswered, *told.refused_paths)
        if any(bool(runs[path]) != (path in stored) for runs in ran.values())
    ]
    reckoning.orphans += [path for path in told.refused_paths if path in stored]
    runs_of_all = [line.split() for name in HANDLERS for line in site.lines(name)]
    reckoning.begun_again = sum(attempt != "1" for _, attempt, *_ in runs_of_all)
    reckoning.duplicates = {name: runs.total() - len(runs) for name, runs in ran.items()}
