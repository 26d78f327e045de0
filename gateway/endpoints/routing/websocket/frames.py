"""Where WebSocket frames begin and end (RFC 6455 section 5.2), and Close frames (section 5.5.1).

Payloads are neither read nor kept. Pure: no system call, no event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.domain.model import random_bytes

ENDPOINT_LEAVES: Final = 1001
"""The gateway stops, or nothing was sent for too long (RFC 6455 section 7.4.1)."""

UPSTREAM_LOST: Final = 1011
"""The upstream's connection was lost. 1014 would say more, but some clients take it for an error."""

_CLOSE: Final = 0x8
_FINAL: Final = 0x80
_MASKED: Final = 0x80


class FrameScanner:
    """Follows the frames that one side sends, in pieces of any size.

    `closed`: a Close frame has begun. What is no frame only moves the boundaries.
    """

    __slots__ = ("_head", "_left", "closed")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self.closed = False

    @property
    def at_boundary(self) -> bool:
        """Whether a frame of our own may follow."""
        return not self._left and not self._head

    def feed(self, data: bytes, *, to_boundary: bool = False) -> int:
        """Follow `data`; return how many of its bytes were followed: all, or those `to_boundary`."""
        carried = len(self._head)
        if carried:
            data, self._head = self._head + data, b""
        position, size = self._left, len(data)
        if to_boundary and 0 < position <= size:
            self._left = 0
            return position - carried
        while position + 1 < size:
            second = data[position + 1]
            length, end = second & 0x7F, position + 2
            if length > 125:
                end += 2 if length == 126 else 8
                if end > size:
                    break
                length = int.from_bytes(data[position + 2 : end], "big")
            if data[position] & 0x0F == _CLOSE:
                self.closed = True
            position = end + length + (4 if second & _MASKED else 0)
            if to_boundary and position <= size:
                size = position
        if position < size:  # the head of the next frame is not whole
            self._head, position = data[position:], size
        self._left = position - size
        return min(position, size) - carried


def close_frame(
    code: int, reason: str, *, masked: bool, random: Callable[[int], bytes] = random_bytes
) -> bytes:
    """Return a Close frame; what a client sends is masked (RFC 6455 section 5.3)."""
    payload = code.to_bytes(2, "big") + reason.encode()[:123]
    head = bytes([_FINAL | _CLOSE, len(payload) | (_MASKED if masked else 0)])
    if not masked:
        return head + payload
    mask = random(4)
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
