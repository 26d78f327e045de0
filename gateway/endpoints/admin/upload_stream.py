"""`GET /-/uploads/<id>` as `text/event-stream`: the status of one upload now, and after each change.

The status is read again and again, from whichever process has the upload: often while it changes, less
often while it does not. A stream has one event in memory. Source: html.spec.whatwg.org, section 9.2
(server-sent events).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from gateway.auth.request import IncomingRequest, RequestHead
from gateway.endpoints.admin.upload_pages import is_settled
from gateway.errors import Refusal
from gateway.http.protocol import abort, facts_of, on_disconnect
from gateway.http.responses import GatewayResponse, Response
from gateway.limits import FairShare, Lease

MEDIA_TYPE: Final = "text/event-stream"

MAX_STREAMS: Final = 256
"""Streams that one process sends at the same time, of which each client gets its share."""

MIN_INTERVAL: Final = 0.5
MAX_INTERVAL: Final = 2.0
"""Seconds between two reads of the status: the shortest after a change, growing without one."""

HEARTBEAT_INTERVAL: Final = 15.0
"""Seconds without an event after which a comment is sent, so that proxies keep the connection."""

MAX_STREAM_TIMEOUT: Final = 3600.0
"""Seconds after which a stream ends; the client connects again, and is authorized again."""

WRITE_TIMEOUT: Final = 30.0
"""Seconds in which a client must take what is sent."""

RETRY_MILLISECONDS: Final = 2000

_ACTIVE: Final = frozenset({"admitting", "receiving", "deciding", "committing"})
"""States that a stopping gateway still waits for, up to its grace."""

Status = dict[str, Any]
ReadStatus = Callable[[], Awaitable[Status]]


class UploadStreams:
    """The streams of one process; `client_of` tells whom a request counts for. Lives on the loop."""

    def __init__(self, client_of: Callable[[RequestHead], str]) -> None:
        self._client_of = client_of
        self.share = FairShare("streams of uploads", MAX_STREAMS)
        self.stopping = asyncio.Event()

    def stop(self) -> None:
        """End the streams, those of uploads in flight when their upload ends."""
        self.stopping.set()

    def respond(self, incoming: IncomingRequest, status: Status, read: ReadStatus) -> GatewayResponse:
        """Return the stream that begins with `status`, which `read` reads again.

        A browser connects again when a stream has ended, and says which event was its last: it gets 204,
        which ends that, where nothing more is to come. Raises as `FairShare.acquire`.
        """
        if is_settled(status) and incoming.headers.get("Last-Event-ID") == _event_id(_encode(status)):
            return Response(status=204, headers={"Cache-Control": "no-store"})
        return _StreamResponse(self, self.share.acquire(self._client_of(incoming)), status, read)


def accepts_stream(headers: Mapping[str, str]) -> bool:
    """Tell whether a client names the media type of streams in `Accept` (RFC 9110 section 12.5.1)."""
    for part in headers.get("Accept", "").split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if name == MEDIA_TYPE:
            return not any(p.startswith("q=0") and not p.strip("q=0.") for p in parameters)
    return False


class _StreamResponse(GatewayResponse):
    """A stream that ends when nothing more becomes of the upload, or the gateway stops."""

    def __init__(self, streams: UploadStreams, lease: Lease, status: Status, read: ReadStatus) -> None:
        headers = {
            "Content-Type": f"{MEDIA_TYPE}; charset=utf-8",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",  # nginx passes events on at once
        }
        super().__init__(headers=headers)
        self._streams = streams
        self._lease = lease
        self._upload = status
        self._read = read
        self._disconnected = asyncio.Event()

    def release_body(self) -> None:
        """Give the client's share back."""
        self._lease.close()

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the events and the end. Raises `ConnectionError` if the client has disconnected."""
        request = self._req
        if request is not None and not self._eof_sent:
            with on_disconnect(request, self._disconnected.set):
                try:
                    await self._send_events()
                except BaseException:
                    abort(request)
                    raise
        await super().write_eof(data)

    async def _send_events(self) -> None:
        """Send an event for each status that is another one than before."""
        deadline = time.monotonic() + MAX_STREAM_TIMEOUT
        await self._send(f"retry: {RETRY_MILLISECONDS}\n\n")
        last, interval, heard = "", MIN_INTERVAL, time.monotonic()
        while True:
            text = _encode(self._upload)
            event_id, now = _event_id(text), time.monotonic()
            if event_id != last:
                await self._send(f"id: {event_id}\ndata: {text}\n\n")
                last, interval, heard = event_id, MIN_INTERVAL, now
            elif now - heard >= HEARTBEAT_INTERVAL:
                await self._send(":\n\n")
                heard = now
            if is_settled(self._upload):
                await self._send("event: end\ndata: {}\n\n")
                return
            if now > deadline or (self._streams.stopping.is_set() and not self._in_flight()):
                return
            await self._wait(interval)
            if not await self._read_again():
                await self._send("event: end\ndata: {}\n\n")
                return
            interval = min(interval * 1.25, MAX_INTERVAL)

    def _in_flight(self) -> bool:
        return self._upload["state"] in _ACTIVE

    async def _read_again(self) -> bool:
        """Read the status; return False where the upload is not known any more.

        What cannot be read now may be readable later: until then nothing is sent.
        """
        try:
            self._upload = await self._read()
        except Refusal as error:
            return error.code != "not_found"
        return True

    async def _wait(self, seconds: float) -> None:
        """Wait, but for no client that has disconnected, and not past the begin of a stop."""
        events = [self._disconnected]
        if not self._streams.stopping.is_set():
            events.append(self._streams.stopping)
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


def _encode(status: Mapping[str, Any]) -> str:
    return json.dumps(status, ensure_ascii=False, default=str)


def _event_id(text: str) -> str:
    """Return the same id for the same status, so that a browser can say what it has."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]
