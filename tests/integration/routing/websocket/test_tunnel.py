"""What passes through an open WebSocket connection, and how it ends."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from random import Random

import aiohttp
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close, Frame, Opcode

from gateway.server.app import Gateway
from tests.support.harness import TIMEOUT, RawConnection, raw_connection, request_head, wait_until
from tests.support.routing.proxying import Serve as ServeConnection
from tests.support.routing.proxying import Upstream, read_head, upstream
from tests.support.routing.scripted import Serve
from tests.support.routing.websocket import (
    HANDSHAKE,
    ServerConnection,
    connecting,
    echo,
    socket_route,
    socket_server,
    socket_url,
    switch_for,
)

HELLO = b"\x81\x05hello"
MASKED_CLOSE = Frame(Opcode.CLOSE, Close(1000, "").serialize()).serialize(mask=True)


def switching(serve: ServeConnection) -> AbstractAsyncContextManager[Upstream]:
    """An upstream that switches, and then does what `serve` says with the raw connection."""

    async def switch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(switch_for(await read_head(reader)))
        await serve(reader, writer)

    return upstream(switch)


async def switched(client: RawConnection) -> None:
    await client.send(request_head("GET", "/ws", *HANDSHAKE))
    assert (await client.head()).status == 101


async def received_close(client: RawConnection) -> Close:
    """Read one short Close frame, to its last byte."""
    async with asyncio.timeout(TIMEOUT):
        head = await client.reader.readexactly(2)
        assert head[0] == 0x88
        return Close.parse(await client.reader.readexactly(head[1]))


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 4000])
async def test_close_codes_of_both_sides_pass(serve: Serve, code: int) -> None:
    ended: asyncio.Queue[tuple[int, str]] = asyncio.Queue()

    async def talk(connection: ServerConnection) -> None:
        if await connection.recv() == "close":
            await connection.close(code, "of the server")
        await connection.wait_closed()
        ended.put_nowait((connection.close_code or 0, connection.close_reason or ""))

    async with socket_server(talk) as server:
        gateway = await serve(socket_route(server))
        async with connecting(gateway) as client:
            await client.send("close")
            await client.wait_closed()
            assert (client.close_code, client.close_reason) == (code, "of the server")
            await ended.get()
        async with connecting(gateway) as client:
            await client.send("wait")
            await client.close(code, "of the client")
        assert await ended.get() == (code, "of the client")


async def test_fragments_and_control_frames_between_them_pass(serve: Serve) -> None:
    async with socket_server() as server:
        gateway = await serve(socket_route(server))
        async with connecting(gateway) as client:
            sending = asyncio.create_task(client.send(_fragments(100)))
            await asyncio.wait_for(await client.ping(b"are you there"), TIMEOUT)
            await sending
            assert await client.recv() == "".join(f"part {number} " for number in range(100))


async def _fragments(count: int) -> AsyncIterator[str]:
    for number in range(count):
        yield f"part {number} "


async def test_large_messages_pass(serve: Serve) -> None:
    message = os.urandom(16 << 20)
    async with socket_server(compression=None) as server:
        gateway = await serve(socket_route(server))
        async with connecting(gateway, compression=None) as client:
            await client.send(message)
            assert await client.recv() == message


async def test_compression_is_negotiated_between_the_ends(serve: Serve) -> None:
    async with socket_server() as server:
        gateway = await serve(socket_route(server))
        async with connecting(gateway) as client:
            assert client.response is not None
            assert "permessage-deflate" in client.response.headers["Sec-WebSocket-Extensions"]
            await client.send("x" * 100_000)
            assert await client.recv() == "x" * 100_000


async def test_subprotocols_are_chosen_by_the_upstream(serve: Serve) -> None:
    async with socket_server(subprotocols=["b", "c"]) as server:
        gateway = await serve(socket_route(server))
        async with connecting(gateway, subprotocols=["a", "b"]) as client:
            assert client.subprotocol == "b"


async def test_pings_of_the_server_reach_the_client(serve: Serve) -> None:
    async def talk(connection: ServerConnection) -> None:
        await asyncio.wait_for(await connection.ping(b"1"), TIMEOUT)
        await connection.send("ponged")

    async with socket_server(talk) as server:
        gateway = await serve(socket_route(server))
        async with connecting(gateway) as client:
            assert await client.recv() == "ponged"


async def test_the_client_of_aiohttp_is_served(serve: Serve) -> None:
    async with socket_server() as server:
        gateway = await serve(socket_route(server))
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(socket_url(gateway), compress=15) as client,
        ):
            await client.send_json({"a": 1})
            assert await client.receive_json(timeout=TIMEOUT) == {"a": 1}
            await client.send_bytes(b"\0" * 70_000)
            assert await client.receive_bytes(timeout=TIMEOUT) == b"\0" * 70_000
            await client.close(code=4000)
            assert client.close_code == 4000


async def test_a_side_that_does_not_read_stops_the_other_one(serve: Serve) -> None:
    """What is written is bounded by the buffers of the sockets and 64 KiB: the sender has to wait."""
    limit, frame = 64 << 20, Frame(Opcode.BINARY, bytes(64 << 10)).serialize(mask=False)
    written = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        while written < limit:
            writer.write(frame)
            await writer.drain()
            written += len(frame)
        await reader.read()

    async with switching(pour) as up:
        gateway = await serve(socket_route(up.authority))
        async with raw_connection(gateway) as client:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await client.send(request_head("GET", "/ws", *HANDSHAKE))
            await _stands_still(lambda: written)
            assert 0 < written < limit / 2
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert (await client.head()).status == 101
            async with asyncio.timeout(TIMEOUT):
                left = limit
                while left > 0:
                    left -= len(await client.reader.read(1 << 20))


async def test_an_upstream_that_does_not_read_stops_the_client(serve: Serve) -> None:
    resume = asyncio.Event()

    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await resume.wait()
        await reader.read()

    async with switching(ignore) as up:
        gateway = await serve(socket_route(up.authority))
        async with raw_connection(gateway) as client:
            await switched(client)
            sent, frame = 0, Frame(Opcode.BINARY, bytes(64 << 10)).serialize(mask=True)

            async def pour() -> None:
                nonlocal sent
                while True:
                    await client.send(frame)
                    sent += len(frame)

            pouring = asyncio.create_task(pour())
            await _stands_still(lambda: sent)
            assert sent < 32 << 20
            pouring.cancel()
            resume.set()


async def _stands_still(read: Callable[[], int]) -> None:
    """Wait until a number stays the same for a while."""
    seen, same = -1, 0
    async with asyncio.timeout(TIMEOUT):
        while same < 10:
            await asyncio.sleep(0.05)  # that nothing happens shows only in time
            now = read()
            same, seen = (same + 1 if now == seen else 0), now


async def test_half_a_close_of_the_client_lets_the_server_finish(serve: Serve) -> None:
    async def answer_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == HELLO  # to the end
        for _ in range(100):
            writer.write(HELLO * 1000)
            await writer.drain()
        writer.write(b"\x88\0")

    async with switching(answer_the_end) as up:
        gateway = await serve(socket_route(up.authority))
        async with raw_connection(gateway) as client:
            await switched(client)
            await client.send(HELLO)
            client.writer.write_eof()
            assert await client.closed() == HELLO * 100_000 + b"\x88\0"


async def test_half_a_close_of_the_server_lets_the_client_finish(serve: Serve) -> None:
    async def end_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x88\0")
        writer.write_eof()
        rest.set_result(await reader.read())

    rest: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    async with switching(end_first) as up:
        gateway = await serve(socket_route(up.authority))
        async with raw_connection(gateway) as client:
            await switched(client)
            assert await client.closed() == b"\x88\0"
            await client.send(MASKED_CLOSE)
            client.writer.write_eof()
            assert await rest == MASKED_CLOSE


async def test_a_client_that_has_ended_its_side_is_told_of_a_stop(serve: Serve) -> None:
    half_closed = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        assert await reader.read() == b""
        half_closed.set()
        await asyncio.Event().wait()

    async with switching(say_nothing) as up:
        gateway = await serve(socket_route(up.authority))
        async with raw_connection(gateway) as client:
            await switched(client)
            client.writer.write_eof()
            await asyncio.wait_for(half_closed.wait(), TIMEOUT)
            await gateway.endpoints.dispatcher.routing.websockets.stop()
            close = await received_close(client)
            assert (close.code, close.reason) == (1001, "the server stops")
            assert await client.closed() == b""


async def test_a_reset_of_the_client_ends_the_upstream(serve: Serve) -> None:
    async with switching(_wait_for_the_end) as up:
        gateway = await serve(socket_route(up.authority))
        async with raw_connection(gateway) as client:
            await switched(client)
            client.reset()
            await asyncio.wait_for(up.ended.wait(), TIMEOUT)


async def _wait_for_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


@pytest.mark.parametrize("how", ["eof", "reset"])
async def test_a_lost_upstream_is_told_to_the_client_with_a_close_frame(serve: Serve, how: str) -> None:
    async def vanish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(HELLO))
        writer.write(HELLO)
        await writer.drain()
        await reader.readexactly(len(HELLO))
        if how == "reset":
            await _reset(writer)

    async with switching(vanish) as up:
        gateway = await serve(socket_route(up.authority))
        async with raw_connection(gateway) as client:
            await switched(client)
            await client.send(HELLO)
            assert await client.reader.readexactly(len(HELLO)) == HELLO
            await client.send(HELLO)
            close = await received_close(client)
            assert (close.code, close.reason) == (1011, "the connection to the server was lost")
            await client.send(MASKED_CLOSE)
            assert await client.closed() == b""


async def test_nothing_is_put_into_a_frame_whose_upstream_is_lost(serve: Serve) -> None:
    async def vanish(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HELLO + HELLO[:-1])

    async with switching(vanish) as up:
        gateway = await serve(socket_route(up.authority))
        async with raw_connection(gateway) as client:
            await switched(client)
            assert await client.closed() == HELLO + HELLO[:-1]


async def test_a_library_sees_the_code_of_a_lost_upstream(serve: Serve) -> None:
    async with switching(_end_after_a_byte) as up:
        gateway = await serve(socket_route(up.authority))
        async with connecting(gateway) as client:
            await client.send("x")
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1011


async def _end_after_a_byte(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(7)


async def test_silence_of_both_sides_is_bounded(serve: Serve) -> None:
    got: asyncio.Queue[tuple[int, str]] = asyncio.Queue()

    async def talk(connection: ServerConnection) -> None:
        await connection.wait_closed()
        got.put_nowait((connection.close_code or 0, connection.close_reason or ""))

    async with socket_server(talk, ping_interval=None) as server:
        gateway = await serve(socket_route(server, more="limits: {idle: 300ms}\n"))
        async with connecting(gateway, ping_interval=None) as client:
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert (client.close_code, client.close_reason) == (1001, "nothing was sent for 0.3 seconds")
        assert await got.get() == (1001, "nothing was sent for 0.3 seconds")


async def test_one_side_is_enough_against_the_bound_on_silence(serve: Serve) -> None:
    async with socket_server(_count_messages, ping_interval=None) as server:
        gateway = await serve(socket_route(server, more="limits: {idle: 2s}\n"))
        async with connecting(gateway, ping_interval=None) as client:
            for _ in range(30):
                await client.send("on")
                await asyncio.sleep(0.1)  # 3 s in all, of which the server says nothing
            await client.send("end")
            assert await client.recv() == "30"


async def _count_messages(connection: ServerConnection) -> None:
    count = 0
    async for message in connection:
        if message == "end":
            await connection.send(str(count))
        count += 1


async def test_a_reload_without_the_route_leaves_open_connections_alone(serve: Serve) -> None:
    async with socket_server() as server:
        gateway = await serve(socket_route(server))
        async with connecting(gateway) as client:
            [file] = gateway.resources.settings.plugins[0].iterdir()
            file.unlink()
            await gateway.reload()
            await client.send("still here")
            assert await client.recv() == "still here"
            with pytest.raises(Exception, match="404"):
                await connecting(gateway)


async def test_open_connections_are_counted(serve: Serve) -> None:
    async with socket_server(echo) as server:
        gateway = await serve(socket_route(server, more="name: live\n"))
        async with connecting(gateway), connecting(gateway):
            assert await _gauge(gateway) == 2
        await wait_until(lambda: _is_zero(gateway))


async def test_a_route_that_is_gone_is_counted_until_its_connections_have_ended(serve: Serve) -> None:
    async with socket_server(echo) as server:
        gateway = await serve(socket_route(server, more="name: live\n"))
        async with connecting(gateway):
            [file] = gateway.resources.settings.plugins[0].iterdir()
            file.unlink()
            await gateway.reload()
            assert await _gauge(gateway) == 1
        await wait_until(lambda: _is_zero(gateway))
        await gateway.reload()
        assert await _samples(gateway) == []


async def _is_zero(gateway: Gateway) -> bool:
    return await _gauge(gateway) == 0


async def _gauge(gateway: Gateway) -> float:
    [line] = await _samples(gateway)
    return float(line.split()[-1])


async def _samples(gateway: Gateway) -> list[str]:
    async with raw_connection(gateway) as client:
        await client.send(request_head("GET", "/-/metrics"))
        lines = (await client.answer()).body.decode().splitlines()
    return [line for line in lines if line.startswith('gateway_websockets{route="live"}')]


async def test_any_bytes_pass_as_they_are(serve: Serve) -> None:
    """Frames or not: the ends alone judge them. Each side sends megabytes in pieces of any size."""
    there, back = os.urandom(4 << 20), os.urandom(4 << 20)

    async def swap(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pouring = asyncio.create_task(_pour(writer, back))
        assert await reader.readexactly(len(there)) == there
        await pouring
        await reader.read()

    async with switching(swap) as up:
        gateway = await serve(socket_route(up.authority))
        async with raw_connection(gateway) as client, asyncio.timeout(TIMEOUT):
            await switched(client)
            pouring = asyncio.create_task(_pour(client.writer, there))
            assert await client.reader.readexactly(len(back)) == back
            await pouring


async def _pour(writer: asyncio.StreamWriter, data: bytes) -> None:
    sizes, place = Random(len(data)), 0
    while place < len(data):
        size = sizes.choice((1, 2, 3, 7, 100, 5000, 70_000, 300_000))
        writer.write(data[place : place + size])
        await writer.drain()
        place += size


async def test_times_of_requests_do_not_end_a_connection_whose_client_reads_nothing(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.http.connection.CHECK_INTERVAL", 0.02)
    frames = HELLO * 2_000_000

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frames)
        await reader.read()

    async with switching(pour) as up:
        gateway = await serve(socket_route(up.authority), idle_timeout="100ms", min_rate="1MiB")
        async with raw_connection(gateway) as client:
            await switched(client)
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.sleep(1)  # ten times the idle timeout, fifty checks
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            async with asyncio.timeout(TIMEOUT):
                assert await client.reader.readexactly(len(frames)) == frames
