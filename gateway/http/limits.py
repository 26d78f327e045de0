"""What one connection may take: bytes of a request's head, time for it, time to read the answers."""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from aiohttp.http import RawRequestMessage

from gateway.errors import Refusal
from gateway.limits import FairShare, TransferMeter

HEAD_TIMEOUT: Final = 30.0
"""Seconds from the first byte of a request's head to its last."""

MAX_CONNECTIONS: Final = 1 << 18
"""Connections of a process whose descriptors have a higher limit, or none (-1, RLIM_INFINITY)."""

MAX_WAITING_BYTES: Final = 1 << 20
"""Bytes of the bodies of pipelined requests that wait behind the one that is being served. More are not
read from the connection."""

_BYTES_ACKED: Final = 120
"""Where `tcpi_bytes_acked` is in Linux's `struct tcp_info`."""


FilterHead = Callable[[str | None, RawRequestMessage], RawRequestMessage]
"""Returns what is left of a request's head, by the address of its peer. Raises `Refusal`."""


class RefusedHead(NamedTuple):
    """A request that is refused by its head: its place among those that wait, and why."""

    place: int
    message: str


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The limits of a server's connections; times in seconds, `min_rate` in bytes a second.

    `share` bounds their number, fairly among clients; None: no bound. Clients that `is_shared_address`
    is true of (trusted proxies) are not counted. `filter_head` changes every request before anything
    else sees it.
    """

    max_header_bytes: int = 32 << 10
    idle_timeout: float = 60.0
    min_rate: int = 0
    share: FairShare | None = None
    is_shared_address: Callable[[str], bool] = lambda _: False
    filter_head: FilterHead | None = None

    def filter_heads(self, messages: deque[Any], new: int, peer: object) -> RefusedHead | None:
        """Let the `new` last messages be as the filter leaves them; return the first that it refuses.

        `peer` is the name of the socket's peer. The messages are those of aiohttp's connection.
        """
        if self.filter_head is None:
            return None
        address = peer[0] if isinstance(peer, tuple) else None
        for place in range(max(len(messages) - new, 0), len(messages)):
            message, body = messages[place]
            if isinstance(message, RawRequestMessage):
                try:
                    messages[place] = self.filter_head(address, message), body
                except Refusal as refusal:
                    return RefusedHead(place, refusal.message)
        return None


def connection_share() -> FairShare:
    """Return the share of the connections that this process can have.

    An upload needs two descriptors, and so does a proxied request.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return FairShare("connections", MAX_CONNECTIONS if limit < 0 else min(MAX_CONNECTIONS, limit // 2))


def head_size(message: RawRequestMessage) -> int:
    """Return the bytes of a request line and header lines (RFC 9112 section 2.1)."""
    line = len(message.method) + len(message.path) + len("  HTTP/1.1\r\n")
    return line + sum(len(name) + len(value) + len(": \r\n") for name, value in message.raw_headers)


class HeadCounter:
    """Counts the bytes of the head that is being received, without knowing where it began.

    `remaining` bytes may be parsed before it is known to be too large: those count that came since the
    last request was complete. `_possible` counts those too that came together with its end.
    """

    __slots__ = ("_limit", "_possible", "remaining")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._possible = 0
        self.remaining = limit

    def add(self, size: int) -> None:
        """Count bytes that ended no head."""
        self.remaining = max(0, self.remaining - size)
        self._possible += size

    def restart(self, size: int) -> None:
        """Count for the next head: a request was complete within `size` bytes."""
        self.remaining = self._limit
        if size:
            self._possible = size

    def is_small(self, size: int) -> bool:
        """Tell whether a head that ended within `size` bytes cannot be above the limit."""
        return self._possible + size <= self._limit

    def allows(self, message: RawRequestMessage) -> bool:
        """Tell whether a complete head is within the limit."""
        return head_size(message) <= self._limit


class WriteProgress:
    """Judges how fast a client reads what was written for it."""

    __slots__ = ("_acked", "_limits", "_meter", "_stalled")

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._meter = TransferMeter(limits.min_rate)
        self._acked = 0
        self._stalled = 0.0

    def is_too_slow(self, transport: asyncio.Transport, seconds: float) -> bool:
        """Tell whether the client has read nothing for the idle timeout, or less than the least rate.

        `seconds` have passed since the last call. Only time with unsent bytes in memory counts. What
        the client's system has acknowledged is read from the kernel: what is left to send says nothing
        while answers are added to it.
        """
        if not transport.get_write_buffer_size():
            self._stalled = 0.0
            return False
        acked = bytes_acked(transport)
        if acked is None:
            return False
        read, self._acked = acked - self._acked, acked
        self._stalled = 0.0 if read > 0 else self._stalled + seconds
        return self._stalled >= self._limits.idle_timeout or self._meter.too_slow(seconds, read)


def bytes_acked(transport: asyncio.Transport) -> int | None:
    """Return how many bytes the peer has acknowledged; None if it is not TCP, or not on Linux."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in {socket.AF_INET, socket.AF_INET6}:
        with suppress(OSError, AttributeError, struct.error):
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            return int(struct.unpack_from("=Q", info, _BYTES_ACKED)[0])
    return None
