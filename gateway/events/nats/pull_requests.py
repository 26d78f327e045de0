"""Events room, NATS: asking a consumer for messages, and knowing when the asking has ended.

The rule: every request ends with the server's word (its batch is full, or a status), so that
nothing asked for arrives when nobody waits any more: its lease would run out unseen. What comes
after all, for a request that was cancelled, is a stray. Source: docs.nats.io, JetStream wire API,
`CONSUMER.MSG.NEXT`.
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
from gateway.events.nats.connection import PATIENCE, Connection, reaching

_NOTHING_THERE: Final = frozenset({"404", "408"})
"""Statuses of an empty or timed-out pull."""

_HEARTBEAT: Final = "100"

HEARTBEAT_SECONDS: Final = 2.0
"""How often the server says that a long pull still stands. A leader that dies says nothing."""

_LONG: Final = 3 * HEARTBEAT_SECONDS

_NOBODY: Final = "503"
"""Nobody answers for a consumer. So it is for a moment in a cluster, after it was made or moved."""

_SETTLING_SECONDS: Final = 1.0
"""How long such a consumer is asked again, with a pause between."""

_PAUSE: Final = 0.05

Stray = Callable[[Msg], Awaitable[None]]


class _NoRespondersError(EventEngineUnavailable):
    """No server answers for the consumer."""


class PullRequests:
    """Requests for messages. `stray` gets what arrives when nobody waits for it any more."""

    def __init__(self, connection: Connection, stray: Stray) -> None:
        self._connection = connection
        self._stray = stray
        self._idle: list[_Inbox] = []
        self._all: set[_Inbox] = set()
        connection.on_change.append(self._give_up)

    async def pull(self, stream: str, consumer: str, limit: int, wait: float) -> list[Msg]:
        """Return up to `limit` messages that are due; wait up to `wait` seconds for the first.

        Raises `EventEngineUnavailable`.
        """
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        async with reaching():
            found = await self._ask_first(subject, {"batch": limit, "no_wait": True})
            if found or wait <= 0:
                return found
            asked = {"batch": 1, "expires": int(wait * 1e9)}
            if wait >= _LONG:
                asked["idle_heartbeat"] = int(HEARTBEAT_SECONDS * 1e9)
            return await self._ask(subject, asked, min(wait, _LONG) + PATIENCE)

    async def close(self) -> None:
        """Listen no more."""
        for inbox in list(self._all):
            await self._drop(inbox)

    async def _ask_first(self, subject: str, asked: dict[str, Any]) -> list[Msg]:
        """Ask, and again for a moment where nobody answers for the consumer yet."""
        until = time.monotonic() + _SETTLING_SECONDS
        while True:
            try:
                return await self._ask(subject, asked, PATIENCE)
            except _NoRespondersError:
                if time.monotonic() >= until:
                    raise
                await asyncio.sleep(_PAUSE)

    async def _ask(self, subject: str, asked: dict[str, Any], patience: float) -> list[Msg]:
        client = self._connection.client
        inbox = self._idle_at(client) or await self._listen(client)
        inbox.asking = True
        try:
            await client.publish(subject, json.dumps(asked).encode(), inbox.subject)
            found = await inbox.collect(int(asked["batch"]), patience)
        except asyncio.CancelledError:
            inbox.asking = False
            # It stays subscribed: what the server sends for this request is given back.
            await inbox.empty()
            raise
        except BaseException:
            inbox.asking = False
            await self._drop(inbox)
            raise
        inbox.asking = False
        self._idle.append(inbox)
        return found

    def _give_up(self) -> None:
        """The connection was lost or is another one: no server knows our requests any more."""
        for inbox in self._all:
            inbox.give_up()

    def _idle_at(self, client: Client) -> _Inbox | None:
        """Return an inbox that this client listens at. Those of an earlier one hear nothing more."""
        while self._idle:
            inbox = self._idle.pop()
            if inbox.client is client:
                return inbox
            self._all.discard(inbox)
        return None

    async def _listen(self, client: Client) -> _Inbox:
        inbox = _Inbox(client, self._stray)
        inbox.subscription = await client.subscribe(inbox.subject, cb=inbox.take)
        self._all.add(inbox)
        return inbox

    async def _drop(self, inbox: _Inbox) -> None:
        self._all.discard(inbox)
        if inbox in self._idle:
            self._idle.remove(inbox)
        if inbox.subscription is not None:
            with contextlib.suppress(EventEngineUnavailable):
                async with reaching():
                    await inbox.subscription.unsubscribe()
        await inbox.empty()


class _Inbox:
    """Where the answers to one request at a time arrive: they do not say which one they belong to."""

    def __init__(self, client: Client, stray: Stray) -> None:
        self.client = client
        self.subject = client.new_inbox()
        self.subscription: Subscription | None = None
        self.asking = False
        self._stray = stray
        self._came: asyncio.Queue[Msg | None] = asyncio.Queue()
        self._found: list[Msg] = []

    async def take(self, message: Msg) -> None:
        """Take a message from the connection."""
        if self.asking:
            self._came.put_nowait(message)
        elif _status(message) is None:
            await self._stray(message)

    def give_up(self) -> None:
        """Let `collect` end with what it has, or raise `EventEngineUnavailable`."""
        if self.asking:
            self._came.put_nowait(None)

    async def collect(self, limit: int, patience: float) -> list[Msg]:
        """Return what comes until the batch is full or the server says that this is all.

        Raises `EventEngineUnavailable`, `TimeoutError` after `patience` seconds of silence.
        """
        while len(self._found) < limit:
            async with asyncio.timeout(patience):
                message = await self._came.get()
            status = "lost" if message is None else _status(message)
            if message is not None and status is None:
                self._found.append(message)
            elif status in _NOTHING_THERE or (self._found and status != _HEARTBEAT):
                break
            elif status != _HEARTBEAT:
                why = "" if message is None else (message.headers or {}).get("Description", "")
                fault = _NoRespondersError if status == _NOBODY else EventEngineUnavailable
                raise fault(f"NATS: the consumer cannot be asked ({status} {why})")
        found, self._found = self._found, []
        return found

    async def empty(self) -> None:
        """Hand on what has come for a request that ended early."""
        while not self._came.empty():
            message = self._came.get_nowait()
            if message is not None and _status(message) is None:
                self._found.append(message)
        while self._found:
            await self._stray(self._found.pop())


def _status(message: Msg) -> str | None:
    return None if message.headers is None else message.headers.get("Status")
