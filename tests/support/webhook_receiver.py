"""A receiver of webhooks that answers as a test says: any bytes, slowly, never, or by hanging up."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from tests.support.harness import TIMEOUT

SECRET = "whsec_" + "c2VjcmV0LW9mLTMyLWJ5dGVzLXdoaWNoLWFyZS10ZXN0"
OLD_SECRET = "whsec_" + "b2xkLXNlY3JldC1vZi1hdC1sZWFzdC0yNC1ieXRlcw=="


class Received(NamedTuple):
    """One request: its first line, its headers in lower case, its body."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> Any:
        return json.loads(self.body)


class Hang(NamedTuple):
    """Write `begun`, then nothing for ever."""

    begun: bytes = b""


def answer(status: int = 200, body: bytes = b"", *headers: str) -> bytes:
    """Return the bytes of a response; the connection is closed behind it."""
    lines = [f"HTTP/1.1 {status} Test", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class WebhookReceiver:
    """Answers with the next of `answers`, the last one for ever; b"" hangs up."""

    def __init__(self) -> None:
        self.answers: Sequence[bytes | Hang] = [answer()]
        self.received: asyncio.Queue[Received] = asyncio.Queue()
        self.port = 0
        self._count = 0
        self._ended = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/files?key=in-the-query"

    async def next(self) -> Received:
        return await asyncio.wait_for(self.received.get(), TIMEOUT)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            pairs = (line.partition(": ") for line in head[1:] if line)
            headers = {name.lower(): value for name, _, value in pairs}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            chosen = self.answers[min(self._count, len(self.answers) - 1)]
            self._count += 1
            self.received.put_nowait(Received(head[0], headers, body))
            writer.write(chosen.begun if isinstance(chosen, Hang) else chosen)
            await writer.drain()
            if isinstance(chosen, Hang):
                await self._ended.wait()
        writer.close()

    def end(self) -> None:
        """Let what hangs end."""
        self._ended.set()


@contextlib.asynccontextmanager
async def running_receiver() -> AsyncIterator[WebhookReceiver]:
    receiver = WebhookReceiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        receiver.end()
        server.close()
