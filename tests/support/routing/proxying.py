"""Proxy tests: a proxy on the project's own HTTP server, and scripted upstreams."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from aiohttp import web
from multidict import CIMultiDict

from gateway.auth.authenticator import Auth
from gateway.auth.request import IncomingRequest
from gateway.auth.trusted_proxies import Proxies
from gateway.endpoints.access_log import AccessLog, LoggedRequest
from gateway.endpoints.routing.model import Limits, RequestContext, Route
from gateway.endpoints.routing.proxy.proxy import Proxy
from gateway.endpoints.routing.scripts.steps import ScriptSteps
from gateway.endpoints.routing.short_path.short_route import ShortRoutes
from gateway.endpoints.routing.steps.in_flight import RouteCounters
from gateway.endpoints.routing.steps.route_steps import RouteSteps
from gateway.endpoints.routing.table import RouteTable
from gateway.endpoints.serving import ServingCount
from gateway.endpoints.short_path import ExchangeContext, ShortExchange, make_take
from gateway.errors import ClientDisconnected, Refusal
from gateway.http.protocol import abort, make_runner
from gateway.http.request_body import expects_continue
from gateway.http.responses import GatewayResponse, refusal_response
from gateway.limits import MinRate
from gateway.settings import Settings
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.redaction import Redaction
from gateway.telemetry.request_facts import RequestFacts
from tests.support.harness import TIMEOUT, RawConnection, raw_connection

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PATIENT = Limits(connect=5.0, idle=20.0)
Last = Callable[[RequestContext], Awaitable[GatewayResponse]]


@dataclass
class Paths:
    """Whether fronts have the short path."""

    short: bool = False


paths = Paths()


@dataclass
class Front:
    """A proxy behind the project's server: every path goes upstream as it came."""

    address: tuple[str, int]
    proxy: Proxy
    route: Route
    outcomes: list[str] = field(default_factory=list)
    """The codes of what was refused, `client left`, or the status."""
    taken: int = 0
    """How many requests the short path has taken."""

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self.address)

    def raw(self) -> AbstractAsyncContextManager[RawConnection]:
        return raw_connection(self)


def make_route(upstreams: Sequence[str], scheme: Literal["http", "https"], limits: Limits) -> Route:
    target = "/{rest:path}"
    return Route("test", "test:1", target, target, tuple(upstreams), scheme, "none", {}, limits=limits)


def make_exchange(request: web.BaseRequest, route: Route) -> RequestContext:
    incoming = IncomingRequest(request)
    rest = {"rest": incoming.raw_path.removeprefix("/")}
    return RequestContext(
        incoming=incoming,
        route=route,
        operation=None,
        resources=rest,
        raw_resources=rest,
        params={},
        headers=CIMultiDict(request.headers),
        remote=request.remote,
        awaits_continue=expects_continue(request),
    )


