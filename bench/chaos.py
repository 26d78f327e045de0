"""Fault injection: `python -m bench.chaos [--uploads 2000] [--every 25] [--seed N] [--lease 5]`.

Two gateways, two workers and three NATS servers are killed with SIGKILL one after the other during
uploads, and once all of NATS; then the outcome of every upload is counted. Then: how soon work goes on
whose process was killed. Exit code 1 if the promise was broken. Takes some minutes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import uvloop

from tests.support.deployment import deployment
from tests.support.fault_injection import upload_under_faults
from tests.support.nats.servers import single
from tests.support.recovery_times import seconds_after_a_worker_died, seconds_after_restart

ROUNDS = 3


def accidents(folder: Path, args: argparse.Namespace) -> Iterator[tuple[str, object]]:
    """Yield the rows of the storm. Raises SystemExit if the promise was broken."""
    folder.mkdir()
    with deployment(folder) as running:
        report = uvloop.run(upload_under_faults(running, args.uploads, args.every, args.seed))
    yield from report.rows()
    if broken := report.verdict.broken():
        raise SystemExit(f"the promise was broken: {broken}")


def interruptions(folder: Path, lease: float) -> Iterator[tuple[str, object]]:
    """Yield how soon interrupted work resumes, the median and the longest of some rounds."""
    restarts = [uvloop.run(seconds_after_restart(folder / f"restart-{n}")) for n in range(ROUNDS)]
    yield "embedded: start command after the kill to the run, s (median, longest)", shown(restarts)
    died = []
    for n in range(ROUNDS):
        with single(folder / f"died-{n}/nats") as server:
            died.append(uvloop.run(seconds_after_a_worker_died(folder / f"died-{n}", server, lease)))
    yield f"NATS, lease {lease:g} s: death of a worker to the run elsewhere, s", shown(died)


def shown(seconds: list[float]) -> str:
    return f"{median(seconds):.2f}, {max(seconds):.2f}"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uploads", type=int, default=2000)
    parser.add_argument("--every", type=int, default=25, help="uploads from one accident to the next")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lease", type=float, default=5.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in (accidents(folder / "storm", args), interruptions(folder, args.lease)):
            for what, figure in part:
                print(f"{what:70} {figure}", flush=True)


if __name__ == "__main__":
    main()
