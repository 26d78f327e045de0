"""Visits of the pages with live numbers, and uploads that are on their way meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from gateway.events.journal import Journal
from gateway.server.app import Gateway
from tests.support.browser import BrowserVisit, visiting_as
from tests.support.harness import GatewayProcess, RawConnection, raw_connection, request_head

MARKUP: Final = "%3Cimg%20src=x%20onerror=alert(1)%3E%E2%80%AEfdp.txt"
"""A name with markup, and with a character that turns the direction of what follows."""

STEP: Final = 40_000


def visiting(**how: Any) -> AbstractAsyncContextManager[BrowserVisit]:
    """Open an empty page; axe may be added to it."""
    size = {"width": 1280, "height": 860}
    return visiting_as(BrowserVisit, **{"viewport": size, "bypass_csp": True, **how})


@contextlib.asynccontextmanager
async def slow_upload(
    gateway: Gateway | GatewayProcess, path: str, size: int, *lines: str
) -> AsyncIterator[RawConnection]:
    """Send an upload of `size` bytes slowly, and all but its last step, until the end."""
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", path, f"Content-Length: {size}", *lines))
        sending = asyncio.create_task(_send_slowly(connection, size))
        try:
            yield connection
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def _send_slowly(connection: RawConnection, size: int) -> None:
    for _ in range(size // STEP - 1):
        await connection.send(b"x" * STEP)
        await asyncio.sleep(0.1)


def fill_journal(journal: Journal, count: int) -> None:
    """Write the rows of stored uploads: they are not on the disk."""
    statement = (
        "INSERT INTO uploads (id, path, bytes, mime, digests, device, inode, mtime_ns, principal,"
        " remote, created, committed)"
        " VALUES (?, ?, ?, 'text/plain', '{}', 1, ?, 1, ?, '192.0.2.1', ?, ?)"
    )
    rows = [
        (
            f"01J{number:023}",
            f"/upload/many/{number}.txt",
            number,
            number,
            PRINCIPALS[number % 2],
            1e9,
            1e9,
        )
        for number in range(count)
    ]
    journal._database.run(lambda db: db.executemany(statement, rows).rowcount)


PRINCIPALS: Final = ('{"name": "alice", "kind": "token"}', '{"name": "bob", "kind": "token"}')
