"""Whole gateways that are killed while they have partial uploads: over HTTP, one process and two."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from gateway.storage.local.lock_holders import lock_holders
from tests.conftest import StartProcess
from tests.support.harness import (
    GatewayProcess,
    files_below,
    leftovers,
    raw_connection,
    request_head,
    wait_settled,
    wait_until,
)
from tests.support.promise import RunRecorder
from tests.support.resumable import PART_TYPE, append, offset_of, request

pytestmark = pytest.mark.slow

MIB = 1 << 20
BODY = os.urandom(20 * MIB)
"""Its second half is large enough for the socket to be detached from aiohttp."""

TAG = "X-Tag: partial"


@pytest.fixture
def recorder(tmp_path: Path) -> RunRecorder:
    return RunRecorder(tmp_path)


async def half(gateway: GatewayProcess) -> str:
    """Create an upload, and append the first half; return its resource."""
    length = f"Upload-Length: {len(BODY)}"
    created = await request(gateway, "PUT", "/upload/x", "Upload-Complete: ?0", length, TAG, body=b"")
    assert created.status == 201
    first = await append(gateway, created.resource, 0, BODY[: len(BODY) // 2])
    assert (first.status, first.offset) == (204, len(BODY) // 2)
    return created.resource


async def complete(gateway: GatewayProcess, resource: str) -> int:
    """Go on where the gateway says; return that offset."""
    offset = await offset_of(gateway, resource)
    last = await append(gateway, resource, offset, BODY[offset:], end=True)
    assert last.status in {200, 201}, last
    return offset


def partial_names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory / ".gateway/partials"))


async def assert_complete(
    gateway: GatewayProcess, resource: str, recorder: RunRecorder, tmp_path: Path
) -> None:
    await wait_settled(gateway)
    told = await request(gateway, "HEAD", resource)
    assert (told.status, told.complete, told.offset) == (204, "?1", len(BODY))
    assert files_below(tmp_path / "data/upload") == {"x": BODY}
    assert recorder.tags() == ["partial"]
    assert leftovers(tmp_path / "data") == []
    assert partial_names(tmp_path / "data") == ["identities"]


@pytest.mark.parametrize(
    ("point", "is_stored"),
    [
        ("mid append:3", False),
        ("before partial cell:2", False),
        ("after partial cell:2", False),
        ("after partial move", False),
        ("before journal commit", False),
        ("after journal commit", False),
        ("after rename", True),
        ("before answer", True),
        ("before partial end", True),
    ],
)
async def test_a_gateway_that_is_killed_goes_on_where_it_said(
    gateway_process: StartProcess, tmp_path: Path, recorder: RunRecorder, point: str, is_stored: bool
) -> None:
    with gateway_process(*recorder.flags) as first:
        resource = await half(first)
    name, _, count = point.partition(":")
    left = int(count or 1)
    dying = gateway_process(*recorder.flags, die_at=f"{name}:{max(left - 1, 1)}")
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await append(dying, resource, len(BODY) // 2, BODY[len(BODY) // 2 :], end=True)
    assert dying.wait() == -9
    again = gateway_process(*recorder.flags)
    if not is_stored:
        assert files_below(tmp_path / "data/upload") == {}
        assert recorder.tags() == []
        assert await complete(again, resource) >= len(BODY) // 2
    await assert_complete(again, resource, recorder, tmp_path)


async def test_another_process_goes_on_with_what_a_killed_one_had(
    gateway_process: StartProcess, tmp_path: Path, recorder: RunRecorder
) -> None:
    gateway = gateway_process("--processes", "2", *recorder.flags)
    resource, start = await half(gateway), len(BODY) // 2
    upload_id = resource.partition("?upload=")[2].partition(".")[0]
    body = tmp_path / "data/.gateway/partials" / upload_id
    async with raw_connection(gateway) as connection:
        fields = (PART_TYPE, f"Upload-Offset: {start}", "Upload-Complete: ?0")
        length = f"Content-Length: {len(BODY) - start}"
        await connection.send(request_head("PATCH", resource, *fields, length))
        await connection.send(BODY[start : start + 5 * MIB])
        await wait_until(lambda: body.stat().st_size >= start + 4 * MIB)
        cells = os.open(f"{body}.at", os.O_RDONLY)
        (holder,) = lock_holders(cells)
        os.close(cells)
        os.kill(holder, signal.SIGKILL)
        assert await connection.reader.read() == b""
    assert await complete(gateway, resource) >= start + 4 * MIB
    await assert_complete(gateway, resource, recorder, tmp_path)
