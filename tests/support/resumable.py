"""Clients of resumable uploads by hand, and a network that breaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from gateway.server.app import Gateway
from tests.support.harness import (
    GatewayProcess,
    RawConnection,
    RawResponse,
    raw_connection,
    request_head,
    wait_until,
)

PART_TYPE = "Content-Type: application/partial-upload"


@dataclass
class Exchange:
    """The answers to one request."""

    final: RawResponse
    interim: list[RawResponse] = field(default_factory=list)

    @property
    def status(self) -> int:
        return self.final.status

    @property
    def offset(self) -> int:
        return int(self.final.headers["Upload-Offset"])

    @property
    def complete(self) -> str:
        return self.final.headers["Upload-Complete"]

    @property
    def resource(self) -> str:
        """The target of the upload resource."""
        return target_of(self.final.headers["Location"])


def target_of(location: str) -> str:
    """Return path and query of an absolute URL."""
    parts = urlsplit(location)
    assert parts.scheme, location
    assert parts.netloc, location
    return f"{parts.path}?{parts.query}"


async def request(
    gateway: Gateway | GatewayProcess, method: str, target: str, *lines: str, body: bytes | None = None
) -> Exchange:
    """Send a request in one go, on a connection of its own."""
    length = () if body is None else (f"Content-Length: {len(body)}",)
    async with raw_connection(gateway) as connection:
        await connection.send(request_head(method, target, *length, *lines) + (body or b""))
        return await answers(connection, head=method == "HEAD")


async def answers(connection: RawConnection, *, head: bool = False) -> Exchange:
    """Read the answers to one request."""
    interim: list[RawResponse] = []
    while (answer := await connection.head()).status < 200:
        interim.append(answer)
    length = 0 if head else int(answer.headers.get("Content-Length", 0))
    answer.body = await connection.reader.readexactly(length)
    return Exchange(answer, interim)


async def append(
    gateway: Gateway | GatewayProcess,
    resource: str,
    offset: int,
    body: bytes,
    *lines: str,
    end: bool = False,
) -> Exchange:
    """Append as the draft does."""
    fields = (f"Upload-Offset: {offset}", f"Upload-Complete: ?{int(end)}")
    return await request(gateway, "PATCH", resource, PART_TYPE, *fields, *lines, body=body)


async def offset_of(gateway: Gateway | GatewayProcess, resource: str, *lines: str) -> int:
    """Ask for the offset of an upload resource."""
    exchange = await request(gateway, "HEAD", resource, *lines)
    assert exchange.status == 204, exchange
    return exchange.offset


async def wait_received(gateway: Gateway, upload_id: str, count: int) -> None:
    """Wait until a gateway in this process has read so many bytes of an upload."""

    def received() -> bool:
        progress = gateway.endpoints.inflight.find(upload_id)
        return progress is not None and progress.received >= count

    await wait_until(received)


class BreakingNetwork:
    """A port in front of another one, whose connections break after so many bytes each."""

    def __init__(self, upstream: tuple[str, int], limits: Iterable[int]) -> None:
        self._upstream = upstream
        self._limits = iter(limits)
        self.address = ("127.0.0.1", 0)
        self.broken = 0

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass a connection on; one that sends more than its limit is reset."""
        upstream_reader, upstream_writer = await asyncio.open_connection(*self._upstream)
        back = asyncio.create_task(_copy(upstream_reader, writer))
        sent, limit = 0, None
        try:
            while chunk := await reader.read(65_536):
                if limit is None:
                    # What asks without a body uses up no limit.
                    limit = 1 << 62 if chunk.startswith(b"HEAD ") else next(self._limits, 1 << 62)
                upstream_writer.write(chunk[: max(0, limit - sent)])
                sent += len(chunk)
                await upstream_writer.drain()
                if sent > limit:
                    self.broken += 1
                    writer.transport.abort()
                    break
            else:
                upstream_writer.write_eof()
                await back
        except OSError:
            writer.transport.abort()
        finally:
            upstream_writer.close()
            back.cancel()
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()


@contextlib.asynccontextmanager
async def breaking_network(
    gateway: Gateway | GatewayProcess, limits: Iterable[int]
) -> AsyncIterator[BreakingNetwork]:
    """Open a port whose connections with a body break after `limits`, each in its turn."""
    network = BreakingNetwork(gateway.address, limits)
    server = await asyncio.start_server(network.serve, "127.0.0.1", 0)
    network.address = server.sockets[0].getsockname()[:2]
    async with server:
        yield network
