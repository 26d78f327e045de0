"""Clients of resumable uploads by hand."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from gateway.server.app import Gateway
from gateway.storage.local.state_dir import StateDirectory
from tests.support.harness import (
    Addressed,
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

    @property
    def upload_id(self) -> str:
        """The id in the URL of the upload resource."""
        return self.resource.partition("=")[2].partition(".")[0]


def target_of(location: str) -> str:
    """Return path and query of an absolute URL."""
    parts = urlsplit(location)
    assert parts.scheme, location
    assert parts.netloc, location
    return f"{parts.path}?{parts.query}"


async def request(
    gateway: Addressed, method: str, target: str, *lines: str, body: bytes | None = None
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
    gateway: Addressed,
    resource: str,
    offset: int,
    body: bytes,
    *lines: str,
    end: bool = False,
) -> Exchange:
    """Append as the draft does."""
    fields = (f"Upload-Offset: {offset}", f"Upload-Complete: ?{int(end)}")
    return await request(gateway, "PATCH", resource, PART_TYPE, *fields, *lines, body=body)


async def offset_of(gateway: Addressed, resource: str, *lines: str) -> int:
    """Ask for the offset of an upload resource."""
    exchange = await request(gateway, "HEAD", resource, *lines)
    assert exchange.status == 204, exchange
    return exchange.offset


async def wait_begun(gateway: Gateway) -> None:
    """Wait until a gateway in this process receives a body: what came before has no upload yet."""
    uploads = gateway.endpoints.inflight._active
    await wait_until(lambda: any(progress.received for progress in uploads.values()))


async def wait_received(gateway: Gateway, upload_id: str, count: int) -> None:
    """Wait until a gateway in this process has read so many bytes of an upload."""

    def received() -> bool:
        progress = gateway.endpoints.inflight.find(upload_id)
        return progress is not None and progress.received >= count

    await wait_until(received)


def upload_id(resource: str) -> str:
    """Return the id in the target of an upload resource."""
    return resource.partition("?upload=")[2].partition(".")[0]


def hanging_append(resource: str, kind: str, offset: int, body: bytes) -> bytes:
    """Return an append whose client sends half of it, and then neither more nor an end."""
    if kind == "chunked":
        length, sent = "Transfer-Encoding: chunked", b"%x\r\n%b\r\n" % (len(body), body)
    else:
        length, sent = f"Content-Length: {2 * len(body)}", body
    fields = (PART_TYPE, f"Upload-Offset: {offset}", "Upload-Complete: ?0", length)
    return request_head("PATCH", resource, *fields) + sent


# -- one of several processes


@contextlib.asynccontextmanager
async def process_connection(gateway: GatewayProcess, slot: int) -> AsyncIterator[RawConnection]:
    """Connect to one process: its owner's socket serves what the port serves."""
    path = StateDirectory(gateway.directory / ".gateway", slot).socket
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
    try:
        yield RawConnection(reader, writer)
    finally:
        writer.close()


async def ask(
    gateway: GatewayProcess, slot: int, method: str, resource: str, *lines: str, body: bytes = b""
) -> Exchange:
    """Send a request to one process."""
    length = (f"Content-Length: {len(body)}",) if body else ()
    async with process_connection(gateway, slot) as connection:
        await connection.send(request_head(method, resource, *length, *lines) + body)
        return await answers(connection, head=method == "HEAD")
