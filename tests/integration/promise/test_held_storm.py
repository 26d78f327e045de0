"""A storm of kills while handlers hold files: every 202 is decided exactly once.

The name of a file says what its handler decides; some are decided by the number of the run, so that a
decision that is taken twice shows. A reader looks for files that nobody may see, all the time. With
`HELD_STORM_KILLS` in the environment there are as many kills.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartProcess
from tests.support.harness import (
    GatewayProcess,
    files_below,
    leftovers,
    wait_decided,
    wait_settled,
    wait_until,
    write_plugin,
)
from tests.support.promise import RunRecorder, UploadAttempt, send

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

KILLS = int(os.environ.get("HELD_STORM_KILLS", "10"))
CLIENTS = 12
SIZES = (40, 4096, 70_000, 1_500_000)
VERDICTS = ("accept", "refuse", "move", "fail", "flip")

_JUDGE = """\
name: judge
event: APIGW.OnFileReceived
hold: true
concurrency: 8
retry: {attempts: 500, backoff: 0.02, max_backoff: 0.1}
script: |
  import hashlib
  async def judge(event, handle):
      name, attempt = event["path"].rpartition("/")[2], event["attempt"]
      async with files.open(event) as reader:
          digest = hashlib.sha256(await reader.read()).hexdigest()
      if digest != event["headers"]["X-Digest"]:
          await handle.terminate(code=500, output="torn")
      handle.result({"attempt": attempt})
      await asyncio.sleep(0.02)
      if name.startswith("fail") and attempt < 3:
          raise RuntimeError("not yet")
      if name.startswith("refuse") or name.startswith("flip") and attempt % 2 == 0:
          await handle.terminate(code=422, output="not wanted")
      if name.startswith("move"):
          event["path"] = "/upload/moved/" + name
