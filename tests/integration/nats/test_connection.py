"""The connection to a server that says an error and hangs up."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from gateway.errors import EventEngineUnavailable
from gateway.events.protocols import NewEvent
from tests.support.nats.fixtures import MakeEngine
from tests.support.nats.servers import SECONDS, Server


class Proxy:
    """Between clients and a server: hands on all bytes, until it ends a connection with an error."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients[asyncio.create_task(self._between(reader, writer))] = writer

    async def _between(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        await asyncio.gather(_hand_on(reader, to_server), _hand_on(from_server, writer))

    async def end(self, error: str) -> None:
        """Say what a server says before it hangs up, and hang up."""
        for writer in self._clients.values():
            writer.write(f"-ERR '{error}'\r\n".encode())
            writer.close()
        await self.ended()

    async def ended(self) -> None:
        """Wait until all clients are gone."""
        tasks = list(self._clients)
        await asyncio.gather(*tasks)
        for task in tasks:
            del self._clients[task]


async def _hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before the server, and its URL."""
    one = Proxy(server.port)
    listening = await asyncio.start_server(one.connected, "127.0.0.1", 0)
    yield one, f"nats://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    listening.close()
    await one.ended()
    await listening.wait_closed()


@pytest.mark.parametrize("said", [True, False], ids=["the library tells", "the library keeps silent"])
async def test_a_server_that_ends_the_connection_with_an_error_is_connected_to_again(
    proxy: tuple[Proxy, str],
    connect: MakeEngine,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    said: bool,
) -> None:
    monkeypatch.setattr("gateway.events.nats.connection.CHECK_INTERVAL", SECONDS if said else 0.05)
    between, url = proxy
    nats = await connect(url)
    if not said:
        connection = nats._connection
        assert connection._client is not None
        connection._client._closed_cb = None
    waiting = asyncio.create_task(nats.queue.claim("h", 1, SECONDS))
    await nats.queue.claim("i", 1, 0.1)  # leaves an inbox to the next claim
    await between.end("User Authentication Expired")
    with pytest.raises(EventEngineUnavailable):
        async with asyncio.timeout(SECONDS):
            await waiting
    assert not nats.ready
    async with asyncio.timeout(SECONDS):
        await nats.wait_ready()
    assert "is unavailable, retrying: user authentication expired" in caplog.text
    await nats.outbox.publish([NewEvent("e1", "APIGW.OnSomething", ("h",), {}, time.time())])
    async with asyncio.timeout(SECONDS):
        [delivery] = await nats.queue.claim("h", 1, SECONDS)
        await nats.queue.ack(delivery, 0.0)
