"""Which request has a partial upload, and how a newer one takes it over. On the server's event loop.

A client that comes back often has an older request here that hangs: its connection is gone, and nothing
has told us. A newer request of the same upload ends it at once: its socket is shut down, so that what
the kernel has received is still read, and then it settles and lets go. Source:
draft-ietf-httpbis-resumable-upload section 4.6.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from aiohttp import web

from gateway.commit.partials import OpenPartial, PartialBusy, PartialStore
from gateway.errors import ClientDisconnected, GatewayError, Refusal
from gateway.telemetry.metrics import Metrics

TAKEOVER_TIMEOUT: Final = 5.0
"""Seconds that a request waits for an older one to let go. A commit may take longer: it is not ended."""

RETRY_INTERVAL: Final = 0.02
"""Seconds between two tries to open what another process has open."""

DRAIN_TIMEOUT: Final = 0.25
"""Seconds in which a request that is taken over still reads what has been received for it."""

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of no time (socket(7)): a client that waits to send learns at once that it is over.

Else, where nothing was left to read, it learns when the kernel gives up, a minute later."""

_ENDED_STATES: Final = frozenset({4, 5, 6, 7, 8, 9, 11})
"""States of a TCP connection of which an end has come, from FIN_WAIT1 to CLOSING (tcp(7), tcp_states.h).

4 FIN_WAIT1, 5 FIN_WAIT2, 6 TIME_WAIT, 7 CLOSE, 8 CLOSE_WAIT, 9 LAST_ACK, 11 CLOSING."""

Released = Literal["none", "ended", "kept"]
"""What became of the request that has an upload open: there is none, it ended, or it goes on."""


class AppendGoesOn(GatewayError):
    """Another request appends to the upload, and began at another offset than this one names."""


class SiblingProcesses(Protocol):
    """The other processes of this gateway."""

    async def release_partial(self, upload_id: str, offset: int | None) -> Released:
        """Let the process that has an upload open let go of it, see `RunningRequests.release`."""


@dataclass(slots=True)
class RunningRequest:
    """A request that has a partial upload open, or is about to open it.

    `at_offset` is the offset at which it appends, None for one that brings no bytes. `reverts` says that
    a newer request appends at the same offset: what came of this one is dropped.
    """

    request: web.BaseRequest
    at_offset: int | None = None
    is_open: bool = False
    superseded: bool = False
    reverts: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _receiving: asyncio.Timeout | None = None

    def supersede(self, *, reverts: bool) -> None:
        """Make the request let go: at once where it receives, else as soon as it can."""
        first, self.superseded = not self.superseded, True
        self.reverts = self.reverts or reverts
        if first and self._receiving is not None:
            _shut_down(self.request)
            self._receiving.reschedule(asyncio.get_running_loop().time() + DRAIN_TIMEOUT)

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[None]:
        """The time in which the request may be ended by another one. Raises `TimeoutError` then."""
        if self.superseded:
            raise TimeoutError
        try:
            async with asyncio.timeout(None) as self._receiving:
                yield
        finally:
            self._receiving = None


