"""What a route takes at most: requests at the same time, bytes of a body, seconds in all."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.server.app import Gateway
from tests.conftest import StartProcess
from tests.support.harness import (
    Addressed,
    RawConnection,
    RawResponse,
    curl,
    put,
    raw_connection,
    request_head,
    wait_until,
)
from tests.support.routing.proxying import answer_all, read_head, read_request, respond, upstream
from tests.support.routing.scripted import Serve, ask, route, write

pytestmark = pytest.mark.both_paths


class Hanging:
    """An upstream that answers nobody until `go` is set, and knows the heads of its requests."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.go = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _ = await read_request(reader)
            self.heads.append(head)
            await self.go.wait()
            writer.write(respond())

    async def wait(self, count: int) -> None:
        """Wait until it has got so many requests."""
        await wait_until(lambda: len(self.heads) >= count)


def leads(authority: str, path: str, more: str = "", script: str | None = None) -> str:
    return route(path, script, more).replace("[]", f"['{authority}']", 1)


@contextlib.asynccontextmanager
async def clients(
    server: Addressed, *numbers: int, path: str = "/r"
) -> AsyncIterator[list[RawConnection]]:
    """Let clients of addresses that end with `numbers` send a request each."""
    async with contextlib.AsyncExitStack() as stack:
        opened = []
        for number in numbers:
            client = await stack.enter_async_context(raw_connection(server, f"127.0.0.{number}"))
            await client.send(request_head("GET", path))
            opened.append(client)
        yield opened


async def one(server: Addressed, number: int, path: str = "/r") -> RawResponse:
    async with clients(server, number, path=path) as [client]:
        return await client.answer()


def refused(answer: RawResponse) -> str:
    assert int(answer.headers["Retry-After"]) > 0
    return f"{answer.status} {answer.json['error']}"


# -- limits.in_flight


async def test_a_route_at_its_limit_refuses_at_once_and_others_are_served(serve: Serve) -> None:
    hangs = Hanging()
    async with upstream(hangs) as bad, upstream(answer_all) as good:
        gateway = await serve(
            leads(bad.authority, "/r", "limits: {in_flight: 3}\n"),
            leads(bad.authority, "/same"),
            leads(good.authority, "/good"),
        )
        async with clients(gateway, 2, 3, 4) as held:
            await hangs.wait(3)
            assert refused(await one(gateway, 5)) == "503 overloaded"
            assert refused(await one(gateway, 2)) == "503 overloaded"
            assert (await one(gateway, 5, "/good")).status == 200
            assert (await put(gateway, "/upload/a.txt", b"x")).status == 201
            hangs.go.set()
            assert [(await client.answer()).status for client in held] == [200] * 3
            assert (await one(gateway, 5)).status == 200
    assert len(hangs.heads) == 4


async def test_one_client_has_half_of_what_a_route_takes(serve: Serve) -> None:
    hangs = Hanging()
    async with upstream(hangs) as bad:
        gateway = await serve(leads(bad.authority, "/r", "limits: {in_flight: 4}\n"))
        async with clients(gateway, 2, 2):
            await hangs.wait(2)
            assert refused(await one(gateway, 2)) == "429 too_many_requests"
            async with clients(gateway, 3, 4):
                await hangs.wait(4)
                assert refused(await one(gateway, 5)) == "503 overloaded"


async def test_a_client_that_leaves_and_a_response_that_is_cut_make_room(serve: Serve) -> None:
    begun = Counter[str]()

    async def serve_half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await read_head(reader)).decode()
        begun["all"] += 1
        if "/half" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhalf")
            await reader.read()
        if "/hang" in head:
            await reader.read()
        writer.write(respond(b"ok", "200 OK", "Connection: close"))

    async with upstream(serve_half) as up:
        more = "limits: {in_flight: 1}\ntarget: {path: '/{rest:path}'}\n"
        gateway = await serve(leads(up.authority, "/r/{rest:path}", more))
        for path in ("/r/half", "/r/hang"):
            for _ in range(2):
                before = begun.total()
                async with clients(gateway, 2, path=path) as [client]:
                    await wait_until(functools.partial(has_grown, begun, before))
                    client.reset()
                await wait_until(lambda: is_served(gateway, "/r/ok"))


def has_grown(counter: Counter[str], before: int) -> bool:
    return counter.total() > before


async def is_served(gateway: Gateway, path: str) -> bool:
    return (await one(gateway, 3, path)).status == 200


async def test_scripts_count_as_well(serve: Serve) -> None:
    hangs = Hanging()
    async with upstream(hangs) as bad:
        script = f"await callout('{bad.authority}', path='/')\nreturn 'x'"
        gateway = await serve(route("/r", script, "limits: {in_flight: 1}\n"))
        async with clients(gateway, 2) as [held]:
            await hangs.wait(1)
            assert refused(await one(gateway, 3)) == "503 overloaded"
            hangs.go.set()
            assert (await held.answer()).status == 200
        assert (await one(gateway, 3)).status == 200


