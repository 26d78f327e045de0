"""Upstreams that fail in every way and come back, and clients that note what became of each request."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from tests.support.harness import Addressed, raw_connection, request_head
from tests.support.ports import free_port
from tests.support.routing.proxying import lines_of, read_request, respond

Fault = Literal["hang", "refuse", "reset", "sick"]
FAULTS: tuple[Fault, ...] = ("refuse", "reset", "sick", "hang")

_RESET = struct.pack("ii", 1, 0)


class FaultyUpstream:
    """A server on a port of its own. `served` are the requests that it has answered well, by id."""

    def __init__(self) -> None:
        self.port = free_port()
        self.fault: Fault | None = None
        self.arrived: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._mended = asyncio.Event()

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def fail(self, fault: Fault) -> None:
        """Fail from now on, requests in flight, too."""
        self.fault = fault
        self._mended.clear()
        if fault in {"refuse", "reset"}:
            await self.close(listens=fault == "reset")

    async def mend(self) -> None:
        """Work again."""
        self.fault = None
        self._mended.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def close(self, *, listens: bool = False) -> None:
        """Reset every connection; stop to listen."""
        server = self._server
        if not listens and server is not None:
            self._server = None
            server.close()
        for writer in tuple(self._writers):
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._serve_one(reader, writer):
                    pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head, _ = await read_request(reader)
        name = "".join(lines_of(head, "X-Id"))
        self.arrived[name] += 1
        if self.fault == "reset":
            _reset(writer)
            return False
        if self.fault == "hang":
            await self._mended.wait()
            return False
        if self.fault == "sick":
            writer.write(respond(b"", "503 Sick"))
        else:
            self.served[name] += 1
            writer.write(respond(name.encode()))
        await writer.drain()
        return True


def _reset(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


@dataclass
class Outcome:
    """What became of a request, from when it was sent until its response had come."""

    name: str
    method: str
    began: float
    ended: float = 0.0
    status: int = 0


@dataclass
class Clients:
    """Clients that send one request after the other, each over a connection of its own."""

    server: Addressed
    outcomes: list[Outcome] = field(default_factory=list)
    stopping: bool = False
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def run(self, gets: int, posts: int) -> None:
        """Send until `stopping`."""
        methods = ["GET"] * gets + ["POST"] * posts
        await asyncio.gather(*(self._send_all(method) for method in methods))

    async def _send_all(self, method: str) -> None:
        while not self.stopping:
            async with raw_connection(self.server) as client:
                while not self.stopping:
                    outcome = Outcome(f"{method}-{next(self._numbers)}", method, time.monotonic())
                    lines = (
                        f"X-Id: {outcome.name}",
                        *(["Content-Length: 1"] if method == "POST" else []),
                    )
                    body = b"x" if method == "POST" else b""
                    await client.send(request_head(method, "/r", *lines) + body)
                    answer = await client.answer()
                    outcome.ended, outcome.status = time.monotonic(), answer.status
                    self.outcomes.append(outcome)
                    if outcome.status == 200:
                        assert answer.body == outcome.name.encode()
                    if answer.headers.get("Connection", "").lower() == "close":
                        break
                    await asyncio.sleep(0.005)
