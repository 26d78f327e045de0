"""Processes of one gateway take uploads into a bucket over from each other; nothing is lost."""

from __future__ import annotations

import os

import pytest

from tests.conftest import StartProcess
from tests.support.harness import GatewayProcess, wait_until
from tests.support.resumable import (
    PART_TYPE,
    ask,
    hanging_append,
    process_connection,
    request,
    upload_id,
)

MIB = 1 << 20
BODY = os.urandom(18 * MIB)


@pytest.fixture
def three(gateway_process: StartProcess, s3_storage: str) -> GatewayProcess:
    return gateway_process("--processes", "3", "--storage", s3_storage, "--downloads")


async def created(gateway: GatewayProcess) -> str:
    length = f"Upload-Length: {len(BODY)}"
    return (
        await request(gateway, "POST", "/upload/x", "Upload-Complete: ?0", length, body=b"")
    ).resource


async def receiving(gateway: GatewayProcess, resource: str, count: int) -> None:
    """Wait until some process has read so many bytes of an upload."""

    async def has_come() -> bool:
        page = (await request(gateway, "GET", f"/-/uploads/{upload_id(resource)}")).final.json
        return bool(page["state"] == "receiving" and page["bytes"] >= count)

    await wait_until(has_come)


@pytest.mark.parametrize("size", [1000, 9 * MIB])
async def test_another_process_takes_an_upload_over(three: GatewayProcess, size: int) -> None:
    resource = await created(three)
    async with process_connection(three, 1) as hanging:
        await hanging.send(hanging_append(resource, "plain", 0, BODY[:size]))
        await receiving(three, resource, size)
        head = await ask(three, 2, "HEAD", resource)
        assert (head.status, head.offset) == (204, size)
        assert await hanging.closed() == b""
    fields = (PART_TYPE, f"Upload-Offset: {size}", "Upload-Complete: ?1")
    last = await ask(three, 0, "PATCH", resource, *fields, body=BODY[size:])
    assert last.status == 201
    for slot in range(3):
        head = await ask(three, slot, "HEAD", resource)
        assert (head.complete, head.offset) == ("?1", len(BODY))
    assert (await request(three, "GET", "/upload/x")).final.body == BODY


async def test_the_same_bytes_again_take_the_place_of_an_append_that_hangs(
    three: GatewayProcess,
) -> None:
    resource = await created(three)
    async with process_connection(three, 1) as hanging:
        await hanging.send(hanging_append(resource, "plain", 0, b"?" * 9 * MIB))
        await receiving(three, resource, 9 * MIB)
        fields = (PART_TYPE, "Upload-Offset: 0", "Upload-Complete: ?1")
        assert (await ask(three, 2, "PATCH", resource, *fields, body=BODY)).status == 201
    assert (await request(three, "GET", "/upload/x")).final.body == BODY
