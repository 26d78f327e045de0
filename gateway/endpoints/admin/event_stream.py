"""What all streams of server-sent events have in common: their number, their ends, how they are written.

A stream has one event in memory. Source: html.spec.whatwg.org, section 9.2 (server-sent events).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

from gateway.auth.request import RequestHead
from gateway.http.protocol import abort, facts_of, on_disconnect
from gateway.http.responses import GatewayResponse
from gateway.limits import FairShare, Lease

MEDIA_TYPE: Final = "text/event-stream"

MAX_STREAMS: Final = 256
"""Streams that one process sends at the same time, of which each client gets its share."""

HEARTBEAT_INTERVAL: Final = 15.0
"""Seconds without an event after which a comment is sent, so that proxies keep the connection."""

MAX_STREAM_TIMEOUT: Final = 3600.0
"""Seconds after which a stream ends; the client connects again, and is authorized again."""

WRITE_TIMEOUT: Final = 30.0
"""Seconds in which a client must take what is sent."""

RETRY_MILLISECONDS: Final = 2000


class EventStreams:
    """The streams of one process; `client_of` tells whom a request counts for. Lives on the loop."""

    def __init__(self, client_of: Callable[[RequestHead], str]) -> None:
        self._client_of = client_of
        self.share = FairShare("streams of events", MAX_STREAMS)
        self.stopping = asyncio.Event()

    def stop(self) -> None:
        """End the streams, those of uploads in flight when their upload ends."""
        self.stopping.set()

    def acquire(self, head: RequestHead) -> Lease:
        """Count a stream of a client. Raises as `FairShare.acquire`."""
        return self.share.acquire(self._client_of(head))


def accepts_stream(headers: Mapping[str, str]) -> bool:
    """Tell whether a client names the media type of streams in `Accept` (RFC 9110 section 12.5.1)."""
    for part in headers.get("Accept", "").split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if name == MEDIA_TYPE:
            return not any(p.startswith("q=0") and not p.strip("q=0.") for p in parameters)
    return False


class EventStreamResponse(GatewayResponse):
    """One stream; a subclass sends its events in `_send_events`. It holds `lease` until its end."""

    def __init__(self, streams: EventStreams, lease: Lease) -> None:
        headers = {
            "Content-Type": f"{MEDIA_TYPE}; charset=utf-8",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",  # nginx passes events on at once
        }
        super().__init__(headers=headers)
        self._stopping = streams.stopping
        self._lease = lease
        self._disconnected = asyncio.Event()
        self._deadline = time.monotonic() + MAX_STREAM_TIMEOUT

    def release_body(self) -> None:
        """Give the client's share back."""
        self._lease.close()

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the events and the end. Raises `ConnectionError` if the client has disconnected."""
        request = self._req
        if request is not None and not self._eof_sent:
            with on_disconnect(request, self._disconnected.set):
                try:
                    await self._send(f"retry: {RETRY_MILLISECONDS}\n\n")
                    await self._send_events()
                except BaseException:
                    abort(request)
                    raise
        await super().write_eof(data)

    async def _send_events(self) -> None:
        """Send what there is to tell, until nothing more is to come."""
        raise NotImplementedError

    @property
    def _is_over(self) -> bool:
        """Whether the stream has lasted for as long as it may."""
        return time.monotonic() > self._deadline

    async def _wait(self, seconds: float) -> None:
        """Wait, but for no client that has disconnected, and not past the begin of a stop."""
        events = [self._disconnected]
        if not self._stopping.is_set():
            events.append(self._stopping)
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self._check_connected()

    async def _send(self, text: str) -> None:
        self._check_connected()
        try:
            async with asyncio.timeout(WRITE_TIMEOUT):
                data = text.encode(errors="replace")
                await self.write(data)
                if self._req is not None:
                    facts_of(self._req).bytes_out += len(data)
        except TimeoutError:
            raise ConnectionResetError("the client takes no events") from None

    def _check_connected(self) -> None:
        if self._disconnected.is_set():
            raise ConnectionResetError("the client has disconnected")
