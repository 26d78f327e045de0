"""Three servers, killed under load: every upload that was acknowledged has its run."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.conftest import StartGateway, StartProcess
from tests.support.harness import complete_lines, get, put, wait_until, write_plugin
from tests.support.nats.servers import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NOTER = """\
name: noter
event: APIGW.OnFileUploaded
retry: {{attempts: 50, backoff: 0.1, max_backoff: 1}}
concurrency: 16
script: |
  async def noter(event, handle):
      with open({log!r}, "a") as log:
          log.write(json.dumps(event["path"]) + "\\n")
"""


async def test_every_acknowledged_upload_is_handled_whatever_dies(
    start_gateway: StartGateway,
    cluster: Cluster,
    gateway_process: StartProcess,
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    folder = write_plugin(tmp_path / "plugins", NOTER.format(log=str(log)))
    gateway = await asyncio.to_thread(
        gateway_process, "--events", cluster.url, "--plugins", str(folder), "--events-lease", "2"
    )
    stored: list[str] = []

    async def upload(worker: int, count: int) -> None:
        for number in range(count):
            path = f"/upload/{worker}/{number}"
            if (await put(gateway, path)).status == 201:
                stored.append(path)

    async def some(first: int) -> None:
        await asyncio.gather(*(upload(first + worker, 40) for worker in range(4)))

    def handled() -> bool:
        return {json.loads(line) for line in complete_lines(log)} >= set(stored)

    await some(0)
    await wait_until(lambda: len(complete_lines(log)) >= 1)
    # The leader dies while events are on their way.
    leader = cluster.leader_of("apigw-queue")
    uploading = asyncio.create_task(some(10))
    await wait_until(lambda: len(stored) > 200)
    leader.kill()
    await uploading
    # All three die; uploads go on.
    uploading = asyncio.create_task(some(20))
    await wait_until(lambda: len(stored) > 360)
    cluster.kill()
    await uploading
    await some(30)
    assert len(stored) == 640
    assert (await get(gateway, "/-/ready")).status == 200
    await asyncio.to_thread(cluster.start)
    await wait_until(handled, 120)
