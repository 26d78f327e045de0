"""Probes: what fails them gets no requests, and gets them again after one that succeeds."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import defaultdict
from pathlib import Path

import pytest

from gateway.server.app import Gateway
from tests.conftest import StartProcess
from tests.support.harness import GatewayProcess, get, wait_until
from tests.support.routing.proxying import read_request, respond, upstream
from tests.support.routing.scripted import Serve, ask, route, write

pytestmark = pytest.mark.both_paths

PROBE = b"GET /health?deep=1 HTTP/1.1"
HEALTH = "health: {path: '/health?deep=1', every: 50ms, timeout: 20s}\n"


class Patient:
    """An upstream that says how it is: it answers probes with `status`, or not at all."""

    def __init__(self) -> None:
        self.status: str | None = "200 OK"
        self.good_probes = 0
        self.probes: list[bytes] = []
        self.asked = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _ = await read_request(reader)
            if not head.startswith(PROBE):
                self.asked += 1
                writer.write(respond())
                continue
            self.probes.append(head)
            if self.good_probes:
                self.good_probes -= 1
                writer.write(respond())
                continue
            if self.status is None:
                await reader.read()
                return
            writer.write(respond(b"", self.status))

    async def wait_probes(self, count: int) -> None:
        """Wait for so many more probes."""
        wanted = len(self.probes) + count
        await wait_until(lambda: len(self.probes) >= wanted)


def leads(*authorities: str, path: str = "/r", more: str = HEALTH) -> str:
    return route(path, more=more).replace("[]", str(list(authorities)), 1)


async def gauge(gateway: Gateway | GatewayProcess) -> dict[str, float]:
    """Return the values of the metric by upstream; of several processes the sum."""
    text = (await get(gateway, "/-/metrics")).body.decode()
    values: dict[str, float] = defaultdict(float)
    for line in re.findall(r"^gateway_upstream_up\{.*$", text, re.MULTILINE):
        labels, value = line.rsplit(" ", 1)
        values[re.findall(r'upstream="([^"]*)"', labels)[0]] += float(value)
    return dict(values)


async def until_up(gateway: Gateway, **wanted: float) -> None:
    async def is_so() -> bool:
        values = await gauge(gateway)
        return all(values[name] == value for name, value in wanted.items())

    await wait_until(is_so)


def changes(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return the changes that were logged: the word of the event, and the upstream."""
    records = [record.__dict__ for record in caplog.records if record.name == "gateway.routing"]
    return [(record["event"], record["fields"]["upstream"]) for record in records]


