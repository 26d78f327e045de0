"""A newer request of an upload takes it over from an older one that hangs; nothing received is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from gateway.server.app import Gateway
from tests.conftest import StartGateway, StartProcess
from tests.support.harness import (
    GatewayProcess,
    RawConnection,
    files_below,
    raw_connection,
    request_head,
    self_signed_certificate,
    wait_until,
)
from tests.support.resumable import (
    PART_TYPE,
    answers,
    append,
    ask,
    hanging_append,
    offset_of,
    process_connection,
    request,
    target_of,
    upload_id,
    wait_received,
)

MIB = 1 << 20
OPEN = "Upload-Complete: ?0"
HALF = os.urandom(9 * MIB)
WHOLE = HALF + os.urandom(9 * MIB)
"""Large enough for the socket, or the TLS connection, to be detached from aiohttp."""

KINDS = ["plain", "chunked", "detached", "tls"]


async def start(kind: str, start_gateway: StartGateway, tmp_path: Path) -> Gateway:
    if kind != "tls":
        return await start_gateway()
    cert, key = self_signed_certificate(tmp_path)
    return await start_gateway(tls_cert=cert, tls_key=key)


async def created(gateway: Gateway | GatewayProcess, length: int = len(WHOLE)) -> str:
    exchange = await request(gateway, "POST", "/upload/x", OPEN, f"Upload-Length: {length}", body=b"")
    assert exchange.status == 201
    return exchange.resource


def size_of(kind: str) -> int:
    return 1000 if kind == "plain" else len(HALF)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_comes_back_is_told_of_all_that_was_received(
    start_gateway: StartGateway, tmp_path: Path, kind: str
) -> None:
    gateway = await start(kind, start_gateway, tmp_path)
    resource, size = await created(gateway), size_of(kind)
    async with raw_connection(gateway) as hanging:
        await hanging.send(hanging_append(resource, kind, 0, WHOLE[:size]))
        await wait_received(gateway, upload_id(resource), size)
        started = time.monotonic()
        offset = await offset_of(gateway, resource)
        print(f"{kind}: HEAD after {1000 * (time.monotonic() - started):.0f} ms")
        assert offset == size
        assert await hanging.closed() == b""
    last = await append(gateway, resource, size, WHOLE[size:], end=True)
    assert last.status == 201
    assert files_below(tmp_path / "data/upload") == {"x": WHOLE}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_append_at_the_offset_that_was_told_takes_the_place_of_one_that_hangs(
    start_gateway: StartGateway, tmp_path: Path, kind: str
) -> None:
    gateway = await start(kind, start_gateway, tmp_path)
    resource, size = await created(gateway), size_of(kind)
    async with raw_connection(gateway) as hanging:
        await hanging.send(hanging_append(resource, kind, 0, b"?" * size))
        await wait_received(gateway, upload_id(resource), size)
        # What was told is 0: the bytes come again, and those of the older request do not count.
        assert (await append(gateway, resource, 0, WHOLE, end=True)).status == 201
        await hanging.closed()
    assert files_below(tmp_path / "data/upload") == {"x": WHOLE}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_append_at_another_offset_leaves_the_running_one_alone(
    start_gateway: StartGateway, tmp_path: Path, kind: str
) -> None:
    gateway = await start(kind, start_gateway, tmp_path)
    resource, size = await created(gateway), size_of(kind)
    async with raw_connection(gateway) as running:
        rest = b"%x\r\n%b\r\n0\r\n\r\n" % (size, WHOLE[size : 2 * size])
        await running.send(hanging_append(resource, kind, 0, WHOLE[:size]))
        await wait_received(gateway, upload_id(resource), size)
        stale = await append(gateway, resource, 7, b"stale")
        assert (stale.status, stale.offset) == (409, 0)
        await running.send(rest if kind == "chunked" else WHOLE[size : 2 * size])
        whole = await answers(running)
    assert (whole.status, whole.offset) == (204, 2 * size)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cancellation_ends_an_append_that_hangs(
    start_gateway: StartGateway, tmp_path: Path, kind: str
) -> None:
    gateway = await start(kind, start_gateway, tmp_path)
    resource, size = await created(gateway), size_of(kind)
    async with raw_connection(gateway) as hanging:
        await hanging.send(hanging_append(resource, kind, 0, WHOLE[:size]))
        await wait_received(gateway, upload_id(resource), size)
        assert (await request(gateway, "DELETE", resource)).status == 204
        assert await hanging.closed() == b""
    assert (await request(gateway, "HEAD", resource)).status == 404
    assert set(os.listdir(tmp_path / "data/.gateway/partials")) <= {"identities"}


async def test_the_creation_itself_can_hang_too(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    fields = ("Upload-Complete: ?1", "Upload-Draft-Interop-Version: 8", f"Content-Length: {len(WHOLE)}")
    async with raw_connection(gateway) as hanging:
        await hanging.send(request_head("PUT", "/upload/x", *fields) + HALF)
        resource = target_of((await hanging.head()).headers["Location"])
        await wait_received(gateway, upload_id(resource), len(HALF))
        assert await offset_of(gateway, resource) == len(HALF)
    assert (await append(gateway, resource, len(HALF), WHOLE[len(HALF) :], end=True)).status == 201
    assert files_below(tmp_path / "data/upload") == {"x": WHOLE}


async def test_a_body_that_was_to_be_verified_is_dropped_by_who_takes_over(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    resource = await created(gateway, 2000)
    fields = (PART_TYPE, "Upload-Offset: 0", OPEN, "Content-Length: 2000")
    digest = "Content-Digest: sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
    async with raw_connection(gateway) as hanging:
        await hanging.send(request_head("PATCH", resource, *fields, digest) + b"x" * 1000)
        await wait_received(gateway, upload_id(resource), 1000)
        assert await offset_of(gateway, resource) == 0


async def test_a_status_page_does_not_end_an_append(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    resource = await created(gateway, 2000)
    async with raw_connection(gateway) as running:
        await running.send(hanging_append(resource, "plain", 0, b"x" * 1000))
        await wait_received(gateway, upload_id(resource), 1000)
        page = await request(gateway, "GET", f"/-/uploads/{upload_id(resource)}")
        told = page.final.json
        assert (told["state"], told["bytes"], told["offset"]) == ("receiving", 1000, 0)
        await running.send(b"x" * 1000)
        assert (await answers(running)).offset == 2000


async def test_of_many_heads_beside_an_append_none_fails(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    resource = await created(gateway, 2000)
    async with raw_connection(gateway) as hanging:
        await hanging.send(hanging_append(resource, "plain", 0, b"x" * 1000))
        await wait_received(gateway, upload_id(resource), 1000)
        offsets = await asyncio.gather(*(offset_of(gateway, resource) for _ in range(20)))
    assert offsets == [1000] * 20


# -- several processes


async def bytes_kept(gateway: GatewayProcess, upload: str, count: int) -> None:
    """Wait until the body on the disk has so many bytes."""
    body = gateway.directory / ".gateway/partials" / upload
    await wait_until(lambda: body.exists() and body.stat().st_size >= count)


@pytest.fixture
def three(gateway_process: StartProcess) -> GatewayProcess:
    return gateway_process("--processes", "3")


async def hang(connection: RawConnection, gateway: GatewayProcess, resource: str, size: int) -> None:
    """Send the half of an append over a connection, and wait until it is on its way to the disk."""
    await connection.send(hanging_append(resource, "plain", 0, WHOLE[:size]))
    await bytes_kept(gateway, upload_id(resource), size - MIB)


async def test_another_process_takes_an_upload_over(three: GatewayProcess) -> None:
    resource, size = await created(three), 5 * MIB
    async with process_connection(three, 1) as hanging:
        await hang(hanging, three, resource, size)
        started = time.monotonic()
        head = await ask(three, 2, "HEAD", resource)
        print(f"other process: HEAD after {1000 * (time.monotonic() - started):.0f} ms")
        assert (head.status, head.offset) == (204, size)
        assert await hanging.closed() == b""
    fields = (PART_TYPE, f"Upload-Offset: {size}", "Upload-Complete: ?1")
    last = await ask(three, 0, "PATCH", resource, *fields, body=WHOLE[size:])
    assert last.status == 201
    assert files_below(three.directory / "upload") == {"x": WHOLE}
    for slot in range(3):
        head = await ask(three, slot, "HEAD", resource)
        assert (head.complete, head.offset) == ("?1", len(WHOLE))


async def test_an_append_of_another_process_lives_beside_one_at_another_offset(
    three: GatewayProcess,
) -> None:
    resource, size = await created(three), 5 * MIB
    async with process_connection(three, 1) as running:
        await hang(running, three, resource, size)
        fields = (PART_TYPE, "Upload-Offset: 3", OPEN)
        assert (await ask(three, 2, "PATCH", resource, *fields, body=b"stale")).status == 409
        await running.send(WHOLE[size : 2 * size])
        assert (await answers(running)).offset == 2 * size


async def test_an_append_at_the_offset_that_was_told_replaces_one_of_another_process(
    three: GatewayProcess,
) -> None:
    resource, size = await created(three), 5 * MIB
    async with process_connection(three, 1) as hanging:
        await hang(hanging, three, resource, size)
        fields = (PART_TYPE, "Upload-Offset: 0", "Upload-Complete: ?1")
        assert (await ask(three, 2, "PATCH", resource, *fields, body=WHOLE)).status == 201
    assert files_below(three.directory / "upload") == {"x": WHOLE}


async def test_another_process_cancels_an_upload(three: GatewayProcess) -> None:
    resource = await created(three)
    async with process_connection(three, 1) as hanging:
        await hang(hanging, three, resource, 5 * MIB)
        assert (await ask(three, 2, "DELETE", resource)).status == 204
    for slot in range(3):
        assert (await ask(three, slot, "HEAD", resource)).status == 404


async def test_every_process_tells_that_another_one_receives(three: GatewayProcess) -> None:
    resource = await created(three)
    async with process_connection(three, 1) as running:
        await hang(running, three, resource, 5 * MIB)
        for slot in range(3):
            page = await ask(three, slot, "GET", f"/-/uploads/{upload_id(resource)}")
            assert page.final.json["state"] == "receiving"
    await wait_until_waiting(three, resource)


async def wait_until_waiting(gateway: GatewayProcess, resource: str) -> None:
    async def waits() -> bool:
        page = await request(gateway, "GET", f"/-/uploads/{upload_id(resource)}")
        return bool(page.final.json["state"] == "waiting")

    await wait_until(waits)


def pid_of(gateway: GatewayProcess, slot: int) -> int:
    return int((gateway.directory / ".gateway" / "slots" / str(slot)).read_text())


async def test_what_a_killed_process_had_received_is_told_by_another_one(
    three: GatewayProcess,
) -> None:
    resource, size = await created(three), 5 * MIB
    async with process_connection(three, 1) as hanging:
        await hanging.send(hanging_append(resource, "plain", 0, WHOLE[:size]))
        await bytes_kept(three, upload_id(resource), size - MIB)
        os.kill(pid_of(three, 1), signal.SIGKILL)
        await hanging.closed()
    head = await ask(three, 2, "HEAD", resource)
    assert head.status == 204
    assert size - MIB <= head.offset <= size
    fields = (PART_TYPE, f"Upload-Offset: {head.offset}", "Upload-Complete: ?1")
    assert (await ask(three, 2, "PATCH", resource, *fields, body=WHOLE[head.offset :])).status == 201
    assert files_below(three.directory / "upload") == {"x": WHOLE}


async def test_a_process_that_is_stopped_keeps_its_upload_and_no_client_waits_for_ever(
    three: GatewayProcess,
) -> None:
    resource, size = await created(three), 5 * MIB
    async with process_connection(three, 1) as hanging:
        await hang(hanging, three, resource, size)
        os.kill(pid_of(three, 1), signal.SIGSTOP)
        try:
            locked = await ask(three, 2, "HEAD", resource)
        finally:
            os.kill(pid_of(three, 1), signal.SIGCONT)
        assert (locked.status, locked.final.headers["Retry-After"]) == (423, "1")
        head = await ask(three, 2, "HEAD", resource)
        assert (head.status, head.offset) == (204, size)


async def test_nobody_from_outside_ends_a_request(three: GatewayProcess) -> None:
    resource = await created(three)
    answer = await request(three, "POST", f"/-/uploads/{upload_id(resource)}/give-up", body=b"")
    assert answer.status == 404


async def test_a_client_that_still_sends_learns_at_once_that_it_was_replaced(
    start_gateway: StartGateway,
) -> None:
    """A connection that ends while its client waits for a window would be reset a minute later only."""
    gateway = await start_gateway()
    resource = await created(gateway)
    async with raw_connection(gateway) as older:
        await older.send(hanging_append(resource, "detached", 0, HALF))
        await wait_received(gateway, upload_id(resource), len(HALF))
        assert await offset_of(gateway, resource) == len(HALF)
        connection = older.writer.get_extra_info("socket")
        closed = 7  # TCP_CLOSE: reset; it would be CLOSE_WAIT (8) after an orderly end
        await wait_until(
            lambda: connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == closed
        )
