"""Bodies that do not come to their proper end leave nothing behind, and are told of exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.commit import disk
from gateway.domain.model import UPLOAD_FAILED, UPLOADED
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import (
    RawConnection,
    RawResponse,
    files_below,
    get,
    leftovers,
    put,
    raw_connection,
    request_head,
)
from tests.support.recorders import EventRecorder, write_handler

pytestmark = pytest.mark.both_paths

SIZES = {"small": 10_000, "large": 3_000_000}
"""Below and above what is kept in memory."""

LENGTH = "Content-Length: {size}"
CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture
async def gateway(
    start_gateway: StartGateway, tmp_path: Path, recorder: EventRecorder, request: pytest.FixtureRequest
) -> Gateway:
    """A gateway whose handlers tell of every end, with a file there already."""
    seconds = getattr(request, "param", "60")
    gateway = await start_gateway(plugins=plugins(tmp_path, recorder), idle_timeout=seconds)
    (tmp_path / "data/upload").mkdir()
    (tmp_path / "data/upload/x").write_bytes(b"before")
    return gateway


def plugins(tmp_path: Path, recorder: EventRecorder) -> list[str]:
    recorder.write_handler(tmp_path / "plugins", UPLOAD_FAILED, "failed")
    return recorder.write_handler(tmp_path / "plugins", UPLOADED, "uploaded")


async def nothing_is_left(
    gateway: Gateway, recorder: EventRecorder, tmp_path: Path, reason: str, before: bytes = b"before"
) -> dict[str, Any]:
    """Check that a failed upload left no trace but one event; return that event."""
    name, event = await recorder.next_event()
    assert (name, event["reason"]) == ("failed", reason)
    story = (await get(gateway, f"/-/uploads/{event['upload_id']}")).json
    assert (story["state"], story["error"]) == ("failed", reason)
    assert leftovers(tmp_path / "data") == []

    assert (await put(gateway, "/upload/next", b"goes on")).status == 201
    name, following = await recorder.next_event()
    assert (name, following["path"]) == ("uploaded", "/upload/next")
    assert recorder.is_empty()
    rows = (await get(gateway, "/-/events")).json["deliveries"]
    assert [row["upload_id"] for row in rows] == [following["upload_id"]]
    assert files_below(tmp_path / "data/upload") == {"next": b"goes on", "x": before}
    return event


# -- the client goes


async def _close(connection: RawConnection) -> None:
    connection.writer.close()


async def _reset(connection: RawConnection) -> None:
    connection.reset()


async def _half_close(connection: RawConnection) -> None:
    connection.writer.write_eof()
    answer = await connection.closed()
    assert not answer.startswith(b"HTTP/1.1 2")


Leave = Callable[[RawConnection], Awaitable[None]]

PIECES = {
    "declared length": (LENGTH, lambda half: half),
    "between chunks": (CHUNKED, lambda half: b"%x\r\n%s\r\n" % (len(half), half)),
    "inside a chunk": (CHUNKED, lambda half: b"%x\r\n%s" % (2 * len(half), half)),
    "inside a chunk size": (CHUNKED, lambda half: b"%x\r\n%s\r\n1" % (len(half), half)),
    "before the end of the last chunk": (CHUNKED, lambda half: b"%x\r\n%s\r\n0\r\n" % (len(half), half)),
}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("leave", [_close, _reset, _half_close])
@pytest.mark.parametrize(("line", "piece"), PIECES.values(), ids=PIECES.keys())
async def test_a_client_that_goes_in_the_middle_leaves_nothing(
    gateway: Gateway,
    recorder: EventRecorder,
    tmp_path: Path,
    line: str,
    piece: Callable[[bytes], bytes],
    leave: Leave,
    size: int,
) -> None:
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", "/upload/x", line.format(size=size)))
        await connection.send(piece(b"x" * (size // 2)))
        await leave(connection)
        event = await nothing_is_left(gateway, recorder, tmp_path, "connection_lost")
    assert event["path"] == "/upload/x"
    assert event["bytes"] <= size // 2


@pytest.mark.parametrize("leave", [_close, _reset])
async def test_a_client_that_goes_instead_of_sending_its_body_leaves_nothing(
    gateway: Gateway, recorder: EventRecorder, tmp_path: Path, leave: Leave
) -> None:
    async with raw_connection(gateway) as connection:
        await connection.send(
            request_head("PUT", "/upload/x", "Content-Length: 9", "Expect: 100-continue")
        )
        assert await connection.line() == b"HTTP/1.1 100 Continue\r\n"
        await leave(connection)
        event = await nothing_is_left(gateway, recorder, tmp_path, "connection_lost")
    assert event["bytes"] == 0


@pytest.mark.parametrize("expect", [(), ("Expect: 100-continue",)])
@pytest.mark.parametrize("leave", [_close, _reset])
async def test_a_client_that_goes_while_a_handler_decides_leaves_nothing(
    start_gateway: StartGateway,
    recorder: EventRecorder,
    tmp_path: Path,
    leave: Leave,
    expect: tuple[str, ...],
) -> None:
    folder = write_handler(
        tmp_path / "slow", "if event['path'] == '/upload/x': await asyncio.sleep(0.1)"
    )
    gateway = await start_gateway(plugins=[*folder, *plugins(tmp_path, recorder)])
    (tmp_path / "data/upload").mkdir()
    (tmp_path / "data/upload/x").write_bytes(b"before")
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", "/upload/x", "Content-Length: 9", *expect))
        await leave(connection)
        await nothing_is_left(gateway, recorder, tmp_path, "connection_lost")


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
async def test_a_client_that_goes_after_its_last_byte_gets_all_or_nothing(
    gateway: Gateway, recorder: EventRecorder, tmp_path: Path, size: int
) -> None:
    for number in range(10):
        body = bytes([number]) * size
        target = f"/upload/{number}"
        async with raw_connection(gateway) as connection:
            await connection.send(request_head("PUT", target, f"Content-Length: {size}") + body)
            connection.reset()
            name, event = await recorder.next_event()
        stored = files_below(tmp_path / "data/upload").get(str(number))
        assert event["path"] == target
        assert stored == (body if name == "uploaded" else None)
        assert leftovers(tmp_path / "data") == []
    assert recorder.is_empty()


# -- the client stays, and is told


async def refused(gateway: Gateway, line: str, body: bytes) -> RawResponse:
    """Start an upload of /upload/x, send `body`, wait for the answer and the connection's end."""
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", "/upload/x", line, "Expect: 100-continue"))
        assert await connection.line() == b"HTTP/1.1 100 Continue\r\n"
        await connection.line()
        await connection.send(body)
        answer = await connection.answer()
        assert answer.headers["Connection"] == "close"
        assert await connection.closed() == b""
        return answer


