"""Small requests of plain routes, with the short path and without: the same bytes on both sides.

Ids, dates and ports aside. Each dialogue goes over one connection of a client.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.auth.tokens import token_digest
from gateway.endpoints.routing.proxy.proxy import Proxy
from gateway.endpoints.routing.short_path import short_forward
from gateway.endpoints.routing.short_path.short_forward import ShortForward
from gateway.http.short_request import Respond, ShortRequest
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import TIMEOUT, RawConnection, raw_connection, request_head, wait_until
from tests.support.ports import free_port
from tests.support.routing.proxying import (
    front,
    paths,
    read_head,
    read_request,
    respond,
    upstream,
)
from tests.support.routing.scripted import SPEC, route, write

OK = respond()
LONG = b"x" * (40 << 10)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
RICH = respond(
    b'{"a": 1}',
    "201 Made",
    "Server: nginx",
    "Date: Sat, 28 Nov 2026 22:00:00 GMT",
    "Set-Cookie: a=1",
    "Set-Cookie: b=2",
    "Content-Type: application/json",
    "X-Request-Id: theirs",
    "Via: 1.0 other",
    "Connection: X-Hop",
    "X-Hop: 1",
    "Keep-Alive: 5",
    'ETag: "\xe4"',
)
CORS = "cors: {origins: ['https://page.example']}\n"
RATE = "rate_limit: {count: 3, seconds: 3600}\n"
NORMAL = "spec: [{method: GET, schema: {response: {normal: {codes: [200]}}}}]\n"


def post(*lines: str, body: bytes = b"abc", target: str = "/r/a", method: str = "POST") -> bytes:
    return request_head(method, target, f"Content-Length: {len(body)}", *lines) + body


def get(*lines: str, target: str = "/r/a", method: str = "GET") -> bytes:
    return request_head(method, target, *lines)


def in_chunks(*sizes: int) -> bytes:
    chunks = b"".join(b"%x\r\n%s\r\n" % (size, b"x" * size) for size in sizes)
    return b"HTTP/1.1 200 OK\r\nDate: now\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


@dataclass(frozen=True)
class Dialogue:
    """Requests, and what the upstream answers in turn. `taken`: how many the short path takes."""

    requests: Sequence[bytes]
    answers: Sequence[bytes] = ()
    taken: int = 0
    more: str = ""
    auth: str = "none"


VALID = b'{"id": 1, "name": "a"}'
BEARER = "Authorization: Bearer T"

DIALOGUES = {
    "plain": Dialogue([get(), post(), get(), post()], taken=4),
    "the same again and again": Dialogue([post("X-A: 1")] * 4, [RICH] * 4, taken=4),
    "bodies of all lengths": Dialogue(
        [post("X-A: 1", body=b"x" * size) for size in (0, 1, 9, 10, 99, 4096, 64 << 10)], taken=7
    ),
    "answers of all lengths": Dialogue(
        [get("X-A: 1")] * 6, [respond(b"x" * size) for size in (0, 1, 9, 10, 4096, 32 << 10)], taken=6
    ),
    "other headers each time": Dialogue([get(f"X-A: {n}", f"Cookie: {n}") for n in range(4)], taken=4),
    "more headers, then fewer": Dialogue(
        [get(), get("X-A: 1"), get("X-A: 1", "X-B: 2"), get()], taken=4
    ),
    "other targets": Dialogue(
        [get(target=f"/r/{t}") for t in ("a", "b", "a?x=1&y", "a?", "b%20")], taken=5
    ),
    "other methods": Dialogue(
        [get(), post(), post(method="PUT"), get(method="DELETE"), get(method="PATCH")], taken=5
    ),
    "answers that differ": Dialogue(
        [get()] * 5, [OK, RICH, OK, respond(b"no", "404 Not Here"), RICH], taken=5
    ),
    "dates that differ": Dialogue(
        [get()] * 3, [respond(b"a", "200 OK", f"Date: {n}", "X: y") for n in range(3)], taken=3
    ),
    "a reason that is none": Dialogue(
        [get()] * 2, [respond(b"", "404 \xff"), respond(b"", "404")], taken=2
    ),
    "errors of the upstream": Dialogue(
        [get(), post()], [respond(b"no", "500 X"), respond(b"", "503 X")], taken=2
    ),
    "long answers": Dialogue([get(), get(), get()], [respond(LONG), OK, respond(LONG)], taken=3),
    "chunked answers of all lengths": Dialogue(
        [get()] * 5,
        [in_chunks(*sizes) for sizes in ((), (1,), (10, 20), (4096,) * 8, (33 << 10,))],
        taken=5,
    ),
    "a coded chunked answer": Dialogue(
        [get()], [CHUNKED.replace(b": chunked", b": gzip, chunked")], taken=1
    ),
    "chunked and declared answers": Dialogue([get()] * 4, [CHUNKED, OK, CHUNKED, OK], taken=4),
    "chunked answers": Dialogue([get(), post(), get()], [CHUNKED, CHUNKED, OK], taken=3),
    "no content": Dialogue(
        [get()] * 3,
        [b"HTTP/1.1 204 X\r\n\r\n", b'HTTP/1.1 304 X\r\nETag: "a"\r\nContent-Length: 9\r\n\r\n', OK],
        taken=3,
    ),
    "interim answers": Dialogue([get()], [b"HTTP/1.1 103 X\r\nLink: a\r\n\r\n" + OK], taken=1),
    "HEAD and OPTIONS": Dialogue([get(method="HEAD"), get(method="OPTIONS"), get()], taken=1),
    "credentials and origins of the client": Dialogue(
        [
            get(
                BEARER,
                "X-Forwarded-For: 6.6.6.6",
                "X-Real-IP: 6.6.6.6",
                "X-Gateway-Expires: 1",
                "X_User: a",
            )
        ]
        * 2,
        taken=2,
    ),
    "fields that Connection names": Dialogue(
        [get("Connection: X-Hop", "X-Hop: 1", "TE: trailers")] * 2, taken=2
    ),
    "bytes that are no text": Dialogue([get("Cookie: c=\xe4", "X-A: \xc3\xa4")] * 2, taken=2),
    "no answer": Dialogue([get(), post(), get()], [b"", b"", OK], taken=3),
    "an answer that is no HTTP": Dialogue([get()], [b"SSH-2.0\r\n\r\n"], taken=1),
    "an answer with a bad header": Dialogue(
        [post()], [b"HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 0\r\n\r\n"], taken=1
    ),
    "an unasked switch": Dialogue(
        [get()], [b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"], taken=1
    ),
    "no route": Dialogue([get(target="/none"), post(target="/none"), get()], taken=1),
    "another method": Dialogue([post(method="PATCH"), get()], taken=1, more="spec: [{method: GET}]\n"),
    "a method override": Dialogue(
        [get("X-HTTP-Method-Override: PUT"), get(target="/r/a?_method=PUT"), get()],
        taken=1,
        more="spec: [{method: GET}]\n",
    ),
    "dot segments": Dialogue([get(target="/r/%2e%2e"), get(target="/r/a%2Fb"), get()], taken=1),
    "a loop": Dialogue([get(f"Via: {'1.1 upload-gateway, ' * 11}")], taken=1),
    "expectations": Dialogue([post("Expect: 100-continue"), post("Expect: cake")]),
    "origins": Dialogue([get("Origin: https://page.example"), get()], more=CORS),
    "forms of other pages": Dialogue([post("Origin: https://evil.example", "Content-Type: text/plain")]),
    "rates": Dialogue([get(), get(), get(), get(), post()], [OK, RICH, CHUNKED], taken=5, more=RATE),
    "tokens": Dialogue([get(), get(BEARER), get(BEARER), get("X-Auth-Token: x")], auth="token", taken=2),
    "unexpected statuses": Dialogue([get(), get()], [OK, respond(b"", "404 X")], taken=2, more=NORMAL),
    "schemas": Dialogue(
        [
            post("X-Count: 1", body=body, method="PUT")
            for body in (
                VALID,
                b"{}",
                b"no",
                VALID.replace(b"1", b"2"),
                b"",
                b'{"id": 1, "id": 2, "name": "a"}',
            )
        ]
        + [
            post("X-Count: 0", body=VALID, method="PUT"),
            post(body=VALID, method="PUT"),
            post("X-Count: 1", "Content-Type: text/html", body=VALID, method="PUT"),
            post("X-Count: 1", "Content-Encoding: gzip", body=VALID, method="PUT"),
        ],
        taken=10,
        more=SPEC,
    ),
}


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[ShortForward]:
    """What the short path has taken."""
    results: list[ShortForward] = []
    really = ShortForward.start

    def start(self: ShortForward) -> None:
        results.append(self)
        really(self)

    monkeypatch.setattr(ShortForward, "start", start)
    return results


async def read_answer(client: RawConnection, method: bytes) -> bytes:
    """Return an answer as it came, with what came before it."""
    async with asyncio.timeout(TIMEOUT):
        head = await client.reader.readuntil(b"\r\n\r\n")
        status = head.split()[1]
        if status == b"100":
            return head + await read_answer(client, method)
        if method == b"HEAD" or status in {b"204", b"304"}:
            return head
        if b"\r\nTransfer-Encoding: chunked\r\n" in head:
            return head + await client.reader.readuntil(b"0\r\n\r\n")
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        return head + await client.reader.readexactly(int(length[1]) if length else 0)


async def talk(gateway: Gateway, requests: Sequence[bytes]) -> list[bytes]:
    """Send requests over one connection, or over a new one behind an answer that closes it."""
    answers = []
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(raw_connection(gateway))
        for request in requests:
            await client.send(request)
            answers.append(await read_answer(client, request.split()[0]))
            if b"\r\nConnection: close\r\n" in answers[-1]:
                assert await client.closed() == b""
                client = await stack.enter_async_context(raw_connection(gateway))
    return answers


def plain(data: bytes, authority: str) -> bytes:
    """Return bytes without what differs each time."""
    data = data.replace(authority.encode(), b"UPSTREAM")
    data = re.sub(rb"X-Request-Id: [0-9a-f]{16}\r", b"X-Request-Id: ID\r", data)
    data = re.sub(rb"Date: \w{3}, [^\r]*GMT\r", b"Date: DATE\r", data)
    return re.sub(rb"(Reset|Retry-After): \d+\r", rb"\1: SECONDS\r", data)


def proxy_of(gateway: Gateway) -> Proxy:
    return gateway.endpoints.dispatcher.routing._short.parts.proxy


def held(proxy: Proxy) -> int:
    """Return what requests hold of all shares."""
    return proxy._connections.used + proxy._routes.used


async def serve_dialogue(
    start_gateway: StartGateway, folder: Path, dialogue: Dialogue, short_path: bool
) -> tuple[list[bytes], list[bytes]]:
    """Return what the client and the upstream have received."""
    rest, seen = list(dialogue.answers), []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, body = await read_request(reader)
            seen.append(head + body)
            answer = rest.pop(0) if rest else OK
            if not answer:
                return
            writer.write(answer)
            await writer.drain()

    async with upstream(serve) as up:
        text = route("/r/{rest:path}", more=dialogue.more, auth=dialogue.auth)
        text = text.replace(
            "upstreams: []", f"upstreams: ['{up.authority}']\ntarget: {{path: '/t/{{rest}}'}}"
        )
        gateway = await start_gateway(
            directory=str(folder / "data"),
            plugins=[str(write(folder / "plugins", text))],
            auth="none",
            tokens=[f"me:{token_digest('T')}"],
            short_path=str(short_path).lower(),
        )
        answers = await talk(gateway, dialogue.requests)
        assert held(proxy_of(gateway)) == 0
        received, sent = ([plain(data, up.authority) for data in side] for side in (answers, seen))
        return received, sent


@pytest.mark.parametrize("dialogue", DIALOGUES.values(), ids=DIALOGUES)
async def test_client_and_upstream_get_the_same_bytes_on_both_paths(
    start_gateway: StartGateway, tmp_path: Path, taken: list[ShortForward], dialogue: Dialogue
) -> None:
    results = []
    for name, short_path in (("short", True), ("ordinary", False)):
        folder = tmp_path / name
        folder.mkdir()
        results.append(await serve_dialogue(start_gateway, folder, dialogue, short_path))
        assert len(taken) == dialogue.taken
    assert results[0] == results[1]


# -- answers that are slow, and clients that leave


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "short", True)


async def halves(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, go_on: asyncio.Event
) -> None:
    while True:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
        await go_on.wait()
        writer.write(b"half")


@pytest.mark.usefixtures("short")
async def test_the_rest_of_a_small_answer_is_awaited(
    monkeypatch: pytest.MonkeyPatch, taken: list[ShortForward]
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await halves(reader, writer, go_on)

    go_on = asyncio.Event()
    monkeypatch.setattr(short_forward, "BODY_TIMEOUT", 60.0)
    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(get())
        await wait_until(lambda: taken and taken[0]._response)
        go_on.set()
        assert (await client.answer()).body == b"halfhalf"
        await client.send(get())
        assert (await client.answer()).body == b"halfhalf"
        assert held(gate.proxy) == 0
    assert (len(taken), len(up.received)) == (2, 1)


@pytest.mark.usefixtures("short")
async def test_a_small_answer_that_stays_half_goes_out_as_far_as_it_is_here() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await halves(reader, writer, go_on)

    go_on = asyncio.Event()
    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(get())
        head = await client.reader.readuntil(b"half")
        assert b"Content-Length: 8" in head
        go_on.set()
        assert await client.reader.readexactly(4) == b"half"
        await client.send(post())
        assert (await client.answer()).body == b"halfhalf"
        await wait_until(lambda: not held(gate.proxy))
    assert (gate.taken, len(up.received)) == (2, 1)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("size", [8, 1 << 20], ids=["small", "large"])
async def test_an_answer_that_breaks_off_never_ends_cleanly(size: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\nhalf".encode())

    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(get())
        answer = await client.closed()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n") or not answer
        await wait_until(lambda: not held(gate.proxy))


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["nothing", "a head", "a small body", "a stream"],
)
async def test_a_client_that_leaves_ends_the_exchange_and_holds_nothing_more(
    monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(begun)
        asked.set()
        await reader.read()

    asked = asyncio.Event()
    monkeypatch.setattr(short_forward, "BODY_TIMEOUT", 60.0)
    async with upstream(serve) as up, front(up.authority) as gate:
        async with gate.raw() as client:
            await client.send(get())
            await asked.wait()
            await asyncio.sleep(0.05)  # what was begun is on its way
            client.reset()
        async with asyncio.timeout(TIMEOUT / 3):
            await up.ended.wait()
        await wait_until(lambda: not held(gate.proxy))
    assert gate.outcomes[-1] in {"client left", "200"}


@pytest.mark.usefixtures("short")
async def test_a_client_that_leaves_as_its_response_is_handed_over_ends_the_exchange_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hand_over = ShortRequest.hand_over

    def leave(request: ShortRequest, send: Respond) -> None:
        hand_over(request, send)
        assert request.connection.transport is not None
        request.connection.transport.abort()  # lost before the task of the request begins

    monkeypatch.setattr(ShortRequest, "hand_over", leave)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(respond(LONG))
        await reader.read()

    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(get())
        async with asyncio.timeout(TIMEOUT):
            await up.ended.wait()
        await wait_until(lambda: not held(gate.proxy))
    assert gate.outcomes == ["client left"]


@pytest.mark.usefixtures("short")
async def test_a_client_that_leaves_before_there_is_a_connection_ends_the_attempt() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1)
    fillers = []
    with listener:
        for _ in range(3):  # until nobody else gets in
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        async with front("{}:{}".format(*listener.getsockname())) as gate:
            async with gate.raw() as client:
                await client.send(post())
                await wait_until(lambda: gate.taken)
                client.reset()
            await wait_until(lambda: not held(gate.proxy))
            assert gate.outcomes == ["client left"]
    for filler in fillers:
        filler.close()


@pytest.mark.usefixtures("short")
async def test_requests_that_wait_behind_a_long_answer_are_answered_in_order() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _ = await read_request(reader)
            number = head.split()[1].rpartition(b"/")[2]
            writer.write(respond(number * (50_000 if number == b"0" else 1)))

    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(b"".join(get(target=f"/r/{number}") for number in "0123"))
        got = [(await client.answer()).body for _ in range(4)]
        await client.send(get(target="/r/0"))
        await client.send(get(target="/r/1"))
        got += [(await client.answer()).body for _ in range(2)]
    assert [body[:1] for body in got] == [b"0", b"1", b"2", b"3", b"0", b"1"]


@pytest.mark.usefixtures("short")
async def test_a_dead_upstream_beside_a_living_one_costs_no_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(OK)

    caplog.set_level(logging.WARNING, "gateway.routing")
    async with upstream(serve) as up, front(f"127.0.0.1:{free_port()}", up.authority) as gate:
        async with gate.raw() as client:
            for _ in range(4):
                await client.send(post())
                assert (await client.answer()).status == 200
        assert held(gate.proxy) == 0
    assert gate.taken == 4
    failures = [record for record in caplog.records if record.name == "gateway.routing"]
    assert [record.__dict__["event"] for record in failures] == ["upstream.failed"]
