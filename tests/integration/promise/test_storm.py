"""A storm: sixteen clients, shared and new names, and a SIGKILL again and again.

Counted at the end: every received 2xx has its whole file (its own or a later one's) and its event
handled at least once; every received non-2xx left nothing; every unanswered upload is whole with
its event, or not there at all.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest

from tests.conftest import StartProcess
from tests.support.harness import GatewayProcess, files_below, leftovers, wait_settled
from tests.support.promise import RunRecorder, UploadAttempt, judge, send

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

KILLS = 22
CLIENTS = 16
SHARED_NAMES = 6
SIZES = (40, 4096, 70_000, 1_500_000)  # long enough to tell one from another


class Storm:
    """The clients and their attempts. `gateway` is replaced after each kill."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.attempts: list[UploadAttempt] = []
        self.gateway: GatewayProcess | None = None
        self.up = asyncio.Event()
        self.over = False

    async def upload(self, client: int) -> None:
        number = 0
        while not self.over:
            await self.up.wait()
            number += 1
            tag = f"{client}-{number}"
            shared = self.random.random() < 0.5
            name = f"shared-{self.random.randrange(SHARED_NAMES)}" if shared else f"new-{tag}"
            size = self.random.choice(SIZES)
            attempt = UploadAttempt(name, tag, size, began=time.monotonic())
            self.attempts.append(attempt)
            assert self.gateway is not None
            await send(self.gateway, attempt)

    async def kill_repeatedly(self, gateway_process: StartProcess, flags: tuple[str, ...]) -> None:
        for _ in range(KILLS):
            self.gateway = await asyncio.to_thread(gateway_process, *flags)
            self.up.set()
            await asyncio.sleep(self.random.uniform(0.05, 0.6))  # the moment of the kill is the test
            self.up.clear()
            self.gateway.kill()
        self.over = True


async def test_no_promise_is_broken_in_a_storm_of_kills(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    recorder = RunRecorder(tmp_path)
    storm = Storm(seed=time.time_ns())
    clients = [asyncio.create_task(storm.upload(number)) for number in range(CLIENTS)]
    await storm.kill_repeatedly(gateway_process, recorder.flags)
    storm.up.set()
    await asyncio.gather(*clients)

    await wait_settled(await asyncio.to_thread(gateway_process, *recorder.flags))
    acknowledged = sum(attempt.acknowledged for attempt in storm.attempts)
    unanswered = sum(attempt.status is None for attempt in storm.attempts)
    print(f"{len(storm.attempts)} uploads, {acknowledged} acknowledged, {unanswered} unanswered")
    assert leftovers(tmp_path / "data") == []
    assert acknowledged > KILLS
    assert unanswered
    stored = files_below(tmp_path / "data/upload")
    assert judge(storm.attempts, stored, recorder.digests()).broken() == {}
