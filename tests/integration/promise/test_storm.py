"""A storm: sixteen uploaders, shared and new names, and a SIGKILL again and again.

Counted at the end: every received 2xx has its whole file (its own or a later one's) and its event
handled at least once; every received non-2xx left nothing; every unanswered upload is whole with
its event, or not there at all.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import StartProcess
from tests.integration.promise.test_crash import attempt, body_of, handled, plugins
from tests.support.harness import GatewayProcess, files_below, leftovers, wait_settled

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

KILLS = 22
UPLOADERS = 16
SHARED_NAMES = 6
SIZES = (40, 4096, 70_000, 1_500_000)  # long enough to tell one from another


@dataclass
class Attempt:
    """One try to upload: when it began and ended, and how."""

    name: str
    tag: str
    size: int
    began: float
    ended: float = float("inf")
    status: int | None = None

    @property
    def acknowledged(self) -> bool:
        return self.status in {200, 201}

    @property
    def sha256(self) -> str:
        return hashlib.sha256(body_of(self.tag, self.size)).hexdigest()


class Storm:
    """The uploaders and what they know. `gateway` is replaced after each kill."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.attempts: list[Attempt] = []
        self.gateway: GatewayProcess | None = None
        self.up = asyncio.Event()
        self.over = False

    async def upload(self, uploader: int) -> None:
        number = 0
        while not self.over:
            await self.up.wait()
            number += 1
            tag = f"{uploader}-{number}"
            shared = self.random.random() < 0.5
            name = f"shared-{self.random.randrange(SHARED_NAMES)}" if shared else f"new-{tag}"
            trial = Attempt(name, tag, self.random.choice(SIZES), time.monotonic())
            self.attempts.append(trial)
            assert self.gateway is not None
            trial.status = await attempt(self.gateway, name, tag, trial.size)
            trial.ended = time.monotonic()

    async def kill_again_and_again(self, start: StartProcess, flags: tuple[str, ...]) -> None:
        for _ in range(KILLS):
            self.gateway = await asyncio.to_thread(start, *flags)
            self.up.set()
            await asyncio.sleep(self.random.uniform(0.05, 0.6))  # the moment of the kill is the test
            self.up.clear()
            self.gateway.kill()
        self.over = True


async def test_no_promise_is_broken_in_a_storm_of_kills(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    flags = plugins(tmp_path)
    storm = Storm(seed=time.time_ns())
    uploaders = [asyncio.create_task(storm.upload(number)) for number in range(UPLOADERS)]
    await storm.kill_again_and_again(gateway_process, flags)
    storm.up.set()
    await asyncio.gather(*uploaders)

    gateway = await asyncio.to_thread(gateway_process, *flags)
    await wait_settled(gateway)
    stored = files_below(tmp_path / "data/upload")
    runs = {run["tag"]: run["sha256"] for run in handled(tmp_path)}
    by_tag = {trial.tag: trial for trial in storm.attempts}
    by_content = {(t.name, t.sha256): t for t in storm.attempts}
    acknowledged = [t for t in storm.attempts if t.acknowledged]
    unanswered = [t for t in storm.attempts if t.status is None]
    print(
        f"{len(storm.attempts)} uploads, {len(acknowledged)} acknowledged, {len(unanswered)} unanswered"
    )

    assert leftovers(tmp_path / "data") == []
    assert len(acknowledged) > KILLS
    assert unanswered
    for tag, digest in runs.items():
        assert digest in {None, by_tag[tag].sha256}, f"{tag}: the handler saw another file"
    for trial in storm.attempts:
        if trial.acknowledged:
            assert trial.tag in runs, f"{trial} was acknowledged and never handled"
            assert trial.name in stored, f"{trial} was acknowledged and is not there"
        elif trial.status is not None:
            assert trial.tag not in runs, f"{trial} was refused and handled"
    for name, content in stored.items():
        winner = by_content.get((name, hashlib.sha256(content).hexdigest()))
        assert winner is not None, f"{name} holds what nobody uploaded whole"
        assert winner.acknowledged or winner.status is None, f"{name} holds a refused upload"
        assert winner.tag in runs, f"{winner} is stored without its event"
        for trial in acknowledged:
            if trial.name == name:
                assert trial.began <= winner.ended, f"{name}: {winner} stands over the later {trial}"
    for trial in unanswered:
        if trial.tag in runs:
            assert trial.name in stored, f"{trial} was handled and is not there"
