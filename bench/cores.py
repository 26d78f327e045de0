"""Bench of several processes: `python -m bench.cores [--seconds S] [--counts 1,2] [--durability none]`.

PUTs of 4 KiB with `wrk` (Debian's package) against one process and against several, in turns, on this
disk. The load generator runs on the same machine: `load` is its share of a processor, `servers` the
share of each server process. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

CONNECTIONS = 32
ROUNDS = 2

SCRIPT = """
local body, count, me = string.rep("x", 4096), 0, ""
init = function() math.randomseed(os.time()); me = tostring(math.random(1, 2^30)) end
request = function()
  count = count + 1
  return wrk.format("PUT", "/upload/" .. me .. "/" .. count, nil, body)
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("REQUESTS %d ERRORS %d P50 %d P99 %d\\n", summary.requests,
    e.status + e.connect + e.read + e.timeout, latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(slots=True, frozen=True)
class Row:
    """One run: requests a second, milliseconds, and the share of a processor that each took."""

    count: int
    rate: float
    p50: float
    p99: float
    errors: int
    load: float
    servers: Sequence[float]

    def __str__(self) -> str:
        servers = " + ".join(f"{share:.0%}" for share in self.servers)
        return (
            f"{self.count:>9} {self.rate:>8.0f} {self.p50:>7.1f} {self.p99:>7.1f} {self.errors:>7}"
            f" {self.load:>6.0%}  {servers}"
        )


@contextlib.contextmanager
def serving(folder: str, count: int, durability: str) -> Iterator[tuple[str, psutil.Process]]:
    """Run a gateway of `count` processes; yield its URL and its (first) process."""
    words = [sys.executable, "-m", "gateway", "serve", "--directory", folder, "--port", "0"]
    words += ["--processes", str(count), "--log-level", "warning", "--durability", durability]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip().removeprefix("listening on ")
        try:
            yield url, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(60)


def spent(process: psutil.Process) -> dict[int, float]:
    """Return the processor seconds of a process and of each of its children so far."""
    times = {server.pid: server.cpu_times() for server in (process, *process.children())}
    return {pid: server.user + server.system for pid, server in times.items()}


def children_spent() -> float:
    """Return the processor seconds of all children that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def measure(count: int, seconds: int, durability: str, script: Path) -> Row:
    """Load a gateway of `count` processes."""
    words = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script)]
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd()) as folder,
        serving(folder, count, durability) as (url, server),
    ):
        before, children, started = spent(server), children_spent(), time.monotonic()
        output = subprocess.run([*words, url], capture_output=True, text=True, check=True).stdout
        lasted = time.monotonic() - started
        load, after = children_spent() - children, spent(server)
    match = re.search(r"REQUESTS (\d+) ERRORS (\d+) P50 (\d+) P99 (\d+)", output)
    assert match, output
    requests, errors, p50, p99 = map(int, match.groups())
    used = [(after[pid] - before.get(pid, 0.0)) / lasted for pid in sorted(after)]
    busy = used if count == 1 else used[1:]  # the supervisor only waits
    return Row(count, requests / lasted, p50 / 1000, p99 / 1000, errors, load / lasted, busy)


def main() -> None:
    """Print one row per run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--counts", default="1,2")
    parser.add_argument("--durability", choices=("full", "none"), default="full")
    args = parser.parse_args()
    print(f"{os.cpu_count()} processors, {CONNECTIONS} connections, 4 KiB, durability {args.durability}")
    print("processes      1/s  p50 ms  p99 ms  errors   load  servers")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "put.lua")
        script.write_text(SCRIPT)
        for _ in range(ROUNDS):
            for count in map(int, args.counts.split(",")):
                print(measure(count, args.seconds, args.durability, script), flush=True)


if __name__ == "__main__":
    main()
