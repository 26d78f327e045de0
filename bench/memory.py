"""Resident memory under a mix of requests that end well and badly: `python -m bench.memory`.

Starts a gateway, sends uploads, downloads, routes, aborted bodies and unread answers for some minutes,
and prints its memory at the start, while it works, and ten seconds after the last request.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from bench import aborted
from bench.aborted import MIB, AbortedRequest

SECONDS_TO_RETURN: Final = 10.0
MAX_GROWTH: Final = 64 * MIB
"""Resident bytes above those of the start, ten seconds after the last request."""

Address = tuple[str, int]


@dataclass
class Memory:
    """Watches the resident memory of a process."""

    pid: int
    start: int = 0
    peak: int = 0
    end: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    def now(self) -> int:
        """Return the resident bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) << 10
        return 0

    async def watch(self) -> None:
        """Note the peak until cancelled; print a line each half minute."""
        for number in itertools.count(1):
            await asyncio.sleep(0.1)
            self.peak = max(self.peak, self.now())
            if number % 300 == 0:
                print(self.line(f"{number // 10} s"), flush=True)

    def line(self, when: str) -> str:
        """Return one line of the report."""
        sent = sum(self.counts.values())
        return f"{when:>8}: {self.now() >> 20} MiB, peak {self.peak >> 20} MiB, {sent} requests"


@contextlib.asynccontextmanager
async def _gateway(folder: Path, upstream: str) -> AsyncIterator[tuple[Address, Memory]]:
    plugins = aborted.write_plugins(folder / "plugins", upstream)
    command = [sys.executable, "-m", "gateway", "serve", "--directory", str(folder / "data")]
    command += ["--port", "0", "--plugins", str(plugins), *aborted.FLAGS]
    (folder / "data").mkdir()
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=subprocess.PIPE, stderr=log, limit=1 << 16
        )
    try:
        output = cast(asyncio.StreamReader, process.stdout)
        async for line in output:
            if line.startswith(b"listening on "):
                host, port = line.decode().strip().rpartition("/")[2].rsplit(":", 1)
                yield (host, int(port)), Memory(process.pid)
                return
        raise RuntimeError((folder / "log").read_text())
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _served(address: Address, numbers: itertools.count[int]) -> None:
    """Upload a file, read it again, and call the routes, all to their ends."""
    target = f"/upload/memory/{next(numbers) % 1000}"
    await aborted.store_file(address, target, 64 << 10)
    for path in (target, "/large", "/proxied/x"):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        with contextlib.suppress(OSError):
            while await reader.read(1 << 18):
                pass
        writer.close()


async def _client(
    address: Address, memory: Memory, until: float, requests: Sequence[AbortedRequest]
) -> None:
    numbers, kinds = itertools.count(), itertools.cycle([None, *requests])
    for kind in kinds:
        if time.monotonic() >= until:
            return
        with contextlib.suppress(OSError):
            if kind is None:
                await _served(address, numbers)
            else:
                await aborted.send_and_disconnect(address, kind)
        name = "served to the end" if kind is None else kind.name
        memory.counts[name] = memory.counts.get(name, 0) + 1


async def measure(minutes: float, clients: int) -> Memory:
    """Run the mix; return what the memory was. Its last value is that after `SECONDS_TO_RETURN`."""
    requests = [*aborted.aborted_bodies(), *aborted.aborted_answers()]
    with tempfile.TemporaryDirectory(prefix="gateway-memory-") as name:
        async with (
            aborted.upstream_server() as upstream,
            _gateway(Path(name), upstream) as (address, memory),
        ):
            await aborted.store_file(address)
            memory.start = memory.peak = memory.now()
            print(memory.line("start"), flush=True)
            watching = asyncio.create_task(memory.watch())
            until = time.monotonic() + minutes * 60
            order = [requests[number % len(requests) :] + requests for number in range(clients)]
            await asyncio.gather(*(_client(address, memory, until, turn) for turn in order))
            print(memory.line("last"), flush=True)
            await asyncio.sleep(SECONDS_TO_RETURN)
            watching.cancel()
            print(memory.line("end"), flush=True)
            memory.end = memory.now()
    return memory


def main(words: Sequence[str]) -> int:
    """Run the command; return 1 if memory has not come back."""
    parser = argparse.ArgumentParser("python -m bench.memory", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--clients", type=int, default=16, help="clients at once (default: 16)")
    wish = parser.parse_args(words)
    memory = asyncio.run(measure(wish.minutes, wish.clients))
    for name, count in sorted(memory.counts.items()):
        print(f"{count:8} {name}")
    grown = memory.end - memory.start
    print(f"{grown / MIB:+.1f} MiB since the start; at most {MAX_GROWTH // MIB} are allowed")
    return 0 if grown < MAX_GROWTH else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
