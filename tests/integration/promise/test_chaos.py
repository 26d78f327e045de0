"""Accidents at random: whatever dies, every upload that was answered 2xx has its runs.

What kills a worker whenever it is run ends dead: `tests/nats/test_worker.py`. The leader and all three
servers killed under one gateway: `tests/nats/test_cluster.py`. `python -m bench.chaos` is the long form.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.support.deployment import Deployment, RestartableGateway, deployment
from tests.support.fault_injection import (
    FaultInjector,
    PromiseReport,
    UploadClients,
    body_of,
    evaluate,
    upload_under_faults,
)
from tests.support.nats.servers import Cluster, single
from tests.support.recovery_times import seconds_after_a_worker_died, seconds_after_restart

LEASE = 2.0
BUSY = 8.0
"""What a busy machine may add. The figures themselves are measured by `python -m bench.chaos`."""


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_every_2xx_has_its_runs_whatever_dies(tmp_path: Path) -> None:
    with deployment(tmp_path) as running:
        found = await upload_under_faults(running, count=400, every=25, seed=20261122)
    for name, figure in found.rows():
        print(f"{name}: {figure}")
    assert found.missing == []
    assert found.torn == []
    assert found.orphans == []
    killed = found.director.killed
    assert set(killed) == {"gateway", "worker", "NATS server", "NATS leader", "all of NATS"}
    assert found.uploads.refused.keys() <= {503}
    assert len(found.uploads.acknowledged) > 300
    assert found.director.uploads_without_nats == 80


@pytest.mark.slow
@pytest.mark.serial
@pytest.mark.timeout(300)
async def test_what_a_killed_worker_had_begun_is_begun_elsewhere_when_its_lease_is_over(
    tmp_path: Path,
) -> None:
    with single(tmp_path / "nats") as server:
        seconds = await seconds_after_a_worker_died(tmp_path, server, LEASE)
    assert seconds < LEASE + BUSY


@pytest.mark.slow
@pytest.mark.serial
@pytest.mark.timeout(300)
async def test_what_a_killed_gateway_had_begun_goes_on_after_its_restart(tmp_path: Path) -> None:
    assert await seconds_after_restart(tmp_path) < BUSY


async def test_a_broken_promise_is_found(tmp_path: Path) -> None:
    """What the storm would count, had the gateways lied."""
    place = Deployment(tmp_path, Cluster([]), [RestartableGateway(tmp_path / "data", [])], [])
    folder = tmp_path / "data/upload"
    folder.mkdir(parents=True)
    for name in ("good", "no-run", "torn", "silent", "refused"):
        (folder / name).write_bytes(body_of(f"/upload/{name}")[: 99 if name == "torn" else None])
    uploads = UploadClients(place, 9)
    uploads.acknowledged += [f"/upload/{name}" for name in ("good", "no-run", "torn", "gone")]
    uploads.unanswered += ["/upload/silent", "/upload/ghost", "/upload/nothing"]
    uploads.refused_paths += ["/upload/refused"]
    reckoning = PromiseReport(uploads, FaultInjector(place, uploads, 1, random.Random(1)), 0.0)
    runs = Counter([f"/upload/{name}" for name in ("good", "good", "torn", "gone", "ghost", "refused")])
    evaluate(place, reckoning, {"notes": runs})
    assert reckoning.missing == ["/upload/no-run"]
    assert sorted(reckoning.torn) == ["/upload/gone", "/upload/torn"]
    assert sorted(reckoning.orphans) == ["/upload/ghost", "/upload/refused", "/upload/silent"]
    assert reckoning.duplicates == {"notes": 1}
