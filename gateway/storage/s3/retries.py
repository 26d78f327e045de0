"""How often a request to S3 is tried, and how certain its outcome is. On the server's loop.

What publishes an object ends as published, refused or unknown, never mixed up. All else may repeat.
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
"""Seconds after which a request is refused because the storage is unavailable."""

RETRY_TIMEOUT: Final = 90.0
"""Seconds from the first failure on: a storage may be unavailable for a minute, and starts slowly."""

PUBLISH_TIMEOUT: Final = 300.0
"""Seconds that one request may take that completes an upload: S3 joins thousands of parts."""

_FIRST_DELAY: Final = 0.2
_MAX_DELAY: Final = 5.0
_NOT_DONE: Final = frozenset({"SlowDown", "ServiceUnavailable"})
"""Codes in 5xx that mean that nothing was done (Amazon S3 API reference, "Error responses")."""

_KEY_EXISTS: Final = frozenset({"PreconditionFailed", "412"})


class KeyExistsError(GatewayError):
    """There is an object of this key, and none may be replaced."""


class OutcomeUnknownError(GatewayError):
    """The object may have been published, or may be a little later."""


class RequestRetrier:
    """Tries requests to a bucket."""

    def __init__(self, clients: Clients) -> None:
        self.clients = clients

    async def retry(
        self,
        operation: str,
        call: Callable[[Client], Awaitable[T]],
        retry_for: float,
        *,
        attempt: float | None = REQUEST_TIMEOUT,
    ) -> T:
        """Do what may be repeated, until it is done, refused, or `retry_for` seconds have passed.

        One try may take `attempt` seconds, None where it has its own timeout. Raises `Refusal`.
        """
        delays = _Delays(retry_for)
        while True:
            try:
                client = await self.clients.client()
                async with asyncio.timeout(attempt):
                    result = await call(client)
            except Exception as error:
                if isinstance(error, GatewayError):
                    raise
                if not is_unavailable(error) or not await delays.sleep():
                    raise _refused(error, operation) from error
            else:
                return result

    async def publish_once(self, operation: str, call: Callable[[Client], Awaitable[str]]) -> str:
        """Do what changes an object, in one try. Raises as `publish` does."""
        client = await self.clients.client()
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                return await call(client)
        except Exception as error:
            raise _outcome_of(
                error, operation, unknown=is_unavailable(error) and not _not_done(error)
            ) from error

    async def publish(self, operation: str, call: Callable[[Client], Awaitable[str]]) -> str:
        """Do what makes an object visible.

        Raises `KeyExistsError` or `Refusal` where it certainly did not, else `OutcomeUnknownError`.
        """
        delays, unknown = _Delays(RETRY_TIMEOUT), False
        client = await self.clients.client()
        while True:
            try:
                async with asyncio.timeout(PUBLISH_TIMEOUT):
                    tag = await call(client)
            except Exception as error:
                unavailable = is_unavailable(error)
                unknown = unknown or (unavailable and not _not_done(error))
                if unavailable and await delays.sleep():
                    continue
                raise _outcome_of(error, operation, unknown=unknown) from error
            return tag


class _Delays:
    """Delays between tries, doubling, for `retry_for` seconds from the first one on."""

    def __init__(self, retry_for: float) -> None:
        self._retry_for = retry_for
        self._until: float | None = None
        self._delay = _FIRST_DELAY

    async def sleep(self) -> bool:
        """Wait for the next try; False, at once, where the time is over."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._retry_for
        if now + self._delay > self._until:
            return False
        await asyncio.sleep(self._delay * random.uniform(0.5, 1))  # noqa: S311 - no secret
        self._delay = min(self._delay * 2, _MAX_DELAY)
        return True


def _outcome_of(error: Exception, operation: str, *, unknown: bool) -> Exception:
    """Return what a failed change of an object means."""
    if unknown:
        return OutcomeUnknownError(f"{operation}: {error}")
    if code_of(error) in _KEY_EXISTS:
        return KeyExistsError("there is an object of this name")
    return _refused(error, operation)


def _not_done(error: Exception) -> bool:
    """Tell whether a request certainly was not carried out, although it may be repeated."""
    import aiohttp
    from botocore.exceptions import ConnectTimeoutError

    if code_of(error) in _NOT_DONE or isinstance(error, ConnectTimeoutError):
        return True
    inner = getattr(error, "kwargs", {}).get("error")
    return isinstance(inner, aiohttp.ClientConnectorError)


def _refused(error: Exception, operation: str) -> Exception:
    from botocore.exceptions import ParamValidationError

    if isinstance(error, ParamValidationError):
        return Refusal("bad_request", "the storage takes no such metadata or headers")
    return refusal_of(error, operation) or error
