"""WebSocket connections of gateways that are processes: stops, kills, many clients, nginx in front."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin

from tests.conftest import StartProcess
from tests.support import PROJECT
from tests.support.harness import (
    TIMEOUT,
    GatewayProcess,
    get,
    raw_connection,
    request_head,
    wait_port_closed,
    wait_until,
    write_plugin,
)
from tests.support.routing.nginx import nginx
from tests.support.routing.proxying import read_head, upstream
from tests.support.routing.websocket import (
    HANDSHAKE,
    ServerConnection,
    connecting,
    echo,
    socket_route,
    socket_server,
    switch_for,
)

pytestmark = pytest.mark.slow

MANY = 1000
HELLO = b"\x81\x85\0\0\0\0hello"


@contextlib.contextmanager
def echo_process() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start a server that echoes in a process; yield its host and port, and the process."""
    command = [sys.executable, "-m", "tests.support.routing.echo_program"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=PROJECT)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().decode().strip(), process
    finally:
        process.kill()
        process.wait(TIMEOUT)
        process.stdout.close()


def start(start_process: StartProcess, folder: Path, *upstreams: str, **how: Any) -> GatewayProcess:
    flags = how.pop("flags", ())
    plugins = write_plugin(folder / "plugins", socket_route(*upstreams, **how))
    return start_process("--plugins", str(plugins), "--auth", "none", *flags)


def events(gateway: GatewayProcess, name: str) -> list[dict[str, Any]]:
    lines = [line for line in gateway.log().splitlines() if f'"{name}"' in line]
    return [json.loads(line) for line in lines]


