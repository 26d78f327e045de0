"""The socket receive path stores and answers exactly what streaming does, byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import itertools
import logging
import random
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import uvloop
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.endpoints.inflight import Progress
from gateway.endpoints.uploads import body, socket_takeover
from gateway.endpoints.uploads.socket_takeover import DetachedSocket, detach_socket
from gateway.server.app import Gateway
from gateway.storage.local import incoming
from tests.conftest import StartGateway
from tests.support.harness import (
    RawConnection,
    curl,
    files_below,
    get,
    leftovers,
    put,
    raw_connection,
    request_head,
    self_signed_certificate,
)
from tests.support.recorders import write_handler

MIB = 1 << 20
BEHIND = request_head("PUT", "/upload/behind", "Content-Length: 2") + b"no"


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


async def on_socket_path(start_gateway: StartGateway, folder: Path, **values: object) -> Gateway:
    """Start a gateway that takes every connection it can."""
    gateway = await start_gateway(directory=str(folder), **values)
    assert gateway.endpoints.body_receiver.socket_path
    gateway.endpoints.body_receiver.min_detach_bytes = 1
    return gateway


async def ended(gateway: Gateway) -> None:
    """Wait until no upload is on its way."""
    async with asyncio.timeout(20):
        while len(gateway.endpoints.inflight):
            await asyncio.sleep(0.001)  # nothing public tells


async def begin(connection: RawConnection, size: int, *lines: str, name: str = "x") -> None:
    """Ask to upload, and wait to be let in."""
    await connection.send(
        request_head("PUT", f"/upload/{name}", f"Content-Length: {size}", "Expect: 100-continue", *lines)
    )
    assert await connection.line() == b"HTTP/1.1 100 Continue\r\n"
    assert await connection.line() == b"\r\n"


@pytest.fixture(params=["plain", "tls"])
def scheme(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The settings of a gateway without and with TLS."""
    if request.param == "plain":
        return {}
    return dict(zip(("tls_cert", "tls_key"), self_signed_certificate(tmp_path), strict=True))


# -- both receive paths


@dataclass(frozen=True)
class Plan:
    """How a client behaves. `leaves` is where and how it goes before its body is complete."""

    size: int
    cuts: tuple[float, ...] = ()
    expect: bool = False
    kept_alive: bool = False
    pipelined: bool = False
    digest: str = ""
    leaves: tuple[float, str] | None = None
    seed: int = 1

    @property
    def lines(self) -> list[str]:
        right = hashlib.sha256(content(self.size, self.seed)).digest()
        value = {"right": right, "wrong": bytes(32)}.get(self.digest)
        lines = [f"Content-Length: {self.size}"]
        lines += ["Expect: 100-continue"] if self.expect else []
        lines += [f"Content-Digest: sha-256=:{b64encode(value).decode()}:"] if value else []
        return lines


@dataclass
class Outcome:
    status: int | None
    story: dict[str, Any]
    stored: dict[str, bytes]
    left: list[str]
    error: str | None
    connection: str | None


NUMBERS = itertools.count()

PLANS = st.builds(
    Plan,
    size=st.integers(70_000, 400_000) | st.sampled_from([65_537, 131_072, 262_144, 262_145, 1_600_000]),
    cuts=st.lists(st.floats(0, 1), max_size=6).map(lambda cuts: tuple(sorted(cuts))),
    expect=st.booleans(),
    kept_alive=st.booleans(),
    pipelined=st.booleans(),
    digest=st.sampled_from(["", "", "right", "wrong"]),
    leaves=st.none()
    | st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from(["close", "reset", "half"])),
    seed=st.integers(0, 99),
)


async def send_in_pieces(connection: RawConnection, data: bytes, cuts: tuple[float, ...]) -> None:
    marks = [0, *(int(cut * len(data)) for cut in cuts), len(data)]
    for first, last in pairwise(marks):
        if last > first:
            await connection.send(data[first:last])
            await asyncio.sleep(0)


