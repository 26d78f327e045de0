"""`GET /-/uploads/<id>` as `text/event-stream`: the status of one upload now, and after each change.

The status is read again and again, from whichever process has the upload: often while it changes, less
often while it does not.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from gateway.auth.request import IncomingRequest
from gateway.endpoints.admin.event_stream import HEARTBEAT_INTERVAL, EventStreamResponse, EventStreams
from gateway.endpoints.admin.upload_pages import is_settled
from gateway.errors import Refusal
from gateway.http.responses import GatewayResponse, Response
from gateway.limits import Lease

MIN_INTERVAL: Final = 0.5
MAX_INTERVAL: Final = 2.0
"""Seconds between two reads of the status: the shortest after a change, growing without one."""

_ACTIVE: Final = frozenset({"admitting", "receiving", "deciding", "committing"})
"""States that a stopping gateway still waits for, up to its grace."""

Status = dict[str, Any]
ReadStatus = Callable[[], Awaitable[Status]]


def stream_upload(
    streams: EventStreams, incoming: IncomingRequest, status: Status, read: ReadStatus
) -> GatewayResponse:
    """Return the stream that begins with `status`, which `read` reads again.

    A browser connects again when a stream has ended, and says which event was its last: it gets 204,
    which ends that, where nothing more is to come. Raises as `FairShare.acquire`.
    """
    if is_settled(status) and incoming.headers.get("Last-Event-ID") == _event_id(_encode(status)):
        return Response(status=204, headers={"Cache-Control": "no-store"})
    return _UploadStream(streams, streams.acquire(incoming), status, read)


class _UploadStream(EventStreamResponse):
    """A stream that ends when nothing more becomes of the upload, or the gateway stops."""

    def __init__(self, streams: EventStreams, lease: Lease, status: Status, read: ReadStatus) -> None:
        super().__init__(streams, lease)
        self._upload = status
        self._read = read

    async def _send_events(self) -> None:
        """Send an event for each status that is another one than before."""
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
            if self._is_over or (self._stopping.is_set() and not self._in_flight()):
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


def _encode(status: Mapping[str, Any]) -> str:
    return json.dumps(status, ensure_ascii=False, default=str)


def _event_id(text: str) -> str:
    """Return the same id for the same status, so that a browser can say what it has."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]
