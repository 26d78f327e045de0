"""An infected file is never readable by anybody: under load, while clamd is killed and started."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import StartProcess
from tests.integration.clamav.conftest import ClamavSet
from tests.support.clamd import EICAR, SIGNATURE, Clamd
from tests.support.harness import (
    GatewayProcess,
    files_below,
    get,
    put,
    raw_connection,
    request_head,
    wait_until,
)

pytestmark = pytest.mark.slow

UPLOADERS = 8
CLAMD_ENDS = 6
"""How often clamd is killed, and started again when uploads have noticed."""


class Reader:
    """Looks for infected files in every way that there is: GET, list, zip, and the folder itself."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._gateway = gateway
        self.names = ["0-0-infected"]
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
        name = random.choice(self.names)
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


class Load:
    """Uploads clean and infected files, small and large, in turns; counts in `ends` how each ended."""

    def __init__(self, gateway: GatewayProcess, names: list[str]) -> None:
        self._gateway = gateway
        self._names = names
        self.ends: Counter[str] = Counter()
        self.held: dict[str, str] = {}
        self.stopped = False

    async def run(self, uploader: int) -> None:
        """Upload one file after the other until stopped."""
        for number in itertools.count():
            if self.stopped:
                break
            kind = "infected" if number % 2 else "clean"
            name = f"{uploader}-{number}-{kind}"
            if kind == "infected":
                self._names.append(name)
            body = (EICAR if kind == "infected" else b"") + os.urandom(number % 3 * 300_000 + 10)
            response = await put(self._gateway, f"/upload/{name}", body)
            self.ends[f"{kind} {response.status}"] += 1
            if response.status == 202:
                self.held[response.json["upload_id"]] = kind

    async def wait_more(self, *ends: str) -> None:
        """Wait until more uploads have ended in each of these ways."""
        before = {end: self.ends[end] for end in ends}
        await wait_until(lambda: all(self.ends[end] > before[end] for end in ends))

    async def disturb(self, clamd: Clamd, later: str) -> None:
        """Kill clamd and start it again, whenever uploads have noticed."""
        for _ in range(CLAMD_ENDS):
            await self.wait_more("clean 201", "infected 422")
            await asyncio.to_thread(clamd.kill)
            await self.wait_more(f"clean {later}", f"infected {later}")
            await asyncio.to_thread(clamd.start)
        await self.wait_more("clean 201", "infected 422")
        self.stopped = True


ANSWERS = {"refuse": "503", "hold": "202"}
"""What an upload is answered while clamd is away."""


@pytest.mark.parametrize("unavailable", ANSWERS)
async def test_nobody_ever_reads_an_infected_file(
    gateway_process: StartProcess, clamav_set: ClamavSet, clamd: Clamd, unavailable: str
) -> None:
    plugins, later = clamav_set(scanner_unavailable=unavailable), ANSWERS[unavailable]
    gateway = gateway_process("--downloads", "--listing", "--plugins", str(plugins))
    assert (await put(gateway, "/upload/first", b"clean")).status == 201
    reader = Reader(gateway)
    load = Load(gateway, reader.names)
    reading = asyncio.create_task(reader.run())
    await asyncio.gather(load.disturb(clamd, later), *map(load.run, range(UPLOADERS)))
    assert {*load.ends} == {"clean 201", "infected 422", f"clean {later}", f"infected {later}"}
    accepted = load.ends["clean 201"] + load.ends["clean 202"]
    await wait_until(lambda: len(os.listdir(gateway.directory / "upload")) == accepted + 1)
    await wait_until(lambda: not files_below(gateway.directory / ".gateway/held"))
    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reading
    assert reader.seen == []
    assert {*reader.looks} == {"_get", "_list", "_zip", "_walk"}
    for upload_id, kind in load.held.items():
        story = (await get(gateway, f"/-/uploads/{upload_id}")).json
        assert story["state"] == ("stored" if kind == "clean" else "rejected")
        outcome = (
            {"outcome": "clean"} if kind == "clean" else {"outcome": "infected", "signature": SIGNATURE}
        )
        assert story["result"] == {"scan": outcome}