@pytest.mark.slow
async def test_all_processes_count_together_and_one_that_is_killed_leaves_nothing(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    hangs = Hanging()
    script = "import os\nrequest.headers['X-Pid'] = str(os.getpid())"
    async with upstream(hangs) as bad:
        text = leads(bad.authority, "/r", "limits: {in_flight: 8}\n", script)
        pid = route("/pid", "import os\nreturn str(os.getpid())")
        gateway = gateway_process("--processes", "2", "--plugins", str(write(tmp_path / "p", text, pid)))
        async with clients(gateway, *range(2, 18)) as opened:
            await hangs.wait(8)
            answers = [asyncio.create_task(client.answer()) for client in opened]
            await wait_until(lambda: sum(answer.done() for answer in answers) == 8)
            assert {refused(answer.result()) for answer in answers if answer.done()} == {
                "503 overloaded"
            }
            pids = Counter(
                line for head in hangs.heads for line in head.split(b"\r\n") if b"X-Pid" in line
            )
            killed, count = pids.most_common(1)[0]
            os.kill(int(killed.split(b":")[1]), signal.SIGKILL)
            await wait_until(lambda: "serves again" in gateway.log())
            async with clients(gateway, *range(20, 20 + count)):
                await hangs.wait(8 + count)
                assert refused(await one(gateway, 60)) == "503 overloaded"
            for answer in answers:
                answer.cancel()
        assert len(hangs.heads) == 8 + count


# -- limits.body

BODY = "limits: {body: 10}\n"


async def test_a_declared_body_that_is_too_large_is_refused_before_it_is_sent(serve: Serve) -> None:
    async with upstream(answer_all) as up:
        gateway = await serve(leads(up.authority, "/r", BODY))
        async with raw_connection(gateway) as client:
            await client.send(request_head("PUT", "/r", "Content-Length: 11", "Expect: 100-continue"))
            answer = await client.answer()
        assert (answer.status, answer.json["error"]) == (413, "too_large")
        assert (await ask(gateway, "PUT", "/r", body=b"x" * 11)).status == 413
        assert up.received == []
        assert (await ask(gateway, "PUT", "/r", body=b"x" * 10)).status == 200


async def test_a_chunked_body_is_cut_off_at_the_upstream_where_it_becomes_too_large(
    serve: Serve,
) -> None:
    async with upstream(answer_all) as up:
        gateway = await serve(leads(up.authority, "/r", BODY))
        async with raw_connection(gateway) as client:
            await client.send(request_head("PUT", "/r", "Transfer-Encoding: chunked"))
            await client.send(b"6\r\n123456\r\n")
            await wait_until(lambda: b"123456" in b"".join(up.received))
            await client.send(b"5\r\n78901\r\n0\r\n\r\n")
            answer = await client.answer()
        assert (answer.status, answer.json["error"]) == (413, "too_large")
        await up.ended.wait()
        assert b"0\r\n\r\n" not in up.only
        assert b"78901" not in up.only
        async with raw_connection(gateway) as client:
            await client.send(request_head("PUT", "/r", "Transfer-Encoding: chunked"))
            await client.send(b"a\r\n1234567890\r\n0\r\n\r\n")
            assert (await client.answer()).status == 200


async def test_a_script_gets_no_larger_body_either(serve: Serve) -> None:
    gateway = await serve(route("/r", "return request.body", BODY))
    chunked = ("-H", "Transfer-Encoding: chunked", "--data-binary", "@-")
    for size, status in ((10, 200), (11, 413)):
        assert (await ask(gateway, "PUT", "/r", body=b"x" * size)).status == status
        answer = await curl("-X", "PUT", *chunked, f"{gateway.url}/r", stdin=b"x" * size)
        assert answer.status == status


# -- limits.total


async def test_the_time_in_all_covers_every_try(serve: Serve) -> None:
    asked = Counter[str]()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        asked["first"] += 1

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        asked["second"] += 1
        await reader.read()

    async with upstream(hang_up) as first, upstream(hang) as second:
        both = f"{first.authority}', '{second.authority}"
        gateway = await serve(leads(both, "/r", "limits: {total: 1.5, idle: 100}\n"))
        answer = await ask(gateway, "GET", "/r")
        assert (answer.status, answer.json["error"]) == (504, "gateway_timeout")
        assert answer.json["message"] == "the response did not end within 1.5 seconds in all"
        assert asked == {"first": 1, "second": 1}
        streamed = await curl(
            *("-X", "PUT", "-H", "Transfer-Encoding: chunked", "--data-binary", "@-"),
            f"{gateway.url}/r",
            stdin=b"x",
        )
        assert streamed.status in {502, 504}


async def test_a_response_that_lasts_longer_is_cut_so_that_it_never_looks_complete(serve: Serve) -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with upstream(trickle) as up:
        gateway = await serve(leads(up.authority, "/r", "limits: {total: 0.5, idle: 100}\n"))
        async with raw_connection(gateway) as client:
            await client.send(request_head("GET", "/r"))
            received = await client.closed()
        assert received.startswith(b"HTTP/1.1 200")
        assert b"0\r\n\r\n" not in received
        await up.ended.wait()


async def test_a_response_that_a_script_reads_ends_with_504(serve: Serve) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await reader.read()

    async with upstream(half) as up:
        text = route("/r", more="limits: {total: 0.3}\n", answers="return response.body")
        gateway = await serve(text.replace("[]", f"['{up.authority}']", 1))
        answer = await ask(gateway, "GET", "/r")
    assert (answer.status, answer.json["error"]) == (504, "gateway_timeout")
    assert "in all" in answer.json["message"]


async def test_a_client_that_sends_its_body_slowly_does_not_suspend_the_upstream(serve: Serve) -> None:
    async with upstream(answer_all) as up:
        more = "limits: {total: 0.3}\npassive: {failures: 1}\nhealth: {path: /, every: 3600}\n"
        gateway = await serve(leads(up.authority, "/r", more))
        for _ in range(3):
            async with raw_connection(gateway) as client:
                await client.send(request_head("PUT", "/r", "Content-Length: 10") + b"half")
                assert (await client.answer()).status == 504
        assert (await ask(gateway, "GET", "/r")).status == 200
