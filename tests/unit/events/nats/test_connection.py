"""Tests of gateway.events.nats.connection without a server."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, cast

import pytest

from gateway.events.nats.connection import Connection
from gateway.events.nats.servers import Servers
from gateway.storage import waiting
from tests.support.harness import TIMEOUT


class Connected:
    """A client of the library that is connected."""

    is_closed, is_connected, max_payload = False, True, 1000

    async def close(self) -> None:
        """Close it."""


async def test_it_closes_where_the_library_drops_the_cancellation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "CANCEL_INTERVAL", 0.01)
    asked = asyncio.Event()

    async def prepare(_: Connection) -> bool:
        asked.set()
        with contextlib.suppress(asyncio.CancelledError):  # as `wait_for` where a response is there
            await asyncio.Event().wait()
        return True

    connection = Connection(Servers(("nats://127.0.0.1:1",)), "a name", prepare)
    connection._client = cast(Any, Connected())
    connection.start()
    async with asyncio.timeout(TIMEOUT):
        await asked.wait()
        await connection.close()
