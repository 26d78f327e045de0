"""Random faults: whatever is killed, every upload that was answered 2xx has its runs.

An event that kills its worker on each run ends dead: `nats/test_worker.py`. The leader and all three
servers killed under one gateway: `nats/test_cluster.py`. `python -m bench.chaos` is the long form.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.deployment import deployment
from tests.support.fault_injection import (
    upload_under_faults,
)
from tests.support.nats.servers import single
from tests.support.recovery_times import seconds_after_a_worker_died, seconds_after_restart

LEASE = 2.0
BUSY = 8.0
"""What a busy machine may add. The figures themselves are measured by `python -m bench.chaos`."""


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_every_2xx_has_its_runs_whatever_dies(tmp_path: Path) -> None:
    with deployment(tmp_path) as running:
        report = await upload_under_faults(running, count=400, every=25, seed=20261122)
    for name, figure in report.rows():
        print(f"{name}: {figure}")
    assert report.verdict.broken() == {}
    assert report.injector.killed.keys() == {
        "gateway", "worker", "NATS server", "NATS leader", "all of NATS"
    }  # fmt: skip
    assert report.uploads.refused().keys() <= {503}
    assert len(report.uploads.acknowledged()) > 300
    assert report.injector.uploads_without_nats == 80


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
