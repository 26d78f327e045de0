"""Memory of request bodies."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.endpoints.routing.model import Limits, RequestContext, Route
from gateway.endpoints.routing.validate import BodyBuffer
from gateway.errors import Refusal


class Content:
    """Stands for a request: its body in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.content = self
        self.content_length = None
        self._pieces = list(pieces)

    def at_eof(self) -> bool:
        return not self._pieces

    async def readany(self) -> bytes:
        return self._pieces.pop(0)


def make_context(*pieces: bytes) -> RequestContext:
    served = Route("r", "x:1", "/r", "/r", (), "http", "none", {}, limits=Limits(max_body=8))
    incoming = cast(Any, SimpleNamespace(request=Content(*pieces)))
    return RequestContext(incoming, served, None, {}, {}, {}, cast(Any, {}), None)


async def test_all_bodies_together_are_bounded_until_they_are_released() -> None:
    bodies = BodyBuffer(max_bytes=10)
    first, second = make_context(b"12", b"", b"345678"), make_context(b"123")
    assert await bodies.read_body(first) == b"12345678"
    with pytest.raises(Refusal) as caught:
        await bodies.read_body(second)
    assert caught.value.code == "overloaded"
    bodies.release_body(first)
    bodies.release_body(second)
    assert await bodies.read_body(make_context(b"12345678")) == b"12345678"