class RunningRequests:
    """The requests of this process that have a partial upload open. Idle ones take no memory."""

    def __init__(self, store: PartialStore, siblings: SiblingProcesses, metrics: Metrics) -> None:
        self.store = store
        self._siblings = siblings
        self._seconds = metrics.partials.handover_seconds
        self._running: dict[str, RunningRequest] = {}
        metrics.partials.receiving = self.__len__

    def __len__(self) -> int:
        return len(self._running)

    @asynccontextmanager
    async def created(self, upload_id: str, running: RunningRequest) -> AsyncIterator[None]:
        """Count in the request that creates an upload, which no other knows yet."""
        self._running[upload_id] = running
        running.is_open = True
        try:
            yield
        finally:
            self._end(upload_id, running)

    def __contains__(self, upload_id: str) -> bool:
        return upload_id in self._running

    @asynccontextmanager
    async def opened(
        self, upload_id: str, request: web.BaseRequest, offset: int | None = None
    ) -> AsyncIterator[tuple[OpenPartial, RunningRequest]]:
        """Take an upload over from whatever request has it, and open it; the caller closes it.

        `offset` is where the request appends. Raises `AppendGoesOn`, `Refusal`: `locked`, `not_found`.
        """
        started, running = time.monotonic(), RunningRequest(request, offset)
        deadline = started + TAKEOVER_TIMEOUT
        waited = await self._enter(upload_id, running, deadline)
        try:
            opened, waited_for_others = await self._open(upload_id, running, deadline)
            running.is_open = True
            if waited or waited_for_others:
                self._seconds.observe(time.monotonic() - started)
            yield opened, running
        finally:
            self._end(upload_id, running)

    async def release(self, upload_id: str, offset: int | None) -> Released:
        """End the request that has an upload open, and wait for that.

        It goes on where another append than its own, at `offset`, is to take its place.
        """
        older = self._running.get(upload_id)
        if older is None or not older.is_open:
            return "none"
        if _goes_on(older, offset):
            return "kept"
        older.supersede(reverts=_replaces(older, offset))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TAKEOVER_TIMEOUT):
                await older.ended.wait()
        return "ended" if older.ended.is_set() else "none"

    async def _enter(self, upload_id: str, running: RunningRequest, deadline: float) -> bool:
        """Become the request of this process that has the upload; tell whether there was another."""
        waited = False
        while (older := self._running.get(upload_id)) is not None:
            waited = True
            refuse_gone(running.request)
            if _goes_on(older, running.at_offset):
                raise AppendGoesOn
            older.supersede(reverts=_replaces(older, running.at_offset))
            try:
                async with asyncio.timeout(max(deadline - time.monotonic(), 0.0)):
                    await older.ended.wait()
            except TimeoutError:
                raise _locked() from None
        self._running[upload_id] = running
        return waited

    async def _open(
        self, upload_id: str, running: RunningRequest, deadline: float
    ) -> tuple[OpenPartial, bool]:
        """Open the upload, taking it over from another process; tell whether one had it."""
        waited = False
        while True:
            with contextlib.suppress(PartialBusy):
                return await self.store.open(upload_id), waited
            waited = True
            refuse_gone(running.request)
            released = await self._siblings.release_partial(upload_id, running.at_offset)
            if released == "kept":
                raise AppendGoesOn
            if running.superseded or time.monotonic() > deadline:
                raise _locked()
            if released == "none":
                await asyncio.sleep(RETRY_INTERVAL)

    def _end(self, upload_id: str, running: RunningRequest) -> None:
        if self._running.get(upload_id) is running:
            del self._running[upload_id]
        running.ended.set()


def _goes_on(older: RunningRequest, offset: int | None) -> bool:
    """Tell whether a request goes on although a newer one appends: at another offset.

    A stale client must not end a good append.
    """
    return offset is not None and older.at_offset is not None and offset != older.at_offset


def _replaces(older: RunningRequest, offset: int | None) -> bool:
    """Tell whether a newer request brings the same bytes again."""
    return offset is not None and older.at_offset is not None


def _locked() -> Refusal:
    return Refusal("locked", "another request of this upload has not ended yet: try again")


def refuse_gone(request: web.BaseRequest) -> None:
    """Refuse a request whose client has closed its connection: it is older than it looks.

    Its bytes may have waited in a buffer while the client came back on another connection, and what it
    began there must not end. Raises `ClientDisconnected`.
    """
    transport = request.transport
    if transport is None or transport.is_closing() or _peer_has_closed(transport):
        raise ClientDisconnected("the client has closed the connection of this request")


def _peer_has_closed(transport: asyncio.Transport) -> bool:
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family not in {socket.AF_INET, socket.AF_INET6}:
        return False
    try:
        state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except (OSError, AttributeError):  # another system
        return False
    return state in _ENDED_STATES


def _shut_down(request: web.BaseRequest) -> None:
    """Let the connection of a request end, in both directions; what has come can still be read.

    By a descriptor of its own: aborting the transport would lose what it has not read, and does not end
    a detached socket.
    """
    transport = request.transport
    connection = None if transport is None else transport.get_extra_info("socket")
    if connection is None:
        return
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        duplicate.shutdown(socket.SHUT_RDWR)
