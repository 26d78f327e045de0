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
from gateway.storage.s3.errors import code_of, is_unavailable, refusal_of

T = TypeVar("T")

REQUEST_TIMEOUT: Final = 10.0
"""How long a client waits to be told that the storage is away."""

RETRY_TIMEOUT: Final = 90.0
"""How long a request is repeated, from its first fault on: a storage may be away for a minute, and
needs a while to start."""

PUBLISH_TIMEOUT: Final = 300.0
"""How long one request that completes an upload may take: thousands of parts are put together."""

_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0
_NOT_DONE: Final = frozenset({"SlowDown", "ServiceUnavailable"})
"""Answers in 5xx that mean that nothing was done (Amazon S3 API reference, "Error responses")."""

_TAKEN: Final = frozenset({"PreconditionFailed", "412"})


class KeyTakenError(GatewayError):
    """There is an object of this key, and none may be replaced."""


class OutcomeUnknownError(GatewayError):
    """Nobody can say whether the object was published; it may even be a little later."""


class RequestRetrier:
    """Tries requests. `unavailable` tells whether the latest one found nobody there."""

    def __init__(self, clients: Clients) -> None:
        self.clients = clients
        self.unavailable = False

    async def retry(
        self,
        operation: str,
        call: Callable[[Client], Awaitable[T]],
        retry_for: float,
        *,
        attempt: float | None = REQUEST_TIMEOUT,
    ) -> T:
        """Do what may be repeated, until it is done, refused, or `retry_for` seconds have passed.

        `attempt` are the seconds that one try may take, None where it watches itself. Raises `Refusal`.
        """
        pauses = _Pauses(retry_for)
        while True:
            try:
                client = await self.clients.client()
                async with asyncio.timeout(attempt):
                    result = await call(client)
            except Exception as fault:
                if isinstance(fault, GatewayError):
                    raise
                self.unavailable = is_unavailable(fault)
                if not self.unavailable or not await pauses.next():
                    raise _refused(fault, operation) from fault
            else:
                self.unavailable = False
                return result

    async def publish(self, operation: str, call: Callable[[Client], Awaitable[str]]) -> str:
        """Do what makes an object visible.

        Raises `KeyTakenError` or `Refusal` where it is certain that it did not, else
        `OutcomeUnknownError`.
        """
        pauses, doubtful = _Pauses(RETRY_TIMEOUT), False
        client = await self.clients.client()
        while True:
            try:
                async with asyncio.timeout(PUBLISH_TIMEOUT):
                    tag = await call(client)
            except Exception as fault:
                self.unavailable = is_unavailable(fault)
                doubtful = doubtful or (self.unavailable and not _not_done(fault))
                if self.unavailable and await pauses.next():
                    continue
                if doubtful:
                    raise OutcomeUnknownError(f"{operation}: {fault}") from fault
                if code_of(fault) in _TAKEN:
                    raise KeyTakenError("there is an object of this name") from fault
                raise _refused(fault, operation) from fault
            self.unavailable = False
            return tag


class _Pauses:
    """Pauses between tries, doubling, for so many seconds from the first one on."""

    def __init__(self, retry_for: float) -> None:
        self._retry_for = retry_for
        self._until: float | None = None
        self._pause = _FIRST_PAUSE

    async def next(self) -> bool:
        """Pause; False, at once, where the time is up."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._retry_for
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


def _refused(fault: Exception, operation: str) -> Exception:
    from botocore.exceptions import ParamValidationError

    if isinstance(fault, ParamValidationError):
        return Refusal("bad_request", "the storage takes no such metadata or headers")
    return refusal_of(fault, operation) or fault