async def perform(gateway: Gateway, plan: Plan) -> Outcome:
    """Behave as planned; say what came of it, and clear up."""
    folder = gateway.resources.settings.directory
    body = content(plan.size, plan.seed)
    status, story, how = None, {}, None
    number = str(next(NUMBERS))  # an upload whose client has left may end when the next one runs
    errors: list[str] = []
    end = gateway.endpoints.inflight.end_failed

    def note(progress: Progress, error: str, refusal: dict[str, Any] | None = None) -> None:
        if progress.upload.params.get("number") == [number]:
            errors.append(error)
        end(progress, error, refusal)

    with mock.patch.object(gateway.endpoints.inflight, "end_failed", note):
        async with raw_connection(gateway) as connection:
            if plan.kept_alive:
                await connection.send(request_head("PUT", "/upload/first", "Content-Length: 3") + b"abc")
                assert (await connection.answer()).status in {200, 201}
            await connection.send(request_head("PUT", f"/upload/x?number={number}", *plan.lines))
            if plan.expect:
                assert b"100" in await connection.line() + await connection.line()
            if plan.leaves is not None:
                offset, way = plan.leaves
                await send_in_pieces(connection, body[: int(offset * plan.size)], plan.cuts)
                await leave(connection, way)
            else:
                await send_in_pieces(connection, body + BEHIND * plan.pipelined, plan.cuts)
                answer = await connection.answer()
                status, story, how = answer.status, answer.json, answer.headers.get("Connection")
                assert len(story.pop("upload_id")) > 20
                story.pop("url", None)  # with the port of this gateway
                if how == "close":
                    assert await connection.closed() == b""
        await ended(gateway)
    outcome = Outcome(
        status, story, files_below(folder / "upload"), leftovers(folder), "".join(errors), how
    )
    for path in (folder / "upload").glob("*"):
        path.unlink()
    return outcome


async def leave(connection: RawConnection, way: str) -> None:
    if way == "reset":
        connection.reset()
    elif way == "half" and connection.writer.can_write_eof():
        connection.writer.write_eof()
        assert await connection.closed() == b""
    else:
        connection.writer.close()


async def test_both_receive_paths_store_answer_and_refuse_alike(
    start_gateway: StartGateway, tmp_path: Path, scheme: dict[str, str]
) -> None:
    on_socket = await on_socket_path(start_gateway, tmp_path / "socket", durability="none", **scheme)
    streaming = await start_gateway(directory=str(tmp_path / "streamed"), durability="none", **scheme)
    streaming.endpoints.body_receiver.socket_path = False
    for folder in ("socket", "streamed"):
        (tmp_path / folder / "upload").mkdir()
    loop = asyncio.get_running_loop()

    async def compare(plan: Plan) -> None:
        expected, found = await perform(streaming, plan), await perform(on_socket, plan)
        assert expected.stored.pop("behind", b"no") == b"no"
        if plan.expect and found.connection is not None:
            assert found.connection == "close"  # its socket was detached,
            assert "behind" not in found.stored  # where nothing behind the body is served
        found.stored.pop("behind", None)
        found.connection = expected.connection
        if plan.leaves is not None and "" in {found.error, expected.error}:
            found.error = expected.error  # gone before its upload had begun: there was none to fail
        assert found == expected
        whole = plan.leaves is None and plan.digest != "wrong"
        assert (found.stored.get("x") == content(plan.size, plan.seed)) == whole
        assert found.left == []

    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
    @given(plan=PLANS)
    @example(plan=Plan(1_600_000, pipelined=True))
    @example(plan=Plan(1_600_000, (0.5, 0.9), expect=True, pipelined=True, digest="right"))
    @example(plan=Plan(1_600_000, kept_alive=True, leaves=(0.9, "half")))
    @example(plan=Plan(1_600_000, expect=True, digest="wrong"))
    def explore(plan: Plan) -> None:
        asyncio.run_coroutine_threadsafe(compare(plan), loop).result(60)

    await asyncio.to_thread(explore)


@pytest.mark.parametrize("socket_path", [True, False], ids=["socket", "streamed"])
async def test_a_handlers_limit_refuses_before_the_body(
    start_gateway: StartGateway, tmp_path: Path, *, socket_path: bool
) -> None:
    plugins = write_handler(tmp_path / "plugins", "event['max_bytes'] = 99_999")
    gateway = await on_socket_path(start_gateway, tmp_path / "data", plugins=plugins, auth="none")
    gateway.endpoints.body_receiver.socket_path = socket_path
    answer = await put(gateway, "/upload/x", b"z" * 100_000)
    assert (answer.status, answer.json["error"]) == (413, "too_large")
    assert (await put(gateway, "/upload/x", b"z" * 99_999)).status == 201


