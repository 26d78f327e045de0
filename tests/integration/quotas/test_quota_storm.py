"""Quotas in a storm: uploads of all protocols in three processes, removals, and SIGKILL again and again.

While nothing runs, never more is stored than is allowed. After each start, before a client is served,
whatever is stored counts, and nothing is reserved but by partial uploads that are there; what was
removed counts no more once the start's scan has seen it. With a handler that holds uploads the same is
true once it has decided.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.conftest import StartProcess
from tests.support.harness import (
    GatewayProcess,
    files_below,
    raw_connection,
    request_head,
    wait_until,
    write_plugin,
)
from tests.support.quotas import expected_usage, open_counters, usage_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

KILLS: Final = int(os.environ.get("QUOTA_STORM_KILLS", "5"))
CLIENTS: Final = 12
BYTES: Final = 1 << 20
FILES: Final = 6
SIZES: Final = (0, 100, 9_000, 70_000, 200_000)
HOLDER: Final = """
name: holder
event: APIGW.OnFileReceived
hold: true
retry: {attempts: 50, backoff: 0.05, max_backoff: 0.2}
script: |
  async def holder(event, handle):
      if event["bytes"] % 3 == 1:
          await handle.terminate(422)
"""
TUS: Final = ("Tus-Resumable: 1.0.0", "Content-Type: application/offset+octet-stream")

POINTS: Final = (
    "", "", "after quota reserved", "before quota settled", "after rename",
    "after journal commit", "mid body", "after unlink", "after deletion sync", "before answer",
)  # fmt: skip
"""Where the gateway kills itself, at the first upload or removal that comes there; or the test does."""

REQUEST_POINTS: Final = (
    "",
    "",
    "after quota reserved",
    "mid body",
    "after unlink",
    "after deletion sync",
)
"""Those that no held upload comes to, which each start publishes again."""


class Storm:
    """The clients; `gateway` is replaced after each kill."""

    def __init__(self, seed: int, directory: Path, *, holds: bool) -> None:
        self.holds = holds
        self.random = random.Random(seed)
        self.directory = directory
        self.gateway: GatewayProcess | None = None
        self.up = asyncio.Event()
        self.over = False
        self.statuses: Counter[int] = Counter()

    async def client(self, number: int) -> None:
        while not self.over:
            await self.up.wait()
            work = self.random.choice((self.put, self.put, self.put_chunked, self.tus, self.remove))
            folder = self.random.choice(("", "few/"))
            own = f"own-{number}-{self.random.randrange(9)}"
            name = self.random.choice((own, "shared-1", "shared-2"))
            try:
                async with asyncio.timeout(20):
                    await work(f"/upload/{folder}{name}")
            except (OSError, asyncio.IncompleteReadError, KeyError):
                await asyncio.sleep(0.01)  # it was killed

    async def ask(self, method: str, target: str, *lines: str, body: bytes = b"") -> str:
        """Send a request, sometimes only a part of it; return its `Location`."""
        assert self.gateway is not None
        cut = self.random.randrange(len(body) + 1) if self.random.random() < 0.15 else None
        async with raw_connection(self.gateway) as connection:
            length = () if "Transfer-Encoding: chunked" in lines else (f"Content-Length: {len(body)}",)
            await connection.send(request_head(method, target, *length, *lines) + body[:cut])
            if cut is not None and cut < len(body):
                raise ConnectionAbortedError
            answer = await connection.answer()
            self.statuses[answer.status] += 1
            return answer.headers.get("Location", "")

    async def put(self, target: str) -> None:
        await self.ask("PUT", target, body=b"x" * self.random.choice(SIZES))

    async def put_chunked(self, target: str) -> None:
        size = self.random.choice(SIZES)
        chunk = f"{size:x}\r\n".encode() + b"x" * size + b"\r\n" if size else b""
        await self.ask("PUT", target, "Transfer-Encoding: chunked", body=chunk + b"0\r\n\r\n")

    async def tus(self, target: str) -> None:
        size = self.random.choice(SIZES)
        location = await self.ask("POST", target, TUS[0], f"Upload-Length: {size}")
        if not location or self.random.random() < 0.1:
            return  # it stays, and counts
        path = "/" + location.split("/", 3)[3] if location.startswith("http") else location
        if self.random.random() < 0.2:
            await self.ask("DELETE", path, TUS[0])
            return
        half = size // 2
        await self.ask("PATCH", path, *TUS, "Upload-Offset: 0", body=b"x" * half)
        await self.ask("PATCH", path, *TUS, f"Upload-Offset: {half}", body=b"x" * (size - half))

    async def remove(self, target: str) -> None:
        await self.ask("DELETE", target)

    def stored(self) -> dict[str, int]:
        """Return the sizes of what is stored, by path."""
        files = files_below(self.directory / "upload")
        return {f"/upload/{name}": len(content) for name, content in files.items()}

    def check_limits(self) -> None:
        stored = self.stored()
        assert sum(stored.values()) <= BYTES
        assert len([path for path in stored if path.startswith("/upload/few/")]) <= FILES

    def counters_match(self) -> bool:
        """Compare the counters with the rows, with what is stored and with the partial uploads.

        A removal that was killed before it was given back is found by the scan of the start.
        """
        db = open_counters(self.directory / ".gateway/quotas.db")
        with contextlib.closing(db):
            db.execute("BEGIN")  # one state of all tables
            reserved = {row[0] for row in db.execute("SELECT upload_id FROM quota_reservations")}
            state = self.directory / ".gateway"
            kept = {file.stem for file in (state / "partials").glob("*.json")}
            assert usage_of(db) == expected_usage(db)
            counted, stored = dict(db.execute("SELECT path, bytes FROM quota_files")), self.stored()
            if not self.holds:  # else what was held is published meanwhile
                assert reserved == kept
                assert counted.items() >= stored.items()
            return counted == stored and reserved == kept

    async def check_counters(self) -> None:
        await wait_until(self.counters_match)


async def kill_one_process(gateway: GatewayProcess, rng: random.Random) -> None:
    """Kill one of the processes: the supervisor begins another one."""
    children = psutil.Process(gateway.process.pid).children()
    if children:
        with contextlib.suppress(psutil.NoSuchProcess):
            rng.choice(children).send_signal(signal.SIGKILL)
    await asyncio.sleep(rng.uniform(0.3, 1.0))


@pytest.mark.parametrize("holds", [False, True], ids=["stored at once", "held first"])
async def test_after_each_kill_the_counters_say_what_a_scan_finds(
    gateway_process: StartProcess, tmp_path: Path, holds: bool
) -> None:
    storm = Storm(random.randrange(1 << 30), tmp_path / "data", holds=holds)
    quotas = f"per=principal bytes={BYTES}, prefix=/upload/few/ files={FILES}"
    flags: tuple[str, ...] = ("--processes", "3", "--deletes", "--quotas", quotas)
    if holds:
        flags += ("--plugins", str(write_plugin(tmp_path / "plugins", HOLDER)))
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(storm.client(number))
        for _ in range(KILLS):
            storm.gateway = await asyncio.to_thread(
                gateway_process, *flags, die_at=storm.random.choice(REQUEST_POINTS if holds else POINTS)
            )
            await storm.check_counters()
            storm.up.set()
            await asyncio.sleep(storm.random.uniform(0.2, 1.5))  # the moment of the kill is the test
            if storm.random.random() < 0.3:
                await kill_one_process(storm.gateway, storm.random)
            storm.up.clear()
            storm.gateway.kill()
            storm.check_limits()
        storm.over = True
        storm.up.set()
    gateway = await asyncio.to_thread(gateway_process, *flags)
    await storm.check_counters()
    gateway.kill()
    assert storm.statuses[202 if holds else 200]
    assert storm.statuses[507]
    print(f"{KILLS} kills, answers: {dict(storm.statuses)}")