MALFORMED = {
    "a size that is no number": b"zz\r\n",
    "a negative size": b"-5\r\nhello\r\n",
    "a chunk longer than its size": b"3\r\nhello\r\n0\r\n\r\n",
    "a bare line feed": b"3\nabc\n0\n\n",
    "a size beyond all bounds": b"fffffffffffffffff\r\nhello\r\n",
}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("end", MALFORMED.values(), ids=MALFORMED.keys())
async def test_malformed_chunks_are_refused(
    gateway: Gateway, recorder: EventRecorder, tmp_path: Path, end: bytes, size: int
) -> None:
    body = b"%x\r\n%s\r\n%s" % (size, b"x" * size, end)
    answer = await refused(gateway, CHUNKED, body)
    assert (answer.status, answer.json["error"]) == (400, "incomplete_body")
    event = await nothing_is_left(gateway, recorder, tmp_path, "incomplete_body")
    assert event["upload_id"] == answer.json["upload_id"]


@pytest.mark.parametrize("gateway", ["0.3"], indirect=True)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("line", [LENGTH, CHUNKED])
async def test_a_body_that_stalls_is_told_that_it_took_too_long(
    gateway: Gateway, recorder: EventRecorder, tmp_path: Path, line: str, size: int
) -> None:
    half = b"x" * (size // 2)
    piece = half if line == LENGTH else b"%x\r\n%s\r\n" % (len(half), half)
    answer = await refused(gateway, line.format(size=size), piece)
    assert (answer.status, answer.json["error"]) == (408, "idle_timeout")
    await nothing_is_left(gateway, recorder, tmp_path, "idle_timeout")


@pytest.mark.parametrize("detach", [False, True], ids=["on the loop", "in a thread"])
async def test_an_upload_whose_space_others_take_meanwhile_is_refused(
    gateway: Gateway,
    recorder: EventRecorder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    detach: bool,
) -> None:
    receiver = gateway.endpoints.body_receiver
    receiver.socket_path, receiver.min_detach_bytes = detach, 1
    monkeypatch.setattr(disk, "MAX_RESERVED_BYTES", 1 << 20)
    free, enough = gateway.resources.settings.min_free_bytes, 100 << 20
    monkeypatch.setattr(disk, "_free_bytes", lambda _: free + enough)
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", "/upload/x", LENGTH.format(size=50 << 20)))
        await connection.send(b"x" * (3 << 20))
        while not (progress := [*gateway.endpoints.inflight._active.values()]) or (
            progress[0].describe()["bytes"] < 2 << 20
        ):
            await asyncio.sleep(0.001)  # nothing else tells that it was admitted
        enough = 0
        assert (await get(gateway, "/-/ready")).status == 503
        sending = asyncio.ensure_future(connection.send(b"x" * (20 << 20)))
        answer = await connection.answer()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert (answer.status, answer.json["error"]) == (507, "no_space")
    enough = 100 << 20
    await nothing_is_left(gateway, recorder, tmp_path, "no_space")
    assert gateway.resources.base.disk.space.reserved == 0


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
async def test_a_wrong_digest_is_told_to_the_handlers_too(
    gateway: Gateway, recorder: EventRecorder, tmp_path: Path, size: int
) -> None:
    md5 = "Content-MD5: AAAAAAAAAAAAAAAAAAAAAA=="
    answer = await put(gateway, "/upload/x", b"x" * size, md5)
    assert (answer.status, answer.json["error"]) == (400, "digest_mismatch")
    await nothing_is_left(gateway, recorder, tmp_path, "digest_mismatch")


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
async def test_the_limit_that_a_handler_sets_holds_for_chunks_too(
    start_gateway: StartGateway, recorder: EventRecorder, tmp_path: Path, size: int
) -> None:
    script = f"event['max_bytes'] = {size - 1}"
    folders = write_handler(tmp_path / "plugins", script)
    gateway = await start_gateway(
        plugins=[*folders, *plugins(tmp_path / "more", recorder)], max_bytes="9999999"
    )
    (tmp_path / "data/upload").mkdir()
    (tmp_path / "data/upload/x").write_bytes(b"before")

    body = b"%x\r\n%s\r\n0\r\n\r\n" % (size, b"x" * size)
    answer = await refused(gateway, CHUNKED, body)
    assert (answer.status, answer.json["error"]) == (413, "too_large")
    event = await nothing_is_left(gateway, recorder, tmp_path, "too_large")
    assert event["reason"] == "too_large"

    declared = await put(gateway, "/upload/x", b"x" * size)
    assert (declared.status, recorder.is_empty()) == (413, True)


async def test_a_refused_upload_is_no_failed_upload(gateway: Gateway, recorder: EventRecorder) -> None:
    assert (await put(gateway, "/upload/..", b"1")).status == 400
    assert (await put(gateway, "/upload/next", b"1")).status == 201
    assert (await recorder.next_event())[0] == "uploaded"
    assert recorder.is_empty()
