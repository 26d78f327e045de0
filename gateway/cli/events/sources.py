"""Sources of `gateway events`: a ledger for each slot of the directory, and the one of NATS.

The slot of a running server is queried through its socket. The journal of any other slot is opened
here under its lock, for one query at a time, so that a starting server waits only milliseconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

from gateway.errors import ConfigError, EventEngineUnavailable
from gateway.events.combined_ledger import CombinedLedger
from gateway.events.journal import Journal
from gateway.events.nats import make_engine
from gateway.events.protocols import (
    ChunkResult,
    DeliveryPage,
    Depth,
    EventHistory,
    Ledger,
    Selection,
    Verb,
)
from gateway.events.remote_ledger import RemoteLedger, socket_session
from gateway.settings import Settings
from gateway.storage.local.state_dir import LockHeldError, StateDirectory, existing_slots

T = TypeVar("T")

SERVER_TIMEOUT: Final = 10.0
"""Seconds for a server that owns a slot to finish its start or stop, and to answer."""

_RETRY_INTERVAL: Final = 0.05

Query = Callable[[Ledger], Awaitable[T]]


@asynccontextmanager
async def open_ledger(settings: Settings) -> AsyncIterator[CombinedLedger]:
    """Open the combined ledger of a directory and of its NATS, if it has one.

    Raises `ConfigError` if there is no journal or NATS is unavailable.
    """
    parts: dict[str, Ledger] = {
        f"slot-{slot}": SlotLedger(settings.state, slot) for slot in existing_slots(settings.state)
    }
    if settings.events != "journal":
        async with _nats(settings) as ledger:
            yield CombinedLedger({**parts, "nats": ledger}, pausing={"nats": ledger})
        return
    if not parts:
        raise ConfigError(
            "there is no journal: no gateway has served this directory yet; add --directory DIR",
            str(settings.directory),
        )
    yield CombinedLedger(parts)


@asynccontextmanager
async def _nats(settings: Settings) -> AsyncIterator[Ledger]:
    engine = make_engine(settings, "command-line")
    engine.start()
    try:
        try:
            async with asyncio.timeout(SERVER_TIMEOUT):
                await engine.wait_ready()
        except TimeoutError:
            raise ConfigError(f"{engine.shown} is unavailable; does the NATS server run?") from None
        yield engine.ledger
    finally:
        await engine.close()


class SlotLedger:
    """The ledger of one slot, with or without a running server. Implements `Ledger`."""

    def __init__(self, folder: Path, slot: int) -> None:
        self._state = StateDirectory(folder, slot)

    async def depth(self) -> list[Depth]:
        """Count the deliveries that are not done."""
        return await self._query(lambda ledger: ledger.depth())

    async def page(self, selection: Selection, after: str | None, limit: int) -> DeliveryPage:
        """Return up to `limit` rows after the cursor `after`."""
        return await self._query(lambda ledger: ledger.page(selection, after, limit))

    async def history(self, event_id: str) -> EventHistory | None:
        """Return an event with its deliveries, or None."""
        return await self._query(lambda ledger: ledger.history(event_id))

    async def run_chunk(self, verb: Verb, selection: Selection, after: str | None) -> ChunkResult:
        """Do one bounded chunk of `verb`."""
        return await self._query(lambda ledger: ledger.run_chunk(verb, selection, after))

    async def pause(self, handler: str) -> None:
        """Stop claiming for this handler."""
        await self._query(lambda ledger: ledger.pause(handler))

    async def resume(self, handler: str) -> None:
        """Claim for this handler again."""
        await self._query(lambda ledger: ledger.resume(handler))

    async def paused(self) -> frozenset[str]:
        """Return the paused handlers."""
        return await self._query(lambda ledger: ledger.paused())

    async def _query(self, query: Query[T]) -> T:
        """Query the journal or the server of the slot; retry while it changes. Raises `ConfigError`."""
        deadline = time.monotonic() + SERVER_TIMEOUT
        while True:
            try:
                async with self._journal_ledger() as ledger:
                    return await query(ledger)
            except LockHeldError:
                pass
            try:
                async with self._server_ledger() as ledger:
                    return await query(ledger)
            except EventEngineUnavailable as error:
                if time.monotonic() > deadline:
                    raise self._no_answer(error) from error
            await asyncio.sleep(_RETRY_INTERVAL)

    @asynccontextmanager
    async def _journal_ledger(self) -> AsyncIterator[Ledger]:
        """Open the journal of a slot without server. Raises `LockHeldError`, `ConfigError`."""
        self._state.prepare()
        self._state.lock.acquire()
        try:
            if not self._state.journal.exists():
                # Another slot has taken it over.
                yield CombinedLedger({})
                return
            journal = Journal(self._state.journal)
            try:
                journal.open()
                yield journal.ledger
            finally:
                journal.close()
        finally:
            self._state.lock.release()

    @asynccontextmanager
    async def _server_ledger(self) -> AsyncIterator[Ledger]:
        """Connect to the server of the slot."""
        with self._state.short_socket_path() as path:
            async with socket_session(path) as session:
                yield RemoteLedger(session, alone=True)

    def _no_answer(self, error: EventEngineUnavailable) -> ConfigError:
        return ConfigError(
            f"the server that owns the directory does not answer ({error}); is it starting or stopping?",
            str(self._state.socket),
        )