@contextlib.asynccontextmanager
async def front(
    *upstreams: str,
    scheme: Literal["http", "https"] = "http",
    limits: Limits = PATIENT,
    trusts: bool = False,
    last: Callable[[Proxy], Last] | None = None,
    **settings: Any,
) -> AsyncIterator[Front]:
    """Start a front for `upstreams`; `last` may answer in the proxy's stead, with its help.

    `settings` are more fields of its route.

    Whole small requests are served on the short path where `paths.short` says so.
    """
    proxy = Proxy(lambda _: trusts, Metrics().requests)
    await proxy.start()
    answer_with = proxy if last is None else last(proxy)
    route = replace(make_route(upstreams, scheme, limits), **settings)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        try:
            answer = await answer_with(make_exchange(request, route))
        except Refusal as refusal:
            gate.outcomes.append(refusal.code)
            answer = refusal_response(refusal)
        except ClientDisconnected:
            gate.outcomes.append("client left")
            abort(request)
            return web.Response(status=500)
        else:
            gate.outcomes.append(str(answer.status))
        await answer.send(request)
        return answer

    def offer(exchange: ShortExchange) -> bool:
        taken = short.take(exchange, table)
        gate.taken += taken
        return taken

    short, table = _short_routes(proxy), RouteTable([route])
    log = _OutcomeLog(lambda outcome: gate.outcomes.append(outcome))
    take = make_take(ExchangeContext(log, Redaction(), ServingCount(), Proxies(())), offer)
    runner = make_runner(handle, take=take if paths.short and last is None else None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    gate = Front((host, port), proxy, route)
    try:
        yield gate
    finally:
        await runner.cleanup()
        await proxy.close()


def _short_routes(proxy: Proxy) -> ShortRoutes:
    auth = Auth(Settings(auth="none"), ())
    scripts = ScriptSteps(_run_no_script, str, proxy.fetch_whole)
    steps = RouteSteps(auth, scripts, proxy, None, None, RouteCounters())
    return ShortRoutes(steps, proxy, auth.proxies, MinRate(0))


async def _run_no_script(*_: object) -> None:
    raise AssertionError("there is no script")


class _OutcomeLog(AccessLog):
    """Notes how requests of the short path end."""

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__(Metrics().requests, Proxies(()), Redaction())
        self._note = note

    def record(
        self,
        request: LoggedRequest,
        facts: RequestFacts,
        status: int | None,
        level: int = logging.INFO,
    ) -> None:
        self._note("client left" if status is None else str(status))


@dataclass
class Upstream:
    """A scripted server: what came over each connection, and whether it has ended."""

    authority: str
    received: list[bytearray] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def only(self) -> bytes:
        [received] = self.received
        return bytes(received)


@contextlib.asynccontextmanager
async def upstream(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    """Start a server whose connections are served by `serve`; what it reads is recorded."""
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        writers.append(writer)
        record = bytearray()
        recorded.received.append(record)
        try:
            await serve(_Recorded(reader, record), writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the callback of `start_server` (3.11) logs a cancelled one as an error
        finally:
            recorded.ended.set()
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    recorded = Upstream("{}:{}".format(*server.sockets[0].getsockname()[:2]))
    try:
        yield recorded
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()  # what its client does not read would keep it open
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def aiohttp_upstream(
    respond: Callable[[web.BaseRequest], Awaitable[web.Response]],
) -> AsyncIterator[str]:
    """Start a server of aiohttp; return its host and port."""
    runner = web.ServerRunner(web.Server(respond))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield "{}:{}".format(*runner.addresses[0][:2])
    await runner.cleanup()


class _Recorded(asyncio.StreamReader):
    """A reader that notes what is read."""

    def __init__(self, reader: asyncio.StreamReader, record: bytearray) -> None:
        self._inner = reader
        self._record = record

    async def readuntil(self, separator: Any = b"\n") -> bytes:
        return self._note(await self._inner.readuntil(separator))

    async def readexactly(self, n: int) -> bytes:
        return self._note(await self._inner.readexactly(n))

    async def read(self, n: int = -1) -> bytes:
        return self._note(await self._inner.read(n))

    def _note(self, data: bytes) -> bytes:
        self._record += data
        return data


async def read_head(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(TIMEOUT):
        return await reader.readuntil(b"\r\n\r\n")


def lines_of(head: bytes, name: str) -> list[str]:
    """Return the values of a field in a head, in order."""
    lines = [line.split(":", 1) for line in head.decode().split("\r\n")[1:] if ":" in line]
    return [value.strip() for key, value in lines if key.lower() == name.lower()]


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read one request by the strict reading of RFC 9112: the head, and the body without framing."""
    head = await read_head(reader)
    lengths, codings = lines_of(head, "Content-Length"), lines_of(head, "Transfer-Encoding")
    assert len(lengths) + len(codings) <= 1, head
    assert b"\n" not in head.replace(b"\r\n", b""), head
    assert b"\r" not in head.replace(b"\r\n", b""), head
    assert len(lines_of(head, "Host")) == 1, head
    if codings:
        assert codings == ["chunked"], head
        return head, await _read_chunked(reader)
    assert not lengths or lengths[0].isdecimal(), head
    return head, await reader.readexactly(int(lengths[0])) if lengths else b""


async def _read_chunked(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.strip().decode(), 16)
        body += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
        if size == 0:
            return bytes(body)


def respond(body: bytes = b"ok", status: str = "200 OK", *lines: str) -> bytes:
    """Return an answer with a declared length."""
    fields = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines, "", ""]
    return "\r\n".join(fields).encode() + body


async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer `ok` to every request, over and over."""
    while True:
        await read_request(reader)
        writer.write(respond())
        await writer.drain()