# -- what the connection goes through


async def test_a_body_below_the_threshold_leaves_the_connection_open(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        for _ in range(2):
            await begin(connection, 500_000)
            await connection.send(b"z" * 500_000)
            answer = await connection.answer()
            assert answer.status in {200, 201}
            assert "Connection" not in answer.headers


async def test_a_large_body_is_received_from_its_socket_by_default(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    answer = await put(gateway, "/upload/x", b"z" * 16 * MIB)
    assert (answer.status, answer.headers["Connection"]) == (201, "close")


async def test_a_large_body_over_https_is_received_past_the_parser(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    cert, key = self_signed_certificate(tmp_path)
    gateway = await start_gateway(directory=str(tmp_path / "data"), tls_cert=cert, tls_key=key)
    for size, closes in ((2 * MIB, False), (16 * MIB, True)):
        source = tmp_path / "source"
        source.write_bytes(content(size))
        result = await curl("-k", "-i", "-T", str(source), f"{gateway.url}/upload/{size}")
        assert result.status == 201
        assert ("connection: close" in result.body.lower()) == closes
        assert files_below(tmp_path / "data/upload")[str(size)] == content(size)


async def test_a_chunked_body_is_streamed(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await on_socket_path(start_gateway, tmp_path / "data")
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", "/upload/x", "Transfer-Encoding: chunked"))
        await connection.send(b"%x\r\n%s\r\n0\r\n\r\n" % (2 * MIB, b"z" * 2 * MIB))
        answer = await connection.answer()
    assert answer.status == 201
    assert "Connection" not in answer.headers


async def test_an_answer_is_not_lost_to_what_lies_behind_the_body(
    start_gateway: StartGateway, tmp_path: Path, scheme: dict[str, str]
) -> None:
    gateway = await on_socket_path(start_gateway, tmp_path / "data", **scheme)
    body = content(2 * MIB)
    for _ in range(10):
        async with raw_connection(gateway) as connection:
            await begin(connection, len(body))
            connection.writer.write(body + BEHIND * 20_000)
            answer = await connection.answer()
            assert answer.status in {200, 201}
            assert await connection.closed() == b""
    assert files_below(tmp_path / "data/upload") == {"x": body}


async def test_a_client_that_has_said_all_may_close_its_side_before_the_answer(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await on_socket_path(start_gateway, tmp_path / "data")
    async with raw_connection(gateway) as connection:
        await begin(connection, MIB)
        await connection.send(b"z" * MIB)
        connection.writer.write_eof()
        assert (await connection.answer()).status == 201


async def test_a_slow_client_is_not_idle_and_a_silent_one_is(
    start_gateway: StartGateway, tmp_path: Path, scheme: dict[str, str]
) -> None:
    gateway = await on_socket_path(start_gateway, tmp_path / "data", idle_timeout="1", **scheme)
    for _ in range(10):  # anew where it was this machine that was silent
        longest = 0.0
        async with raw_connection(gateway) as connection:
            await begin(connection, 100_000)
            for _ in range(6):
                before = time.monotonic()
                with contextlib.suppress(ConnectionError):
                    await connection.send(b"z")
                await asyncio.sleep(0.25)  # together longer than the time-out
                longest = max(longest, time.monotonic() - before)
            answer = await connection.answer()
            assert (answer.status, answer.json["error"]) == (408, "idle_timeout")
            assert await connection.closed() == b""
        *_, ended_so = gateway.endpoints.inflight._failed.values()
        if longest < 0.6:
            break
    assert ended_so["bytes"] == 6
    assert leftovers(tmp_path / "data") == []


async def test_progress_is_told_while_the_body_comes(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await on_socket_path(start_gateway, tmp_path / "data")
    async with raw_connection(gateway) as connection:
        await begin(connection, 2 * MIB)
        await connection.send(b"z" * MIB)
        (progress,) = gateway.endpoints.inflight._active.values()
        while (received := progress.describe()["bytes"]) < MIB:
            await asyncio.sleep(0.001)
        await connection.send(b"z" * MIB)
        assert (await connection.answer()).json["bytes"] == 2 * MIB
    assert received == MIB


async def test_a_disk_that_fills_up_in_the_middle_is_told_to_a_client_that_still_sends(
    start_gateway: StartGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheme: dict[str, str],
) -> None:
    gateway = await on_socket_path(start_gateway, tmp_path / "data", **scheme)
    real, writes = incoming.write_all, 0

    def full(fd: int, pieces: Sequence[bytes | memoryview]) -> int:
        nonlocal writes
        writes += 1
        if writes == 3:
            raise OSError(errno.ENOSPC, "no space left")
        return real(fd, pieces)

    monkeypatch.setattr(incoming, "write_all", full)
    answer = await put(gateway, "/upload/x", b"z" * 8 * MIB)
    assert (answer.status, answer.json["error"]) == (507, "no_space")
    assert leftovers(tmp_path / "data") == []
    assert files_below(tmp_path / "data/upload") == {}
    assert gateway.resources.base.disk.space.reserved == 0
    assert (await put(gateway, "/upload/x", b"z" * 8 * MIB)).status == 201


async def test_a_stop_that_does_not_wait_leaves_nothing_of_a_body(
    start_gateway: StartGateway, tmp_path: Path, scheme: dict[str, str]
) -> None:
    gateway = await on_socket_path(start_gateway, tmp_path / "data", **scheme)
    async with raw_connection(gateway) as connection:
        await begin(connection, MIB)
        await connection.send(b"z" * 1000)
        (progress,) = gateway.endpoints.inflight._active.values()
        while not progress.received:
            await asyncio.sleep(0.001)
        for server in gateway.servers:
            await server.cleanup()
        assert await connection.closed() == b""
    await ended(gateway)
    assert progress.error == "stopping"
    assert leftovers(tmp_path / "data") == []


# -- threads


async def test_clients_that_send_nothing_now_hold_no_thread(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await on_socket_path(start_gateway, tmp_path / "data")
    async with contextlib.AsyncExitStack() as stack:
        for number in range(200):
            connection = await stack.enter_async_context(raw_connection(gateway))
            await begin(connection, MIB, name=str(number))
            await connection.send(b"z" * 10)
        waiting = gateway.endpoints.inflight._active.values()
        while any(progress.received < 10 for progress in waiting):
            await asyncio.sleep(0.001)
        threads = body.MAX_THREADS
        all_free = threading.Barrier(threads)
        executor = gateway.endpoints.body_receiver.executor
        waits = [executor.submit(all_free.wait, 20) for _ in range(threads)]
        await asyncio.gather(*map(asyncio.wrap_future, waits))
    await ended(gateway)


async def test_a_fast_client_does_not_starve_another_of_the_only_thread(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The thread would sooner wait for the fast client than let go: only its turn's end moves it.
    monkeypatch.setattr(body, "POLL_TIMEOUT", 20.0)
    gateway = await on_socket_path(start_gateway, tmp_path / "data", durability="none")
    gateway.endpoints.body_receiver.executor.shutdown()
    gateway.endpoints.body_receiver.executor = ThreadPoolExecutor(1)
    served = asyncio.Event()

    async def send_until_served(connection: RawConnection) -> None:
        while not served.is_set():
            await connection.send(b"z" * MIB)

    async with raw_connection(gateway) as greedy:
        await begin(greedy, 8 << 30, name="greedy")
        sending = asyncio.create_task(send_until_served(greedy))
        assert (await put(gateway, "/upload/modest", content(4 * MIB))).status == 201
        assert not sending.done()
        served.set()
        await sending
    await ended(gateway)


# -- the self-test


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_self_test_passes_on_both_event_loops(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(socket_takeover.socket_path_works())


async def test_a_failed_self_test_is_logged_and_all_uploads_are_streamed(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:

    def losing(*arguments: Any) -> DetachedSocket | None:
        taken = detach_socket(*arguments)
        assert taken is not None
        taken.parsed[:] = [piece[:-1] + b"?" for piece in taken.parsed]
        return taken

    monkeypatch.setattr(socket_takeover, "detach_socket", losing)
    with caplog.at_level(logging.WARNING, "gateway.uploads"):
        gateway = await start_gateway()
    (line,) = [record.getMessage() for record in caplog.records if "streamed" in record.getMessage()]
    assert "through the event loop" in line
    assert not gateway.endpoints.body_receiver.socket_path
    answer = await put(gateway, "/upload/x", b"z" * 16 * MIB)
    assert answer.status == 201
    assert "Connection" not in answer.headers
    assert (await get(gateway, "/-/ready")).status == 200
