"""The least rate of a transfer: a client that trickles cannot hold a connection or space for ever."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.errors import Refusal

RATE_WINDOW: Final = 60.0
"""Seconds of waiting for the client over which its rate is judged."""


@dataclass(frozen=True, slots=True)
class MinRate:
    """At least so many bytes in each second that the gateway waits for a client; 0: any rate."""

    bytes_per_second: int

    def meter(self) -> TransferMeter:
        """Return the meter of one transfer."""
        return TransferMeter(self.bytes_per_second)


class TransferMeter:
    """Judges one transfer in windows of `RATE_WINDOW` seconds.

    Only the time that the gateway waits for the client counts: a slow disk or upstream is not its fault.
    An average over the whole transfer would allow a fast start followed by a trickle.
    """

    __slots__ = ("_bytes", "_rate", "_seconds")

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._seconds = 0.0
        self._bytes = 0

    def too_slow(self, seconds: float, size: int) -> bool:
        """Count `size` bytes after a wait of `seconds`; tell whether a window ended below the rate."""
        self._seconds += seconds
        self._bytes += size
        if self._seconds < RATE_WINDOW:
            return False
        slow = self._bytes < self._rate * self._seconds
        self._seconds, self._bytes = 0.0, 0
        return slow

    def check(self, seconds: float, size: int) -> None:
        """Count as `too_slow` does. Raises `Refusal("idle_timeout")`."""
        if self.too_slow(seconds, size):
            raise Refusal(
                "idle_timeout",
                f"the body arrives too slowly: at least {self._rate} bytes a second are needed",
            )