"""


class Storm:
    """The clients and their attempts. `gateway` is replaced after each kill."""

    def __init__(self, folder: Path) -> None:
        self.random = random.Random(time.time_ns())
        self.folder = folder
        self.attempts: list[UploadAttempt] = []
        self.gateway: GatewayProcess | None = None
        self.up = asyncio.Event()
        self.over = False
        self.looks = 0

    async def upload(self, client: int) -> None:
        number = 0
        while not self.over:
            await self.up.wait()
            number += 1
            verdict = self.random.choice(VERDICTS)
            name = f"{verdict}-{client}-{number}"
            attempt = UploadAttempt(name, name, self.random.choice(SIZES), began=time.monotonic())
            self.attempts.append(attempt)
            assert self.gateway is not None
            await send(self.gateway, attempt, f"X-Digest: {attempt.digest}")

    async def read(self) -> None:
        """Look for refused files in the folder, all the time."""
        while not self.over:
            with contextlib.suppress(FileNotFoundError):
                names = os.listdir(self.folder)
                assert not [name for name in names if name.startswith("refuse")]
                self.looks += 1
            await asyncio.sleep(0.002)  # how often is the point

    async def kill_repeatedly(self, gateway_process: StartProcess, flags: tuple[str, ...]) -> None:
        for _ in range(KILLS):
            self.gateway = await asyncio.to_thread(gateway_process, *flags)
            self.up.set()
            await asyncio.sleep(self.random.uniform(0.1, 0.9))  # the moment of the kill is the test
            self.up.clear()
            self.gateway.kill()
        self.over = True


def deciding_runs(directory: Path) -> dict[str, list[int]]:
    """Return, by upload id, the attempts in which its handler decided. The gateway has ended."""
    decided: dict[str, list[int]] = {}
    for path in sorted((directory / ".gateway").glob("journal-*.db")):
        with contextlib.closing(sqlite3.connect(path)) as db:
            rows = db.execute(
                "SELECT e.upload_id, r.attempt FROM runs r JOIN deliveries d ON d.seq = r.delivery"
                " JOIN events e ON e.id = d.event_id WHERE d.handler = 'judge' AND r.outcome = 'done'"
            )
            for upload_id, attempt in rows:
                decided.setdefault(upload_id, []).append(attempt)
    return decided


def held_rows(directory: Path) -> dict[str, tuple[str, Any]]:
    """Return state and fields of what is still in the table of held uploads, by upload id."""
    rows: dict[str, tuple[str, Any]] = {}
    for path in sorted((directory / ".gateway").glob("journal-*.db")):
        with contextlib.closing(sqlite3.connect(path)) as db:
            for upload_id, state, upload in db.execute("SELECT id, state, upload FROM held"):
                rows[upload_id] = state, json.loads(upload)
    return rows


def stored_rows(directory: Path) -> dict[str, str]:
    """Return the paths of the uploads that are stored, by upload id."""
    rows: dict[str, str] = {}
    for path in sorted((directory / ".gateway").glob("journal-*.db")):
        with contextlib.closing(sqlite3.connect(path)) as db:
            rows |= dict(db.execute("SELECT id, path FROM uploads").fetchall())
    return rows


def check(storm: Storm, directory: Path, recorder: RunRecorder) -> dict[str, int]:
    """Compare what clients were answered with what is decided, stored and handled."""
    stored, runs = files_below(directory / "upload"), recorder.runs()
    handled = {run["tag"]: run["sha256"] for run in runs}
    decided, held, committed = deciding_runs(directory), held_rows(directory), stored_rows(directory)
    assert {state for state, _ in held.values()} <= {"rejected"}
    rejected = {fields["headers"]["X-Tag"]: upload_id for upload_id, (_, fields) in held.items()}
    accepted = {path.rpartition("/")[2]: upload_id for upload_id, path in committed.items()}
    broken: list[str] = []
    for attempt in storm.attempts:
        verdict, _, _ = attempt.name.partition("-")
        path = f"moved/{attempt.name}" if verdict == "move" else attempt.name
        is_stored, is_rejected = stored.get(path) == attempt.body, attempt.tag in rejected
        upload_id = rejected.get(attempt.tag) or accepted.get(attempt.name)
        expected = {"refuse": {"rejected"}, "flip": {"stored", "rejected"}}.get(verdict, {"stored"})
        outcomes = {"stored"} if is_stored else set()
        outcomes |= {"rejected"} if is_rejected else set()
        if attempt.status == 202 or outcomes:
            if len(outcomes) != 1 or not outcomes <= expected:
                broken.append(f"{attempt.name}: {attempt.status} {outcomes}")
            if is_stored and handled.get(attempt.tag) != attempt.digest:
                broken.append(f"{attempt.name}: not handled")
            if is_rejected and attempt.tag in handled:
                broken.append(f"{attempt.name}: rejected and handled")
            attempts = decided.get(upload_id or "", [])
            if len(attempts) != 1:
                broken.append(f"{attempt.name}: decided in runs {attempts}")
            elif verdict == "flip" and is_stored != (attempts[0] % 2 == 1):
                broken.append(f"{attempt.name}: decided in run {attempts}, {outcomes}")
        if attempt.status not in {None, 202}:
            broken.append(f"{attempt.name}: answered {attempt.status}")
    assert broken == []
    assert len(stored) == len(committed)
    return {
        "uploads": len(storm.attempts),
        "held": sum(attempt.status == 202 for attempt in storm.attempts),
        "unanswered": sum(attempt.status is None for attempt in storm.attempts),
        "stored": len(stored),
        "rejected": len(rejected),
        "looks": storm.looks,
    }


@pytest.mark.parametrize(("processes", "durability"), [(1, "full"), (2, "none")])
async def test_every_held_upload_is_decided_exactly_once_in_a_storm_of_kills(
    gateway_process: StartProcess, tmp_path: Path, processes: int, durability: str
) -> None:
    data, recorder = tmp_path / "data", RunRecorder(tmp_path)
    write_plugin(recorder.plugins, _JUDGE, "judge.yaml")
    flags = (*recorder.flags, "--processes", str(processes), "--durability", durability)
    storm = Storm(data / "upload")
    clients = [asyncio.create_task(storm.upload(number)) for number in range(CLIENTS)]
    reader = asyncio.create_task(storm.read())
    await storm.kill_repeatedly(gateway_process, flags)
    storm.up.set()
    await asyncio.gather(reader, *clients)

    last = await asyncio.to_thread(gateway_process, *recorder.flags)
    await wait_decided(last, seconds=120)
    await wait_until(lambda: not os.listdir(data / ".gateway/held"))  # rejected ones are being removed
    await wait_settled(last)
    assert last.terminate() == 0
    assert leftovers(data) == []
    figures = check(storm, data, recorder)
    print(f"{KILLS} kills of {processes} processes: {figures}")
    assert figures["held"] > KILLS
