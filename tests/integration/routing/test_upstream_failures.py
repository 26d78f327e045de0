"""Upstreams that hang, hang up or cannot be reached, beside one that works: who is asked, how often."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from gateway.endpoints.routing.model import Limits
from gateway.endpoints.routing.rules import DEFAULT_PASSIVE, PassiveHealth
from tests.support.harness import curl, request_head, self_signed_certificate
from tests.support.ports import free_port
from tests.support.routing.api import api
from tests.support.routing.proxying import (
    Front,
    Serve,
    Upstream,
    answer_all,
    front,
    read_head,
    read_request,
    respond,
    upstream,
)

pytestmark = pytest.mark.both_paths

HASTY = Limits(connect=100.0, idle=0.2)


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    await reader.read()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)


async def who(request: web.Request) -> web.Response:
    return web.Response(text="good")


@contextlib.asynccontextmanager
async def beside_a_good_one(serve: object) -> AsyncIterator[tuple[Front, Upstream, list[web.Request]]]:
    async with (
        upstream(serve) as bad,  # type: ignore[arg-type]  # `hang` or `hang_up`
        api(who) as good,
        front(bad.authority, good.authority, limits=HASTY) as gate,
    ):
        yield gate, bad, good.asked


async def ask(gate: Front, method: str = "GET", body: bytes = b"") -> int:
    lines = (f"Content-Length: {len(body)}",) if body else ()
    async with gate.raw() as client:
        await client.send(request_head(method, "/", *lines) + body)
        return (await client.answer(head=method == "HEAD")).status


@pytest.mark.parametrize("bad_serves", [hang, hang_up])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
async def test_a_request_that_does_no_harm_twice_goes_on_to_the_next_upstream(
    bad_serves: object, method: str
) -> None:
    async with beside_a_good_one(bad_serves) as (gate, bad, asked):
        assert [await ask(gate, method) for _ in range(8)] == [200] * 8
    assert len(bad.received) == DEFAULT_PASSIVE.failures  # then it is suspended
    assert len(asked) == 8


@pytest.mark.parametrize(("bad_serves", "status"), [(hang, 504), (hang_up, 502)])
@pytest.mark.parametrize(("method", "body"), [("POST", b""), ("POST", b"x"), ("GET", b"x")])
async def test_any_other_request_is_sent_once_and_fails_only_until_the_upstream_is_suspended(
    bad_serves: object, status: int, method: str, body: bytes
) -> None:
    async with beside_a_good_one(bad_serves) as (gate, bad, asked):
        got = [await ask(gate, method, body) for _ in range(10)]
    assert got[: 2 * DEFAULT_PASSIVE.failures] == [status, 200] * DEFAULT_PASSIVE.failures
    assert got[2 * DEFAULT_PASSIVE.failures :] == [200] * 4
    assert (len(bad.received), len(asked)) == (DEFAULT_PASSIVE.failures, 10 - DEFAULT_PASSIVE.failures)


async def test_bodies_that_an_upstream_cuts_off_do_not_suspend_it() -> None:
    async def cut_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.transport.abort()

    async def send_half(gate: Front) -> int:
        async with gate.raw() as client:
            await client.send(request_head("PUT", "/", "Content-Length: 100") + b"half")
            return (await client.answer()).status

    async def answer_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(respond())

    async with (
        upstream(cut_off) as bad,
        upstream(answer_early) as good,
        front(bad.authority, good.authority) as gate,
    ):
        got = [await send_half(gate) for _ in range(2 * DEFAULT_PASSIVE.failures + 2)]
    assert got == [502, 200] * (DEFAULT_PASSIVE.failures + 1)


async def test_a_request_is_repeated_once_only() -> None:
    async with contextlib.AsyncExitStack() as stack:
        bad = [await stack.enter_async_context(upstream(hang_up)) for _ in range(3)]
        gate = await stack.enter_async_context(front(*[one.authority for one in bad]))
        assert await ask(gate) == 502
    assert [len(one.received) for one in bad] == [1, 1, 0]


async def test_a_single_upstream_that_hangs_is_asked_once_and_the_answer_says_what_was_measured() -> (
    None
):
    async with (
        upstream(hang) as bad,
        front(bad.authority, limits=HASTY) as gate,
        gate.raw() as client,
    ):
        await client.send(request_head("GET", "/"))
        answer = await client.answer()
    assert (answer.status, answer.json["error"]) == (504, "gateway_timeout")
    assert answer.json["message"] == "the upstream sent nothing for 0.2 seconds"
    assert len(bad.received) == 1


async def test_a_single_upstream_stays_in_use_however_often_it_fails() -> None:
    served = 0

    async def mend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        await (hang_up if served <= 10 else answer_all)(reader, writer)

    async with upstream(mend) as up, front(up.authority) as gate:
        assert [await ask(gate) for _ in range(6)] == [502] * 5 + [200]


async def test_an_upstream_that_does_not_end_its_handshake_counts_as_one_that_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = self_signed_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    limits = Limits(connect=0.3, idle=20.0)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with upstream(silent) as bad, front(bad.authority, scheme="https", limits=limits) as gate:
        answer = await curl("-X", "PUT", "--data-binary", "@-", gate.url, stdin=b"x")
    assert answer.status == 504
    assert "the upstream could not be reached within 0.3 seconds" in answer.body


async def test_where_all_upstreams_are_suspended_the_one_that_failed_first_is_tried() -> None:
    dead = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    async with front(*dead) as gate:
        assert await ask(gate) == 502
        assert gate.proxy.upstreams.of_route(gate.route).last_resort() == dead[0]


def answers(status: str) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(respond(b"sick", status, "X-From: bad"))

    return serve


FAILING = PassiveHealth(statuses=frozenset({503}))


async def test_a_status_that_is_a_failure_sends_a_request_on_and_suspends_the_upstream() -> None:
    async with (
        upstream(answers("503 Sick")) as bad,
        api(who) as good,
        front(bad.authority, good.authority, passive=FAILING) as gate,
    ):
        assert [await ask(gate) for _ in range(8)] == [200] * 8
        assert not gate.proxy.upstreams.of_route(gate.route).is_up(bad.authority)
    assert b"".join(bad.received).count(b"GET / ") == DEFAULT_PASSIVE.failures
    assert len(good.asked) == 8


async def test_such_a_response_is_passed_on_where_the_request_may_not_be_sent_again() -> None:
    async with (
        upstream(answers("503 Sick")) as bad,
        api(who) as good,
        front(bad.authority, good.authority, passive=FAILING) as gate,
    ):
        got = [await ask(gate, "POST", b"x") for _ in range(10)]
    assert got == [503, 200] * DEFAULT_PASSIVE.failures + [200] * 4
    assert b"".join(bad.received).count(b"POST / ") == DEFAULT_PASSIVE.failures


async def test_such_a_response_is_passed_on_where_there_is_no_other_upstream() -> None:
    async with upstream(answers("503 Sick")) as bad, front(bad.authority, passive=FAILING) as gate:
        for _ in range(5):
            async with gate.raw() as client:
                await client.send(request_head("GET", "/"))
                answer = await client.answer()
            assert (answer.status, answer.body, answer.headers["X-From"]) == (503, b"sick", "bad")


async def test_other_statuses_are_no_failures() -> None:
    async with (
        upstream(answers("500 No")) as bad,
        api(who) as good,
        front(bad.authority, good.authority, passive=FAILING) as gate,
    ):
        assert [await ask(gate) for _ in range(8)] == [500, 200] * 4


async def test_requests_are_spread_by_weight() -> None:
    async with (
        api(who) as light,
        api(who) as heavy,
        front(light.authority, heavy.authority, weights=(1, 3)) as gate,
    ):
        assert [await ask(gate) for _ in range(12)] == [200] * 12
    assert (len(light.asked), len(heavy.asked)) == (3, 9)