async def test_an_upstream_whose_probes_fail_gets_no_requests_until_one_succeeds(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.routing")
    sick, well = Patient(), Patient()
    async with upstream(sick) as bad, upstream(well) as good:
        gateway = await serve(leads(bad.authority, good.authority))
        assert await gauge(gateway) == {bad.authority: 1, good.authority: 1}
        sick.status = "500 Sick"
        await until_up(gateway, **{bad.authority: 0, good.authority: 1})
        before = sick.asked
        for _ in range(5):
            assert (await ask(gateway, "POST", "/r", body=b"x")).status == 200
        assert sick.asked == before
        await sick.wait_probes(3)
        sick.status = "200 OK"
        await sick.wait_probes(1)
        await until_up(gateway, **{bad.authority: 1})
        for _ in range(4):
            assert (await ask(gateway, "POST", "/r", body=b"x")).status == 200
        assert sick.asked == before + 2
        words = ("upstream.failed", "upstream.recovered")
        assert changes(caplog) == [(word, bad.authority) for word in words]


async def test_a_probe_asks_for_the_path_over_a_connection_of_its_own_and_reads_no_body(
    serve: Serve,
) -> None:
    heads = list[bytes]()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, _ = await read_request(reader)
        heads.append(head)
        writer.write(
            b"HTTP/1.1 204 No Content\r\n\r\n" if len(heads) < 3 else b"HTTP/1.1 200 OK\r\n\r\n"
        )
        while len(heads) >= 3 and not writer.is_closing():
            writer.write(bytes(1 << 16))
            await writer.drain()
        await reader.read()

    more = "health: {path: '/health?deep=1', every: 50ms, timeout: 20s, expect: [200, 204]}\n"
    async with upstream(endless) as up:
        gateway = await serve(leads(up.authority, more=more))
        await wait_until(lambda: len(heads) >= 6)
        assert await gauge(gateway) == {up.authority: 1}
    assert len(heads) == len(up.received)
    for head in heads:
        assert head.split(b"\r\n")[:2] == [PROBE, f"Host: {up.authority}".encode()]
        assert b"\r\nConnection: close\r\n" in head


@pytest.mark.parametrize("count", [1, 2])
async def test_where_no_upstream_works_requests_are_refused_at_once(serve: Serve, count: int) -> None:
    sick = Patient()
    sick.status = None
    async with upstream(sick) as one, upstream(sick) as two, upstream(Patient()) as well:
        authorities = [one.authority, two.authority][:count]
        more = HEALTH.replace("20s", "100ms")
        gateway = await serve(leads(*authorities, more=more), leads(well.authority, path="/well"))
        await until_up(gateway, **dict.fromkeys(authorities, 0.0))
        for method, body in (("GET", None), ("POST", b"x")):
            refused = await ask(gateway, method, "/r", body=body)
            assert (refused.status, refused.json["error"]) == (503, "upstreams_unavailable")
            assert int(refused.headers["Retry-After"]) >= 1
        assert (await ask(gateway, "GET", "/well")).status == 200
        assert sick.asked == 0
        sick.status = "200 OK"
        await until_up(gateway, **dict.fromkeys(authorities, 1.0))
        assert (await ask(gateway, "GET", "/r")).status == 200


async def test_one_that_cannot_be_reached_is_back_after_a_probe(serve: Serve) -> None:
    async with upstream(Patient()) as up:
        pass
    port = int(up.authority.rpartition(":")[2])
    gateway = await serve(leads(up.authority))
    await until_up(gateway, **{up.authority: 0})
    refused = await ask(gateway, "GET", "/r")
    assert (refused.status, refused.json["error"]) == (503, "upstreams_unavailable")
    server = await asyncio.start_server(Patient(), "127.0.0.1", port)
    async with server:
        await until_up(gateway, **{up.authority: 1})
        assert (await ask(gateway, "GET", "/r")).status == 200
        server.close()


async def test_one_probe_is_enough_to_bring_an_upstream_back(serve: Serve) -> None:
    sick = Patient()
    sick.status = "500 Sick"
    async with upstream(sick) as up:
        gateway = await serve(leads(up.authority))
        await until_up(gateway, **{up.authority: 0})
        sick.good_probes, sick.status = 1, None  # the others hang
        await until_up(gateway, **{up.authority: 1})
        assert (await ask(gateway, "GET", "/r")).status == 200


async def test_a_reload_begins_and_ends_probes_and_leaves_those_that_stay(
    serve: Serve, tmp_path: Path
) -> None:
    kept, gone, new = Patient(), Patient(), Patient()
    kept.status = "500 Sick"
    async with upstream(kept) as one, upstream(gone) as two, upstream(new) as three:
        gateway = await serve(leads(one.authority), leads(two.authority, path="/b"))
        await until_up(gateway, **{one.authority: 0, two.authority: 1})
        moved = leads(one.authority, path="/moved")
        folder = write(tmp_path / "plugins", moved, leads(three.authority, path="/c"))
        write(folder, moved, leads(three.authority, path="/c"))
        assert not (await gateway.reload()).faults
        assert (await gauge(gateway))[one.authority] == 0  # at once: it is known
        await new.wait_probes(2)
        count = len(gone.probes)
        await kept.wait_probes(3)
        assert len(gone.probes) <= count + 1
        assert set(await gauge(gateway)) == {one.authority, three.authority}
        write(folder, leads(one.authority, more=""))
        assert not (await gateway.reload()).faults
        assert (await ask(gateway, "GET", "/r")).status == 200


async def test_probes_that_hang_delay_neither_a_reload_nor_the_stop(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    silent = Patient()
    silent.status = None
    async with upstream(silent) as up:
        more = "health: {path: '/health?deep=1', every: 50ms, timeout: 60s}\n"
        folder = write(tmp_path / "plugins", leads(up.authority, more=more))
        gateway = gateway_process("--plugins", str(folder), "--grace", "5")
        await wait_until(lambda: silent.probes)
        assert (await ask(gateway, "GET", "/r")).status == 200
        assert await asyncio.to_thread(gateway.terminate) == 0
        await up.ended.wait()


@pytest.mark.slow
async def test_each_process_probes_for_itself(gateway_process: StartProcess, tmp_path: Path) -> None:
    sick = Patient()
    sick.status = "503 Sick"
    async with upstream(sick) as up:
        folder = write(tmp_path / "plugins", leads(up.authority))
        gateway = gateway_process("--plugins", str(folder), "--processes", "2")

        async def is_out_everywhere() -> bool:
            text = (await get(gateway, "/-/metrics")).body.decode()
            lines = re.findall(r"^gateway_upstream_up\{.*$", text, re.MULTILINE)
            return len(lines) == 2 and all(line.endswith(" 0.0") for line in lines)

        await wait_until(is_out_everywhere)
        shown = (await get(gateway, "/-/status")).json["upstreams_down"]
        out = {"upstream": up.authority, "processes": 2, "routes": ["/r"], "route_count": 1}
        assert shown == [out]
        sick.status = "200 OK"

        async def is_up_everywhere() -> bool:
            return await gauge(gateway) == {up.authority: 2}

        await wait_until(is_up_everywhere)
        assert (await get(gateway, "/-/status")).json["upstreams_down"] == []


async def test_an_upstream_that_requests_have_suspended_is_shown_as_down_and_is_back_after_a_probe(
    serve: Serve,
) -> None:
    well = asyncio.Event()

    async def flaky(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _ = await read_request(reader)
            if head.startswith(PROBE):
                await well.wait()
            writer.write(respond(b"", "200 OK" if well.is_set() else "503 Sick"))

    more = "health: {path: '/health?deep=1', every: 50ms, timeout: 60s}\n"
    more += "passive: {failures: 1, statuses: [503], aside: 1h}\n"
    async with upstream(flaky) as bad, upstream(Patient()) as good:
        gateway = await serve(leads(bad.authority, good.authority, more=more))
        for _ in range(4):
            assert (await ask(gateway, "GET", "/r")).status == 200
        assert await gauge(gateway) == {bad.authority: 0, good.authority: 1}
        well.set()
        await until_up(gateway, **{bad.authority: 1})
