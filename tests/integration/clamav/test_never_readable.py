"""An infected file is never readable by anybody: under load, while clamd is killed and started."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import StartProcess
from tests.integration.clamav.conftest import ClamavSet
from tests.support.clamd import EICAR, Clamd
from tests.support.harness import GatewayProcess, get, put, raw_connection, request_head, wait_until

pytestmark = pytest.mark.slow

UPLOADERS = 8
UPLOADS = 30
"""Uploads of each uploader, every other one infected."""

CLAMD_ENDS = 6
"""How often clamd is killed, and started again a moment later."""


class Reader:
    """Looks for infected files in every way that there is: GET, list, zip, and the folder itself."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._gateway = gateway
        self._names = itertools.cycle(
            f"{uploader}-{number}-infected"
            for number in range(1, UPLOADS, 2)
            for uploader in range(UPLOADERS)
        )
        self.looks: Counter[str] = Counter()
        self.seen: list[str] = []

    async def run(self) -> None:
        """Look until cancelled."""
        async with asyncio.TaskGroup() as group:
            for look in (self._get, self._list, self._zip, self._walk):
                group.create_task(self._repeat(look.__name__, look))

    async def _repeat(self, name: str, look: object) -> None:
        while True:
            await look()  # type: ignore[operator]
            self.looks[name] += 1

    async def _get(self) -> None:
        name = next(self._names)
        response = await get(self._gateway, f"/upload/{name}")
        if response.status != 404:
            self.seen.append(f"GET {name}: {response.status}")

    async def _list(self) -> None:
        response = await get(self._gateway, "/upload/?limit=1000")
        assert response.status == 200
        if b"infected" in response.body:
            self.seen.append("in the list")

    async def _zip(self) -> None:
        async with raw_connection(self._gateway) as connection:
            await connection.send(request_head("GET", "/upload/?format=zip", "Connection: close"))
            content = await connection.closed()
        assert b"-clean" in content or b"first" in content
        if b"infected" in content:
            self.seen.append("in the archive")

    async def _walk(self) -> None:
        self.seen += await asyncio.to_thread(infected_below, self._gateway.directory / "upload")


def infected_below(folder: Path) -> list[str]:
    """Return what is infected, or named so, in a folder."""
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                if "infected" in name or EICAR in Path(place, name).read_bytes():
                    found.append(f"on the disk: {name}")
    return found


async def upload_all(gateway: GatewayProcess, uploader: int, ends: Counter[str]) -> None:
    """Upload clean and infected files, small and large, in turns; count how each ended."""
    for number in range(UPLOADS):
        kind = "infected" if number % 2 else "clean"
        body = (EICAR if kind == "infected" else b"") + os.urandom(number % 3 * 300_000 + 10)
        response = await put(gateway, f"/upload/{uploader}-{number}-{kind}", body)
        ends[f"{kind} {response.status}"] += 1


async def disturb(clamd: Clamd) -> None:
    """Kill clamd and start it again."""
    for _ in range(CLAMD_ENDS):
        await asyncio.sleep(0.3)
        await asyncio.to_thread(clamd.kill)
        await asyncio.sleep(0.2)
        await asyncio.to_thread(clamd.start)


@pytest.mark.parametrize("unavailable", ["refuse", "hold"])
async def test_nobody_ever_reads_an_infected_file(
    gateway_process: StartProcess, clamav_set: ClamavSet, clamd: Clamd, unavailable: str
) -> None:
    plugins = clamav_set(scanner_unavailable=unavailable)
    gateway = gateway_process("--downloads", "--listing", "--plugins", str(plugins))
    assert (await put(gateway, "/upload/first", b"clean")).status == 201
    reader, ends = Reader(gateway), Counter[str]()
    reading = asyncio.create_task(reader.run())
    uploads = (upload_all(gateway, uploader, ends) for uploader in range(UPLOADERS))
    await asyncio.gather(disturb(clamd), *uploads)
    accepted = ends["clean 201"] + ends["clean 202"]
    await wait_until(lambda: len(os.listdir(gateway.directory / "upload")) == accepted + 1)
    await wait_until(lambda: not infected_below(gateway.directory / ".gateway/held"))
    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reading
    assert reader.seen == []
    assert all(reader.looks[name] for name in ("_get", "_list", "_zip", "_walk")), reader.looks
    total = UPLOADERS * UPLOADS // 2
    later = "503" if unavailable == "refuse" else "202"
    assert ends["clean 201"] + ends[f"clean {later}"] == total
    assert ends["infected 422"] + ends[f"infected {later}"] == total
    assert min(ends["clean 201"], ends["infected 422"]) > 0, ends
    assert ends[f"clean {later}"] + ends[f"infected {later}"] > 0, ends
