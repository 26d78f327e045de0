"""A relay in front of a gateway that cuts connections: what a bad network does to an upload."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

CHUNK_BYTES = 64 << 10


class CuttingRelay:
    """Relays connections to `target`, and cuts some of them.

    Each number of `cuts` cuts one connection, in order: the first one that carries so many bytes from
    its client. `target` may change, and be None: then connections are refused. A cut with
    `refuses_after_cut` ends the others too and refuses new ones: browsers try again at once by
    themselves. `hangs` keeps the side of the gateway open after a cut, as a network does that loses the
    client without a word.
    """

    def __init__(self) -> None:
        self.target: tuple[str, int] | None = None
        self.cuts: list[int] = []
        self.hangs = False
        self.refuses_after_cut = False
        self.cut = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._held: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> tuple[str, int]:
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()
        return host, port

    @property
    def url(self) -> str:
        host, port = self.address
        return f"http://{host}:{port}"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        # Not cancelled: the callback of `start_server` (3.11) cannot have that.
        for writer in (*self._writers, *self._held):
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if self.target is not None:
                with contextlib.suppress(OSError):
                    await self._relay(reader, writer, *await asyncio.open_connection(*self.target))
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            _reset(writer)

    async def _relay(
        self,
        from_client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        from_gateway: asyncio.StreamReader,
        to_gateway: asyncio.StreamWriter,
    ) -> None:
        back = asyncio.create_task(_copy(from_gateway, to_client))
        forth = asyncio.create_task(self._forward(from_client, to_gateway))
        both = {back, forth}
        try:
            # A gateway that ends the connection, or dies, ends it for the client too.
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            was_cut = forth.done() and not forth.exception() and forth.result()
            if was_cut and self.hangs:
                self._held.append(to_gateway)
            elif forth.done() and not was_cut:
                await asyncio.wait({back})
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            if to_gateway not in self._held:
                to_gateway.close()

    async def _forward(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> bool:
        """Copy what the client sends; tell whether the connection is to be cut."""
        count = 0
        while data := await source.read(CHUNK_BYTES):
            rest = max(self.cuts[0] - count, 0) if self.cuts else len(data) + 1
            target.write(data[:rest])
            await target.drain()
            count += len(data)
            if rest <= len(data):
                self.cuts.pop(0)
                if self.refuses_after_cut:
                    self.target = None
                    for writer in self._writers:  # a browser keeps idle ones, and goes on with them
                        writer.transport.abort()
                self.cut.set()
                return True
        with contextlib.suppress(OSError):
            target.write_eof()
        return False


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(CHUNK_BYTES):
        target.write(data)
        await target.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.close()


@asynccontextmanager
async def cutting_relay(cuts: Sequence[int] = ()) -> AsyncIterator[CuttingRelay]:
    """Open a relay; its `target` is to be set."""
    relay = CuttingRelay()
    relay.cuts = list(cuts)
    await relay.open()
    try:
        yield relay
    finally:
        await relay.close()
