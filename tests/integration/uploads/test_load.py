"""Size and number: memory stays put under a large body, and slow clients do not slow a fast one."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import StartProcess
from tests.support.harness import GatewayProcess, curl, get, leftovers, request_head

pytestmark = [pytest.mark.slow, pytest.mark.serial, pytest.mark.timeout(300)]

MIB = 1 << 20
GIB = 1 << 30
SLOW_CLIENTS = {"streamed": (500, 1_000_000), "socket": (1000, 8_400_000)}
"""How many, and how much each of them is going to send."""

MOST_THREADS = 40
PAIRS = 3


class Peak:
    """Watches the resident memory and the threads of a process from a thread of its own."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.before = self.most = self._process.memory_info().rss
        self.threads = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, self._process.memory_info().rss)
            self.threads = max(self.threads, self._process.num_threads())

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def growth(self) -> int:
        return self.most - self.before


@pytest.fixture
def two_gib(tmp_path: Path) -> Path:
    source = tmp_path / "big"
    with source.open("wb") as file:
        file.truncate(2 * GIB)
    return source


@pytest.mark.parametrize("how", ["declared", "chunked"])
async def test_two_gib_are_stored_within_64_mib_of_memory(
    gateway_process: StartProcess, two_gib: Path, tmp_path: Path, how: str
) -> None:
    gateway = gateway_process()
    await get(gateway, "/-/ready")
    chunked = ["-H", "Transfer-Encoding: chunked"] if how == "chunked" else []
    with Peak(gateway.process.pid) as peak:
        result = await curl(*chunked, "-T", str(two_gib), f"{gateway.url}/upload/big")
    assert result.status == 201, result
    assert (tmp_path / "data/upload/big").stat().st_size == 2 * GIB
    print(f"{how}: resident memory grew by {peak.growth / MIB:.1f} MiB")
    assert peak.growth < 64 * MIB


class SlowClients:
    """Clients that send a few bytes a second, each in the middle of a body of its own."""

    def __init__(self, gateway: GatewayProcess, number: int, size: int) -> None:
        self._gateway = gateway
        self._number = number
        self._size = size
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> SlowClients:
        host, port = self._gateway.address
        for client in range(self._number):
            reader, writer = await asyncio.open_connection(host, port)
            lines = (f"Content-Length: {self._size}", "Expect: 100-continue")
            writer.write(request_head("PUT", f"/upload/slow-{client}", *lines))
            assert b"100 Continue" in await reader.readline()
            self._writers.append(writer)
        self._sending = asyncio.create_task(self._send())
        return self

    async def _send(self) -> None:
        while True:
            for writer in self._writers:
                writer.write(b"abc")
            await asyncio.sleep(1)  # what makes them slow

    async def __aexit__(self, *_: object) -> None:
        self._sending.cancel()
        for writer in self._writers:
            writer.close()
        for writer in self._writers:
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@pytest.mark.parametrize(("number", "size"), SLOW_CLIENTS.values(), ids=SLOW_CLIENTS.keys())
async def test_slow_clients_cost_no_threads_and_little_memory_and_a_fast_one_gets_through(
    gateway_process: StartProcess, tmp_path: Path, number: int, size: int
) -> None:
    gateway = gateway_process()
    source = tmp_path / "fast"
    with source.open("wb") as file:
        file.truncate(512 * MIB)

    async def upload(name: str) -> float:
        began = time.monotonic()
        result = await curl("-T", str(source), f"{gateway.url}/upload/{name}")
        assert result.status in {200, 201}
        return time.monotonic() - began

    await upload("warm")
    pairs = []
    with Peak(gateway.process.pid) as peak:
        for _ in range(PAIRS):
            alone = await upload("alone")
            async with SlowClients(gateway, number, size):
                metrics = (await get(gateway, "/-/metrics")).body.decode()
                assert f"gateway_uploads_active {number}.0" in metrics
                pairs.append((alone, await upload("beside")))
    for alone, beside in pairs:
        print(f"512 MiB alone {alone:.2f} s, beside {number} slow clients {beside:.2f} s")
    print(f"threads {peak.threads}, memory +{peak.growth / MIB:.0f} MiB")
    assert peak.threads <= MOST_THREADS
    assert peak.growth < 128 * MIB
    while "gateway_uploads_active 0.0" not in (await get(gateway, "/-/metrics")).body.decode():
        await asyncio.sleep(0.05)  # the clients have gone; their bodies go after them
    assert leftovers(gateway.directory) == []
    assert {p.name for p in (gateway.directory / "upload").iterdir()} == {"warm", "alone", "beside"}