async def test_a_stop_serves_open_connections_for_the_grace_time(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    async with socket_server() as server:
        gateway = start(gateway_process, tmp_path, server, flags=("--grace", "60s"))
        async with connecting(gateway) as client:
            gateway.signal(signal.SIGTERM)
            await wait_port_closed(gateway)
            await client.send("within the grace time")
            assert await client.recv() == "within the grace time"
    assert await asyncio.to_thread(gateway.wait) == 0
    [closed] = events(gateway, "websocket.closed")
    assert (closed["ended_by"], closed["how"]) == ("client", "close")


async def test_after_the_grace_time_both_ends_are_closed_with_1001(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    ended: asyncio.Queue[tuple[int, str]] = asyncio.Queue()

    async def talk(connection: ServerConnection) -> None:
        await echo(connection)
        ended.put_nowait((connection.close_code or 0, connection.close_reason or ""))

    async with socket_server(talk) as server:
        gateway = start(gateway_process, tmp_path, server, flags=("--grace", "0s"))
        async with connecting(gateway) as client:
            await client.send("hello")
            assert await client.recv() == "hello"
            gateway.signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(client.recv(), TIMEOUT)
            assert (client.close_code, client.close_reason) == (1001, "the server stops")
        assert await asyncio.wait_for(ended.get(), TIMEOUT) == (1001, "the server stops")
    assert await asyncio.to_thread(gateway.wait) == 0
    [aborted] = events(gateway, "requests.aborted")
    assert aborted["requests"] == 1
    [closed] = events(gateway, "websocket.closed")
    assert (closed["ended_by"], closed["how"], closed["upstream"]) == ("gateway", "stop", server)
    assert closed["bytes_in"] > len("hello") < closed["bytes_out"]


async def test_a_stop_waits_for_the_end_of_a_frame(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    """The rest of a frame passes after the grace time; no byte of ours stands in it."""
    half, rest = b"\x82\x7e\x10\x00" + bytes(2000), bytes(2096)

    async def send_halves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(switch_for(await read_head(reader)) + half)
        await reader.readexactly(8)  # a Close frame: the head and a mask, then the code ...
        writer.write(rest)
        await reader.read()

    async with upstream(send_halves) as up:
        gateway = start(gateway_process, tmp_path, up.authority, flags=("--grace", "0s"))
        async with raw_connection(gateway) as client:
            await client.send(request_head("GET", "/ws", *HANDSHAKE))
            assert (await client.head()).status == 101
            await client.reader.readexactly(len(half))
            gateway.signal(signal.SIGTERM)
            after = await client.closed()
            assert after == rest + b"\x88\x12\x03\xe9the server stops"


async def test_a_killed_upstream_is_told_to_every_client(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    with echo_process() as (server, process):
        gateway = start(gateway_process, tmp_path, server)
        async with connecting(gateway) as one, connecting(gateway) as two:
            await one.send("a")
            assert await one.recv() == "a"
            process.kill()
            for client in (one, two):
                with pytest.raises(ConnectionClosed):
                    await asyncio.wait_for(client.recv(), TIMEOUT)
                assert client.close_code == 1011
        await wait_until(lambda: len(events(gateway, "websocket.closed")) == 2)
        assert {line["ended_by"] for line in events(gateway, "websocket.closed")} == {"upstream"}


async def test_each_connection_has_a_line_at_its_begin_and_one_at_its_end(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    async with socket_server() as server:
        gateway = start(gateway_process, tmp_path, server, more="name: live\n")
        async with connecting(gateway) as client:
            await client.send("hello")
            await client.recv()
            [line] = await wait_until(lambda: _of_socket(events(gateway, "request.answered")))
            assert (line["status"], line["path"]) == (101, "/ws")
            assert events(gateway, "websocket.closed") == []
        [closed] = await wait_until(lambda: events(gateway, "websocket.closed"))
        assert closed["request_id"] == line["request_id"]
        fields = {name: closed[name] for name in ("route", "upstream", "ended_by", "how")}
        assert fields == {"route": "live", "upstream": server, "ended_by": "client", "how": "close"}
        assert closed["seconds"] > 0


def _of_socket(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["path"] == "/ws"]


async def test_a_thousand_connections_of_one_client_are_served_with_the_defaults(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    async def echo_bytes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(switch_for(await read_head(reader)))
        while data := await reader.read(1 << 16):
            writer.write(data)

    async def converse() -> None:
        async with raw_connection(gateway) as client:
            async with few:
                await client.send(request_head("GET", "/ws", *HANDSHAKE))
                assert (await client.head()).status == 101
            await everyone.wait()
            for _ in range(3):
                await client.send(HELLO)
                assert await client.reader.readexactly(len(HELLO)) == HELLO

    everyone, few = asyncio.Barrier(MANY), asyncio.Semaphore(50)
    async with upstream(echo_bytes) as up:
        gateway = start(gateway_process, tmp_path, up.authority)
        await asyncio.gather(*(converse() for _ in range(MANY)))


async def test_clients_that_never_read_take_no_memory(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    """64 MiB are there for each of 20 clients; the kernel's buffers hold some, the gateway 0.4 MiB."""
    written = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(switch_for(await read_head(reader)))
        frame = b"\x82\x7f" + (1 << 20).to_bytes(8, "big") + bytes(1 << 20)
        for _ in range(64):
            writer.write(frame)
            await writer.drain()
            written += len(frame)

    async with upstream(pour) as up, contextlib.AsyncExitStack() as stack:
        gateway = start(gateway_process, tmp_path, up.authority)
        process = psutil.Process(gateway.process.pid)
        async with raw_connection(gateway) as client:  # what the first one needs is no growth
            await client.send(request_head("GET", "/ws", *HANDSHAKE))
            await client.head()
        before = process.memory_info().rss
        for _ in range(20):
            client = await stack.enter_async_context(raw_connection(gateway))
            await client.send(request_head("GET", "/ws", *HANDSHAKE))
            assert (await client.head()).status == 101
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        seen, same = -1, 0
        async with asyncio.timeout(TIMEOUT):
            while same < 10:
                await asyncio.sleep(0.05)  # that nothing happens shows only in time
                same, seen = (same + 1 if written == seen else 0), written
        assert process.memory_info().rss - before < 48 << 20


async def test_nginx_in_front_passes_connections_on(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    async with socket_server() as server:
        gateway = start(gateway_process, tmp_path, server, flags=("--trusted-proxies", "127.0.0.1"))
        with nginx(tmp_path / "nginx", gateway.address[1]) as front:
            url = f"ws://{front.authority}/ws"
            origin = Origin(f"http://{front.authority}")
            async with connect(url, proxy=None, origin=origin) as client:
                await client.send("through both")
                assert await client.recv() == "through both"
        [line] = _of_socket(events(gateway, "request.answered"))
        assert line["status"] == 101


async def test_every_process_serves_connections_and_closes_them(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    async with socket_server() as server, contextlib.AsyncExitStack() as stack:
        flags = ("--processes", "2", "--grace", "0s")
        gateway = start(gateway_process, tmp_path, server, flags=flags, more="name: live\n")
        clients = [await stack.enter_async_context(connecting(gateway)) for _ in range(16)]
        for number, client in enumerate(clients):
            await client.send(f"{number}")
        assert [await client.recv() for client in clients] == [f"{number}" for number in range(16)]
        metrics = (await get(gateway, "/-/metrics")).body.decode().splitlines()
        counts = [line.split()[-1] for line in metrics if line.startswith("gateway_websockets{")]
        assert sum(map(float, counts)) == 16
        gateway.signal(signal.SIGTERM)
        for client in clients:
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(client.recv(), TIMEOUT)
            assert client.close_code == 1001
    assert await asyncio.to_thread(gateway.wait) == 0
