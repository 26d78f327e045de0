"""Carries the bytes of one WebSocket connection between its client and its upstream, until both end.

Each side is read only as fast as the other one takes the bytes. The gateway adds nothing but a Close
frame, at the boundary of a frame, when it ends the connection itself or the upstream is lost.
"""

from __future__ import annotations

import asyncio
from typing import Final

from gateway.endpoints.routing.websocket.frames import ENDPOINT_LEAVES, UPSTREAM_LOST
from gateway.endpoints.routing.websocket.tunnel_end import SwitchedConnection, TunnelEnd

CLOSE_TIMEOUT: Final = 5.0
"""Seconds from the first end, or our Close frame, until both connections are closed at the latest."""

STOP_TIMEOUT: Final = 2.0
"""The same for a gateway that stops."""


class Tunnel:
    """One open connection. `ended_by` and `how` tell what ended it: the first thing that did.

    `ended_by` is `client`, `upstream` or `gateway`; `how` is `close` (a Close frame), `eof`, `reset`,
    `idle` or `stop`.
    """

    def __init__(self, client: SwitchedConnection, upstream: SwitchedConnection, idle: float) -> None:
        self.client = TunnelEnd("client", client, masked=False)
        self.upstream = TunnelEnd("upstream", upstream, masked=True)
        self.client.peer, self.upstream.peer = self.upstream, self.client
        self.client.events = self.upstream.events = self
        self.ended_by = self.how = ""
        self._idle = idle
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._active = self._loop.time()
        self._idle_timer = self._loop.call_at(self._active + idle, self._check_idle)
        self._closing = False
        self._abort_timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Carry bytes until both connections are closed; when cancelled, close them at once."""
        try:
            self.client.begin()
            self.upstream.begin()
            await self._done
        finally:
            self._idle_timer.cancel()
            if self._abort_timer is not None:
                self._abort_timer.cancel()
            if not self._done.done():
                self._note_end("gateway", "stop")
                self._abort()

    def stop(self) -> None:
        """Send both sides a Close frame 1001, and close both connections: the gateway stops."""
        self._close("stop", ENDPOINT_LEAVES, "the server stops", STOP_TIMEOUT)

    async def wait_closed(self, deadline: float) -> None:
        """Wait until both connections are closed, at most until `deadline` (the loop's time)."""
        await asyncio.wait([self._done], timeout=max(0.0, deadline - self._loop.time()))

    # -- what the ends tell

    def bytes_received(self) -> None:
        """Note that the connection is in use."""
        self._active = self._loop.time()

    def close_received(self, end: TunnelEnd) -> None:
        """Note who begins the closing handshake; go on where the gateway waits for it."""
        self._note_end(end.name, "close")
        self._finish_closing()

    def eof_received(self, end: TunnelEnd) -> None:
        """Pass the end on, so that the other side can send what is left."""
        self._note_end(end.name, "eof")
        if self._closing:
            self._finish_closing()
        elif self._is_loss(end):
            self._close_lost()
        elif end.peer.ended or not end.peer.send_eof():
            self._close_both()
        elif end.frames.closed:
            self._limit_closing(CLOSE_TIMEOUT)

    def connection_lost(self, end: TunnelEnd, error: Exception | None) -> None:
        """End the other connection, too: after a reset at once."""
        self._note_end(end.name, "eof" if error is None else "reset")
        if end.peer.lost:
            if not self._done.done():
                self._done.set_result(None)
        elif self._closing:
            self._finish_closing()
        elif self._is_loss(end):
            self._close_lost()
        elif error is not None:
            end.peer.abort()
        else:
            self._close_both()

    # -- the end

    def _note_end(self, name: str, how: str) -> None:
        if not self.how:
            self.ended_by, self.how = name, how

    def _is_loss(self, end: TunnelEnd) -> bool:
        """Tell whether an upstream has gone without a Close frame, and a client can still read one."""
        client_reads = not self.client.ended and self.upstream.frames.at_boundary
        return end is self.upstream and not end.frames.closed and client_reads

    def _close_lost(self) -> None:
        self.client.discard()
        self._close("eof", UPSTREAM_LOST, "the connection to the server was lost", CLOSE_TIMEOUT)

    def _close(self, how: str, code: int, reason: str, seconds: float) -> None:
        """Send Close frames at the next boundaries, and wait for the answers, or for `seconds`."""
        if self._done.done():
            return
        self._note_end("gateway", how)
        self._limit_closing(seconds)
        if self._closing:
            return
        self._closing = True
        self.client.close_peer(code, reason)
        self.upstream.close_peer(code, reason)
        self._finish_closing()

    def _finish_closing(self) -> None:
        if self._closing and self.client.has_finished() and self.upstream.has_finished():
            self._close_both()

    def _close_both(self) -> None:
        self._limit_closing(CLOSE_TIMEOUT)
        self.client.close()
        self.upstream.close()

    def _limit_closing(self, seconds: float) -> None:
        deadline = self._loop.time() + seconds
        if self._abort_timer is None or self._abort_timer.when() > deadline:
            if self._abort_timer is not None:
                self._abort_timer.cancel()
            self._abort_timer = self._loop.call_at(deadline, self._abort)

    def _abort(self) -> None:
        self.client.abort()
        self.upstream.abort()

    def _check_idle(self) -> None:
        """Close a connection on which both sides were silent for too long."""
        due = self._active + self._idle
        if self._loop.time() < due:
            self._idle_timer = self._loop.call_at(due, self._check_idle)
        else:
            reason = f"nothing was sent for {self._idle:g} seconds"
            self._close("idle", ENDPOINT_LEAVES, reason, CLOSE_TIMEOUT)
