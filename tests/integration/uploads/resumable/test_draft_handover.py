"""Two requests of one upload at a time: the newer one ends the older one, and nothing is lost."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import RawConnection, files_below, raw_connection, request_head
from tests.support.resumable import (
    PART_TYPE,
    answers,
    append,
    offset_of,
    request,
    target_of,
    wait_received,
)

SIZES = pytest.mark.parametrize(
    ("size", "received"), [(1 << 20, 300_000), (20 << 20, 9 << 20)], ids=["streamed", "from the socket"]
)


def content(size: int) -> bytes:
    return os.urandom(1 << 16) * (size >> 16)


async def begun(gateway: Gateway, size: int) -> str:
    first = await request(
        gateway, "POST", "/upload/x", "Upload-Complete: ?0", f"Upload-Length: {size}", body=b""
    )
    return first.resource


def id_of(resource: str) -> str:
    return resource.partition("=")[2].partition(".")[0]


@asynccontextmanager
async def hanging_append(
    gateway: Gateway, resource: str, body: bytes, received: int, offset: int = 0
) -> AsyncIterator[RawConnection]:
    """Append, and stop in the middle: the gateway has `received` bytes more, and waits."""
    async with raw_connection(gateway) as connection:
        lines = (PART_TYPE, f"Upload-Offset: {offset}", "Upload-Complete: ?1")
        head = request_head("PATCH", resource, *lines, f"Content-Length: {len(body) - offset}")
        await connection.send(head + body[offset : offset + received])
        await wait_received(gateway, id_of(resource), offset + received)
        yield connection


@SIZES
async def test_a_head_ends_an_append_that_hangs_and_tells_all_that_came(
    start_gateway: StartGateway, tmp_path: Path, size: int, received: int
) -> None:
    gateway, body = await start_gateway(), content(size)
    resource = await begun(gateway, size)
    async with hanging_append(gateway, resource, body, received) as hanging:
        offset = await offset_of(gateway, resource)
        assert offset == received
        assert await hanging.closed() == b""
    last = await append(gateway, resource, offset, body[offset:], end=True)
    assert last.status == 201
    assert files_below(tmp_path / "data/upload") == {"x": body}


async def test_a_head_ends_a_creation_that_hangs(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway, body = await start_gateway(), content(1 << 20)
    async with raw_connection(gateway) as hanging:
        lines = (
            "Upload-Complete: ?1",
            "Upload-Draft-Interop-Version: 6",
            f"Content-Length: {len(body)}",
        )
        await hanging.send(request_head("PUT", "/upload/x", *lines))
        resource = target_of((await hanging.head()).headers["Location"])
        await hanging.send(body[:300_000])
        await wait_received(gateway, id_of(resource), 300_000)
        assert await offset_of(gateway, resource) == 300_000
        assert await hanging.closed() == b""
    assert (await append(gateway, resource, 300_000, body[300_000:], end=True)).status == 201
    assert files_below(tmp_path / "data/upload") == {"x": body}


@SIZES
async def test_a_delete_ends_an_append_that_hangs(
    start_gateway: StartGateway, tmp_path: Path, size: int, received: int
) -> None:
    gateway, body = await start_gateway(), content(size)
    resource = await begun(gateway, size)
    async with hanging_append(gateway, resource, body, received) as hanging:
        assert (await request(gateway, "DELETE", resource)).status == 204
        assert await hanging.closed() == b""
    assert (await request(gateway, "HEAD", resource)).status == 404
    assert files_below(tmp_path / "data/upload") == {}
    assert files_below(tmp_path / "data/.gateway/partials") == {}


@SIZES
async def test_an_append_at_the_offset_that_was_told_takes_over(
    start_gateway: StartGateway, tmp_path: Path, size: int, received: int
) -> None:
    gateway, body = await start_gateway(), content(size)
    resource = await begun(gateway, size)
    async with hanging_append(gateway, resource, bytes(size), received) as hanging:
        newer = await append(gateway, resource, 0, body, end=True)
        assert newer.status == 201
        assert await hanging.closed() == b""
    assert files_below(tmp_path / "data/upload") == {"x": body}


@SIZES
async def test_an_append_at_another_offset_is_refused_and_the_running_one_lives(
    start_gateway: StartGateway, tmp_path: Path, size: int, received: int
) -> None:
    gateway, body = await start_gateway(), content(size)
    resource = await begun(gateway, size)
    async with hanging_append(gateway, resource, body, received) as running:
        stale = await append(gateway, resource, 17, b"x")
        assert stale.status == 409
        assert stale.complete == "?0"
        await running.send(body[received:])
        assert (await answers(running)).status == 201
    assert files_below(tmp_path / "data/upload") == {"x": body}


async def test_every_second_append_takes_over_from_the_one_before(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway, body = await start_gateway(), content(1 << 20)
    resource, offset = await begun(gateway, len(body)), 0
    while offset < 800_000:
        async with hanging_append(gateway, resource, body, 100_000, offset) as hanging:
            offset = await offset_of(gateway, resource)
            assert await hanging.closed() == b""
    last = await append(gateway, resource, offset, body[offset:], end=True)
    assert last.status == 201
    assert files_below(tmp_path / "data/upload") == {"x": body}


async def test_a_body_that_comes_in_many_pieces_is_kept_piece_by_piece(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway, body = await start_gateway(), content(1 << 20)
    resource = await begun(gateway, len(body))
    async with raw_connection(gateway) as connection:
        lines = (PART_TYPE, "Upload-Offset: 0", "Upload-Complete: ?1", f"Content-Length: {len(body)}")
        await connection.send(request_head("PATCH", resource, *lines))
        for start in range(0, len(body), 1 << 17):
            await connection.send(body[start : start + (1 << 17)])
            if start + (1 << 17) < len(body):
                await wait_received(gateway, id_of(resource), start + (1 << 17))
        assert (await answers(connection)).status == 201
    assert files_below(tmp_path / "data/upload") == {"x": body}
