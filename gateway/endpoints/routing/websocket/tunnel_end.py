"""One of the two connections of a tunnel: what it receives is written to its peer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from gateway.endpoints.routing.websocket.frames import FrameScanner, close_frame

MAX_UNSENT_BYTES: Final = 64 << 10
"""Bytes in memory that a connection has not taken, from which on the other one is not read."""


_READ_BUFFER: Final = memoryview(bytearray(64 << 10))
"""What is read at once, for all connections: it is passed on before the loop reads from the next one.
The smallest frames in it take 4 ms."""


class SwitchedConnection(NamedTuple):
    """A connection after its 101: the protocol that served it before, and what it has read too much."""

    transport: asyncio.Transport
    served: asyncio.BaseProtocol
    received: bytes


class TunnelEvents(Protocol):
    """What an end tells its tunnel."""

    def bytes_received(self) -> None:
        """Note that the connection is in use."""

    def close_received(self, end: TunnelEnd) -> None:
        """Note that an end has sent a Close frame."""

    def eof_received(self, end: TunnelEnd) -> None:
        """Note that an end will send nothing more."""

    def connection_lost(self, end: TunnelEnd, error: Exception | None) -> None:
        """Note that a connection is closed; `error` tells why, None for a proper end."""


class TunnelEnd(asyncio.BufferedProtocol):
    """A connection of a tunnel. `masked`: it is the upstream's, to which we are the client.

    `frames` follows what it sends. `received` counts its bytes, `ended` tells that no more will come.
    """

    def __init__(self, name: str, connection: SwitchedConnection, *, masked: bool) -> None:
        self.name = name
        self.frames = FrameScanner()
        self.received = 0
        self.ended = False
        self.lost = False
        self.peer: TunnelEnd
        self.events: TunnelEvents
        self._transport = connection.transport
        self._served = connection.served
        self._early = connection.received
        self._masked = masked
        self._last: bytes | None = None
        self._muted = False
        self._eof_sent = False

    def begin(self) -> None:
        """Take the connection over, and pass on what it has read already."""
        self.pause_reading()  # uvloop changes how it reads when it begins to
        self._transport.set_protocol(self)
        self._transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES)
        early, self._early = self._early, b""
        if early:
            self._receive(early)
        if not self._muted and self.peer.is_full():
            self.pause_reading()
        else:
            self.resume_reading()

    # -- what arrives

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return what is read into."""
        return _READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what was read."""
        self._receive(bytes(_READ_BUFFER[:nbytes]))

    def _receive(self, data: bytes) -> None:
        self.events.bytes_received()
        self.received += len(data)
        if self._last is None:
            self.frames.feed(data)
            self.peer.write(data)
        else:
            self._pass_rest(data)
        if self.frames.closed:
            self.events.close_received(self)

    def _pass_rest(self, data: bytes) -> None:
        """Pass the rest of a frame on, then our Close frame; look in what follows for the other one."""
        if not self._muted:
            passed = self.frames.feed(data, to_boundary=True)
            self.peer.write(data[:passed])
            if not self.frames.at_boundary:
                return
            self._mute()
            data = data[passed:]
        self.frames.feed(data)

    def eof_received(self) -> bool:
        """Keep the connection for what is still to be sent, which TLS does not allow."""
        self.ended = True
        self.events.eof_received(self)
        return self._transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the protocol that served the connection before, then the tunnel."""
        self.lost = self.ended = True
        self._served.connection_lost(exc)
        self.events.connection_lost(self, exc)

    # -- back-pressure

    def pause_writing(self) -> None:
        """Stop reading the peer: this connection does not take what it sends."""
        self.peer.pause_reading()

    def resume_writing(self) -> None:
        """Read the peer again."""
        self.peer.resume_reading()

    def is_full(self) -> bool:
        """Tell whether as much is unsent as may be."""
        return self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES

    def pause_reading(self) -> None:
        """Read no more for now."""
        self._when_open(self._transport.pause_reading, unless=self._muted)

    def resume_reading(self) -> None:
        """Go on reading."""
        self._when_open(self._transport.resume_reading, unless=self.ended)

    # -- what is sent

    def write(self, data: bytes) -> None:
        """Send bytes, unless the connection is closed, or its end was sent."""
        if data and not self._eof_sent and not self._transport.is_closing():
            self._transport.write(data)

    def send_eof(self) -> bool:
        """Send an end behind what is unsent; False where that means to close the connection."""
        if self.lost or self._transport.is_closing() or not self._transport.can_write_eof():
            return False
        self._eof_sent = True
        self._transport.write_eof()
        return True

    def close_peer(self, code: int, reason: str) -> None:
        """Send the peer a Close frame in place of what comes from here, from the next boundary on.

        Not behind a Close frame of this side, nor into a frame that will have no end.
        """
        if self._last is not None or self.frames.closed:
            return
        self._last = close_frame(code, reason, masked=self.peer._masked)
        if self.frames.at_boundary:
            self._mute()

    def discard(self) -> None:
        """Pass nothing on any more: the peer is lost."""
        self._last = b""
        self._mute()

    def _mute(self) -> None:
        self._muted = True
        self.peer.write(self._last or b"")
        self.resume_reading()  # for its own Close frame

    def has_finished(self) -> bool:
        """Tell whether nothing of interest will come: an end, or a whole Close frame."""
        return self.ended or (self.frames.closed and self.frames.at_boundary)

    def close(self) -> None:
        """Close the connection behind what is unsent."""
        self._transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self._transport.abort()

    def _when_open(self, change: Callable[[], None], *, unless: bool) -> None:
        if not unless and not self._transport.is_closing():
            change()
