"""Memory of request bodies."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.endpoints.routing.model import Limits, RequestContext, Route
from gateway.endpoints.routing.validation.request_check import BodyBuffer
from gateway.errors import Refusal
from gateway.limits import MinRate


class Content:
    """Stands for a request: its body in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.content = self
        self.content_length = None
        self.delay = 0.0
        self._pieces = list(pieces)

    def at_eof(self) -> bool:
        return not self._pieces

    is_eof = at_eof

    async def readany(self) -> bytes:
        await asyncio.sleep(self.delay)
        return self._pieces.pop(0)


def make_context(*pieces: bytes, remote: str = "192.0.2.1") -> RequestContext:
    served = Route("r", "x:1", "/r", "/r", (), "http", "none", {}, limits=Limits(max_body=8))
    incoming = cast(Any, SimpleNamespace(request=Content(*pieces)))
    return RequestContext(incoming, served, None, {}, {}, {}, cast(Any, {}), remote)


async def test_all_bodies_together_are_bounded_until_they_are_released() -> None:
    bodies = BodyBuffer(max_bytes=16)
    first, second = make_context(b"12", b"", b"345678"), make_context(b"123")
    assert await bodies.read_body(first) == b"12345678"
    with pytest.raises(Refusal) as caught:
        await bodies.read_body(second)
    assert caught.value.code == "too_many_requests"
    bodies.release_body(first)
    bodies.release_body(second)
    assert first.body is None
    assert await bodies.read_body(make_context(b"12345678")) == b"12345678"


async def test_a_client_that_holds_its_share_of_memory_leaves_the_rest_to_others() -> None:
    bodies = BodyBuffer(max_bytes=16)
    assert await bodies.read_body(make_context(b"12345678")) == b"12345678"
    with pytest.raises(Refusal):
        await bodies.read_body(make_context(b"1"))
    assert await bodies.read_body(make_context(b"12345678", remote="192.0.2.2")) == b"12345678"


async def test_a_body_that_trickles_is_refused_and_one_that_ends_is_not() -> None:
    slow, ended = make_context(b"1", b"2"), make_context(b"1")
    for context in (slow, ended):
        context.meter = MinRate(1024).meter()
        context.meter.too_slow(59.999, 0)
    content = cast(Content, slow.request.content)
    content.delay = 0.01
    with pytest.raises(Refusal) as caught:
        await BodyBuffer().read_body(slow)
    assert caught.value.code == "idle_timeout"
    assert await BodyBuffer().read_body(ended) == b"1"
