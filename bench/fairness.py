"""Measures what a client waits alone, and beside one that plays every trick at once.

    python -m bench.fairness [--seconds S] [--connections N] [--only TRICK] [--without TRICK]

The greedy client is a process of its own and calls from another address. Prints the median and the 99th
percentile of each request in milliseconds, the ratios, and how many requests failed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import multiprocessing
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.greedy import GreedyClient, tricks
from bench.samples import BenchError

PLUGINS: Final = """
- name: checked
  upstreams: []
  proxy: {path: /checked, authorization: {auth: none}}
  spec: [{method: POST, schema: {request: {body: {type: object}}}}]
  request_script: |
    return {"ok": True}
- name: silent
  upstreams: ['127.0.0.1:PORT']
  proxy: {path: '/silent/{rest:path}', authorization: {auth: none}}
  target: {path: '/{rest}'}
"""

WARM_UP_SECONDS: Final = 3.0
"""For which the greedy client takes what it can get before anything is measured."""

SMALL: Final = b"x" * 4096

Times = dict[str, list[float]]
"""Seconds of each request, by what was requested; a failed one is infinite."""


@contextlib.contextmanager
def silent_upstream() -> Iterator[int]:
    """Accept connections and never answer; yield the port."""
    kept = []
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    kept.append(server.accept())

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def running_gateway(folder: Path) -> Iterator[tuple[str, int]]:
    """Run a gateway that serves files and routes; yield its address. Raises `BenchError`."""
    with silent_upstream() as port:
        stored = folder / "data/upload"
        stored.mkdir(parents=True)
        with (stored / "big").open("wb") as big:
            big.truncate(256 << 20)
        (folder / "plugins").mkdir()
        (folder / "plugins/routes.yaml").write_text(PLUGINS.replace("PORT", str(port)))
        words = [sys.executable, "-m", "gateway", "--directory", str(folder / "data"), "--port", "0"]
        words += ["--auth", "none", "--downloads", "--plugins", str(folder / "plugins")]
        words += ["--log-level", "error"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            try:
                if process.stdout is None:
                    raise BenchError("the gateway has no output")
                line = process.stdout.readline().strip()
                if "http://" not in line:
                    raise BenchError("the gateway did not start")
                host, number = line.rpartition("/")[2].rsplit(":", 1)
                yield host, int(number)
            finally:
                process.terminate()


def measure(address: tuple[str, int], seconds: float) -> Times:
    """Request one thing after the other on one connection for so long."""
    times: Times = {"upload of 4 KiB": [], "route with a schema": [], "download of 4 KiB": []}
    json_body = {"Content-Type": "application/json"}
    requests: Sequence[tuple[str, str, str, bytes, dict[str, str]]] = [
        ("upload of 4 KiB", "PUT", "/upload/good/NUMBER", SMALL, {}),
        ("route with a schema", "POST", "/checked", b'{"a": 1}', json_body),
        ("download of 4 KiB", "GET", "/upload/good/NUMBER", b"", {}),
    ]
    connection = http.client.HTTPConnection(*address, timeout=30)
    number, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        number += 1
        for name, method, target, body, headers in requests:
            started = time.monotonic()
            try:
                connection.request(method, target.replace("NUMBER", str(number)), body, headers)
                response = connection.getresponse()
                response.read()
                failed = response.status >= 400
            except (OSError, http.client.HTTPException):
                connection.close()
                failed = True
            times[name].append(float("inf") if failed else time.monotonic() - started)
    connection.close()
    return times


def play_tricks(
    address: tuple[str, int], connections: int, declared: int, only: str, without: str | None
) -> None:
    """Be the greedy client, until killed."""

    async def play() -> None:
        greedy = GreedyClient(address)
        for name, trick in tricks(declared).items():
            if only in name and (without is None or without not in name):
                greedy.play(name, trick, connections)
        await asyncio.Event().wait()

    asyncio.run(play())


@contextlib.contextmanager
def beside(play: Callable[..., None], *arguments: object) -> Iterator[None]:
    """Run the greedy client in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=play, args=arguments, daemon=True)
    process.start()
    time.sleep(WARM_UP_SECONDS)
    try:
        yield
    finally:
        process.kill()
        process.join()


def quantiles(times: Sequence[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile, in milliseconds."""
    ordered = sorted(times)
    return statistics.median(ordered) * 1e3, ordered[int(len(ordered) * 0.99)] * 1e3


def compare(alone: Times, accompanied: Times) -> Iterator[str]:
    """Yield a line for each request."""
    yield f"{'':20} {'alone p50':>10} {'p99':>8}   {'beside p50':>10} {'p99':>8}   ratios  failed"
    for name, before in alone.items():
        after = accompanied[name]
        (a50, a99), (b50, b99) = quantiles(before), quantiles(after)
        failed = sum(seconds == float("inf") for seconds in after)
        yield (
            f"{name:20} {a50:10.2f} {a99:8.2f}   {b50:10.2f} {b99:8.2f}"
            f"   {b50 / a50:.1f} {b99 / a99:.1f}  {failed} of {len(after)}"
        )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser("python -m bench.fairness", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each half is measured")
    parser.add_argument("--connections", type=int, default=50, help="of the greedy client, each trick")
    parser.add_argument("--only", metavar="TRICK", default="", help="only those with this in their name")
    parser.add_argument("--without", metavar="TRICK", help="not those with this in their name")
    parser.add_argument("--folder", default="/var/tmp", help="where the gateway stores files")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gateway-bench-", dir=chosen.folder))
    try:
        with running_gateway(folder) as address:
            alone = measure(address, chosen.seconds)
            declared = shutil.disk_usage(folder).free - (80 << 20)
            with beside(play_tricks, address, chosen.connections, declared, chosen.only, chosen.without):
                accompanied = measure(address, chosen.seconds)
        print("\n".join(compare(alone, accompanied)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
