"""Fair shares of a bound: one client can never use up what all share.

A client may take as much as would still be free afterwards (the dynamic threshold of Choudhury and
Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998, with alpha = 1). So a
single client gets at most half of the bound, N greedy ones get 1/(N+1) each, and a client that holds
nothing is always served while they are at work. No share is configured.
"""

from __future__ import annotations

import threading
from typing import Final

from gateway.errors import Refusal

RETRY_AFTER_SECONDS: Final = 2


def fits(held: int, amount: int, free: int) -> bool:
    """Tell whether a client that holds `held` may take `amount` of the `free` rest."""
    return held + amount <= free


class FairShare:
    """`total` of something that clients hold for a while. Thread-safe, never waits.

    `what` completes "the gateway serves all NUMBER ... that it can": downloads, connections.
    """

    def __init__(self, what: str, total: int) -> None:
        self.total = total
        self.used = 0
        self._what = what
        self._held: dict[str, int] = {}
        self._lock = threading.Lock()

    def held_by(self, client: str) -> int:
        """Return what a client holds."""
        return self._held.get(client, 0)

    def would_fit(self, client: str, amount: int = 1) -> bool:
        """Tell whether `acquire` would succeed now."""
        return fits(self.held_by(client), amount, self.total - self.used)

    def check(self, client: str, amount: int = 1) -> None:
        """Take nothing, and raise what `acquire` would raise."""
        if not self.would_fit(client, amount):
            raise self._refusal(self.held_by(client))

    def acquire(self, client: str, amount: int = 1) -> Lease:
        """Take `amount` for a client until the lease is closed.

        Raises `Refusal`: `too_many_requests` where the client holds its share, `overloaded` where
        nothing is free for a client that holds nothing.
        """
        if amount:
            self._take(client, amount)
        return Lease(self, client, amount)

    def _take(self, client: str, amount: int) -> None:
        with self._lock:
            held = self._held.get(client, 0)
            if not fits(held, amount, self.total - self.used):
                raise self._refusal(held)
            self._held[client] = held + amount
            self.used += amount

    def _give_back(self, client: str, amount: int) -> None:
        with self._lock:
            held = self._held[client] - amount
            if held:
                self._held[client] = held
            else:
                del self._held[client]
            self.used -= amount

    def _refusal(self, held: int) -> Refusal:
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        if not held:
            message = f"the gateway is at its limit of {self.total} {self._what}: try again later"
            return Refusal("overloaded", message, headers)
        message = (
            f"this client holds {held} of at most {self.total} {self._what}: "
            "try again when some of them have ended"
        )
        return Refusal("too_many_requests", message, headers)


class Lease:
    """What one client took of a `FairShare`. Also a context manager."""

    __slots__ = ("_amount", "_client", "_share")

    def __init__(self, share: FairShare, client: str, amount: int) -> None:
        self._share = share
        self._client = client
        self._amount = amount

    def extend(self, amount: int) -> None:
        """Take more. Raises as `FairShare.acquire`, and then what is held stays."""
        if amount:
            self._share._take(self._client, amount)
            self._amount += amount

    def close(self) -> None:
        """Give everything back. A second call does nothing."""
        amount, self._amount = self._amount, 0
        if amount:
            self._share._give_back(self._client, amount)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
