"""Bodies that are read whole are bounded, one by one and all together."""

from __future__ import annotations

from tests.support.harness import raw_connection, request_head
from tests.support.routing.scripted import Serve, route


async def test_a_silent_client_is_given_up(serve: Serve) -> None:
    gateway = await serve(route(script="return request.body", more="limits: {idle: 0.2}\n"))
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("POST", "/r", "Content-Length: 5") + b"ab")
        answer = await connection.answer()
    assert (answer.status, answer.json["error"]) == (408, "idle_timeout")
