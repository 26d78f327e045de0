"""Pull requests to a consumer.

Every request ends with a full batch or a status of the server, so that no message arrives unexpectedly
and loses its lease unseen. A message of a cancelled request is a stray. Source: docs.nats.io, JetStream
wire API, `CONSUMER.MSG.NEXT`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from gateway.errors import EventEngineUnavailable
from gateway.events.nats.connection import REQUEST_TIMEOUT, Connection, mapped_errors

_EMPTY_STATUSES: Final = frozenset({"404", "408"})
"""Statuses of an empty or timed-out pull."""

_HEARTBEAT_STATUS: Final = "100"

HEARTBEAT_INTERVAL: Final = 2.0
"""Seconds between two heartbeats of a long pull. A leader that dies sends none."""

_LONG_PULL: Final = 3 * HEARTBEAT_INTERVAL

_NO_RESPONDERS: Final = "503"
"""No server answers for a consumer: for a moment in a cluster, after it was made or moved."""

_RETRY_TIMEOUT: Final = 1.0
"""Seconds in which such a consumer is asked again, every `_RETRY_INTERVAL`."""

_RETRY_INTERVAL: Final = 0.05

StrayHandler = Callable[[Msg], Awaitable[None]]


class _NoRespondersError(EventEngineUnavailable):
    """No server answers for the consumer."""


class PullRequests:
    """Pulls messages. `on_stray` gets the messages of cancelled requests."""

    def __init__(self, connection: Connection, on_stray: StrayHandler) -> None:
        self._connection = connection
        self._on_stray = on_stray
        self._idle: list[_Inbox] = []
        self._all: set[_Inbox] = set()
        connection.on_change.append(self._cancel_all)

    async def pull(self, stream: str, consumer: str, limit: int, wait: float) -> list[Msg]:
        """Return up to `limit` messages that are due; wait up to `wait` seconds for the first.

        Raises `EventEngineUnavailable`.
        """
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        async with mapped_errors():
            messages = await self._request_now(subject, {"batch": limit, "no_wait": True})
            if messages or wait <= 0:
                return messages
            request = {"batch": 1, "expires": int(wait * 1e9)}
            if wait >= _LONG_PULL:
                request["idle_heartbeat"] = int(HEARTBEAT_INTERVAL * 1e9)
            return await self._request(subject, request, min(wait, _LONG_PULL) + REQUEST_TIMEOUT)

    async def close(self) -> None:
        """Unsubscribe."""
        for inbox in list(self._all):
            await self._unsubscribe(inbox)

    async def _request_now(self, subject: str, request: dict[str, Any]) -> list[Msg]:
        """Request, and again for a moment while no server answers for the consumer."""
        until = time.monotonic() + _RETRY_TIMEOUT
        while True:
            try:
                return await self._request(subject, request, REQUEST_TIMEOUT)
            except _NoRespondersError:
                if time.monotonic() >= until:
                    raise
                await asyncio.sleep(_RETRY_INTERVAL)

    async def _request(self, subject: str, request: dict[str, Any], seconds: float) -> list[Msg]:
        client = self._connection.client
        inbox = self._idle_inbox(client) or await self._subscribe(client)
        inbox.active = True
        try:
            await client.publish(subject, json.dumps(request).encode(), inbox.subject)
            messages = await inbox.collect(int(request["batch"]), seconds)
        except asyncio.CancelledError:
            inbox.active = False
            # It stays subscribed: what the server sends for this request goes back to the queue.
            await inbox.pass_on_strays()
            raise
        except BaseException:
            inbox.active = False
            await self._unsubscribe(inbox)
            raise
        inbox.active = False
        self._idle.append(inbox)
        return messages

    def _cancel_all(self) -> None:
        """End all requests: the connection was lost or is a new one, and no server has them any more."""
        for inbox in self._all:
            inbox.cancel()

    def _idle_inbox(self, client: Client) -> _Inbox | None:
        """Return an idle inbox of this client. Those of an earlier client get nothing any more."""
        while self._idle:
            inbox = self._idle.pop()
            if inbox.client is client:
                return inbox
            self._all.discard(inbox)
        return None

    async def _subscribe(self, client: Client) -> _Inbox:
        inbox = _Inbox(client, self._on_stray)
        inbox.subscription = await client.subscribe(inbox.subject, cb=inbox.receive)
        self._all.add(inbox)
        return inbox

    async def _unsubscribe(self, inbox: _Inbox) -> None:
        self._all.discard(inbox)
        if inbox in self._idle:
            self._idle.remove(inbox)
        if inbox.subscription is not None:
            with contextlib.suppress(EventEngineUnavailable):
                async with mapped_errors():
                    await inbox.subscription.unsubscribe()
        await inbox.pass_on_strays()


class _Inbox:
    """Receives the answers to one request at a time: they do not say to which one they belong."""

    def __init__(self, client: Client, on_stray: StrayHandler) -> None:
        self.client = client
        self.subject = client.new_inbox()
        self.subscription: Subscription | None = None
        self.active = False
        self._on_stray = on_stray
        self._received: asyncio.Queue[Msg | None] = asyncio.Queue()
        self._messages: list[Msg] = []

    async def receive(self, message: Msg) -> None:
        """Receive a message from the connection."""
        if self.active:
            self._received.put_nowait(message)
        elif _status(message) is None:
            await self._on_stray(message)

    def cancel(self) -> None:
        """End `collect` with what it has, or with `EventEngineUnavailable`."""
        if self.active:
            self._received.put_nowait(None)

    async def collect(self, limit: int, seconds: float) -> list[Msg]:
        """Return what comes until the batch is full or the server ends the request.

        Raises `EventEngineUnavailable`, `TimeoutError` after `seconds` without a message.
        """
        while len(self._messages) < limit:
            async with asyncio.timeout(seconds):
                message = await self._received.get()
            status = "lost" if message is None else _status(message)
            if message is not None and status is None:
                self._messages.append(message)
            elif status in _EMPTY_STATUSES or (self._messages and status != _HEARTBEAT_STATUS):
                break
            elif status != _HEARTBEAT_STATUS:
                reason = "" if message is None else (message.headers or {}).get("Description", "")
                kind = _NoRespondersError if status == _NO_RESPONDERS else EventEngineUnavailable
                raise kind(f"NATS: the consumer does not answer ({status} {reason})")
        messages, self._messages = self._messages, []
        return messages

    async def pass_on_strays(self) -> None:
        """Pass on the messages of a request that ended early."""
        while not self._received.empty():
            message = self._received.get_nowait()
            if message is not None and _status(message) is None:
                self._messages.append(message)
        while self._messages:
            await self._on_stray(self._messages.pop())


def _status(message: Msg) -> str | None:
    return None if message.headers is None else message.headers.get("Status")
