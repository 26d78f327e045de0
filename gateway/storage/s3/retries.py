"""S3 room: how often a request is tried, and how certain its end is.

One rule: what publishes ends as published, refused, or as something that nobody can tell; never one
for another. All else may be repeated freely. On the server's loop.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from gateway.errors import GatewayError, Refusal
from gateway.storage.s3.client import Client, Clients
from gateway.storage.s3.errors import code_of, is_away, refusal_of

T = TypeVar("T")

LOOK_SECONDS: Final = 10.0
"""How long a client waits to be told that the storage is away."""

SEND_SECONDS: Final = 90.0
"""How long a request is repeated, from its first fault on: a storage may be away for a minute, and
needs a while to start."""

PUBLISH_SECONDS: Final = 300.0
"""How long one request that completes an upload may take: thousands of parts are put together."""

_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0
_NOT_DONE: Final = frozenset({"SlowDown", "ServiceUnavailable"})
"""Answers in 5xx that mean that nothing was done (Amazon S3 API reference, "Error responses")."""

_TAKEN: Final = frozenset({"PreconditionFailed", "412"})


class KeyTakenError(GatewayError):
    """There is an object of this key, and none may be replaced."""


class DoubtfulError(GatewayError):
    """Nobody can say whether the object was published; it may even be a little later."""


class RequestRetrier:
    """Tries requests. `away` tells whether the latest one found nobody there."""

    def __init__(self, clients: Clients) -> None:
        self.clients = clients
        self.away = False

    async def persist(
        self,
        doing: str,
        call: Callable[[Client], Awaitable[T]],
        patience: float,
        *,
        attempt: float | None = LOOK_SECONDS,
    ) -> T:
        """Do what may be repeated, until it is done, refused, or `patience` has run out.

        `attempt` are the seconds that one try may take, None where it watches itself. Raises `Refusal`.
        """
        pauses = _Pauses(patience)
        while True:
            try:
                client = await self.clients.client()
                async with asyncio.timeout(attempt):
                    result = await call(client)
            except Exception as fault:
                if isinstance(fault, GatewayError):
                    raise
                self.away = is_away(fault)
                if not self.away or not await pauses.next():
                    raise _refused(fault, doing) from fault
            else:
                self.away = False
                return result

    async def publish(self, doing: str, call: Callable[[Client], Awaitable[str]]) -> str:
        """Do what makes an object visible.

        Raises `KeyTakenError` or `Refusal` where it is certain that it did not, else `DoubtfulError`.
        """
        pauses, doubtful = _Pauses(SEND_SECONDS), False
        client = await self.clients.client()
        while True:
            try:
                async with asyncio.timeout(PUBLISH_SECONDS):
                    tag = await call(client)
            except Exception as fault:
                self.away = is_away(fault)
                doubtful = doubtful or (self.away and not _not_done(fault))
                if self.away and await pauses.next():
                    continue
                if doubtful:
                    raise DoubtfulError(f"{doing}: {fault}") from fault
                if code_of(fault) in _TAKEN:
                    raise KeyTakenError("there is an object of this name") from fault
                raise _refused(fault, doing) from fault
            self.away = False
            return tag


class _Pauses:
    """Pauses between tries, doubling, for so many seconds from the first one on."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._until: float | None = None
        self._pause = _FIRST_PAUSE

    async def next(self) -> bool:
        """Pause; False, at once, where the time is up."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._patience
        if now + self._pause > self._until:
            return False
        await asyncio.sleep(self._pause * random.uniform(0.5, 1))  # noqa: S311 - no secret
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        return True


def _not_done(fault: Exception) -> bool:
    """Tell whether a request certainly was not carried out, although it may be repeated."""
    import aiohttp
    from botocore.exceptions import ConnectTimeoutError

    if code_of(fault) in _NOT_DONE or isinstance(fault, ConnectTimeoutError):
        return True
    inner = getattr(fault, "kwargs", {}).get("error")
    return isinstance(inner, aiohttp.ClientConnectorError)


def _refused(fault: Exception, doing: str) -> Exception:
    from botocore.exceptions import ParamValidationError

    if isinstance(fault, ParamValidationError):
        return Refusal("bad_request", "the storage takes no such metadata or headers")
    return refusal_of(fault, doing) or fault
