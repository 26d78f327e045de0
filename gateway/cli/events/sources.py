"""The verb `events`: where its answers come from, a part for each slot of the directory.

The rule: a slot that a server owns is asked through the owner's socket; one that nobody owns is
opened here, under its lock, for one question at a time, so that a server that starts meanwhile
waits some milliseconds. What was handed to NATS is asked for there.
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

SECONDS: Final = 10.0
"""How long a server that owns a slot, and does not answer, is given to start or to end."""

_AGAIN: Final = 0.05

Question = Callable[[Ledger], Awaitable[T]]


@asynccontextmanager
async def gathered(settings: Settings) -> AsyncIterator[CombinedLedger]:
    """Give all that is known of the events of a directory, and of its NATS where it has one.

    Raises `ConfigError` where there is nothing to ask, or NATS cannot be reached.
    """
    parts: dict[str, Ledger] = {
        f"slot-{slot}": SlotLedger(settings.state, slot) for slot in existing_slots(settings.state)
    }
    if settings.events != "journal":
        async with _nats(settings) as ledger:
            yield CombinedLedger(lambda: {**parts, "nats": ledger}, pausing=lambda: {"nats": ledger})
        return
    if not parts:
        raise ConfigError(
            "there is no journal: no gateway has served this directory yet; give its --directory",
            str(settings.directory),
        )
    yield CombinedLedger(lambda: parts)


@asynccontextmanager
async def _nats(settings: Settings) -> AsyncIterator[Ledger]:
    engine = make_engine(settings, "command-line")
    engine.start()
    try:
        try:
            async with asyncio.timeout(SECONDS):
                await engine.wait_ready()
        except TimeoutError:
            raise ConfigError(f"{engine.shown} cannot be reached; does the NATS server run?") from None
        yield engine.ledger
    finally:
        await engine.close()


class SlotLedger:
    """The ledger of one slot, whichever process has it now. Implements `Ledger`."""

    def __init__(self, folder: Path, slot: int) -> None:
        self._state = StateDirectory(folder, slot)

    async def depth(self) -> list[Depth]:
        """Count all that is not done."""
        return await self._ask(lambda ledger: ledger.depth())

    async def page(self, selection: Selection, after: str | None, limit: int) -> DeliveryPage:
        """Return up to `limit` rows behind the cursor `after`."""
        return await self._ask(lambda ledger: ledger.page(selection, after, limit))

    async def history(self, event_id: str) -> EventHistory | None:
        """Return an event with its stories, or None."""
        return await self._ask(lambda ledger: ledger.history(event_id))

    async def run_chunk(self, verb: Verb, selection: Selection, after: str | None) -> ChunkResult:
        """Do one bounded chunk of `verb`."""
        return await self._ask(lambda ledger: ledger.run_chunk(verb, selection, after))

    async def pause(self, handler: str) -> None:
        """Stop claiming for this handler."""
        await self._ask(lambda ledger: ledger.pause(handler))

    async def resume(self, handler: str) -> None:
        """Claim again."""
        await self._ask(lambda ledger: ledger.resume(handler))

    async def paused(self) -> frozenset[str]:
        """Return the handlers that are paused."""
        return await self._ask(lambda ledger: ledger.paused())

    async def _ask(self, question: Question[T]) -> T:
        """Ask whoever has the slot, and again while it changes hands. Raises `ConfigError`."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                async with self._nobodys() as ledger:
                    return await question(ledger)
            except LockHeldError:
                pass
            try:
                async with self._owners() as ledger:
                    return await question(ledger)
            except EventEngineUnavailable as fault:
                if time.monotonic() > deadline:
                    raise self._silent(fault) from fault
            await asyncio.sleep(_AGAIN)

    @asynccontextmanager
    async def _nobodys(self) -> AsyncIterator[Ledger]:
        """The journal itself. Raises `LockHeldError`, `ConfigError`."""
        self._state.prepare()
        self._state.lock()
        try:
            if not self._state.journal.exists():
                # Another slot has adopted it meanwhile.
                yield CombinedLedger(dict)
                return
            journal = Journal(self._state.journal)
            try:
                journal.open()
                yield journal.ledger
            finally:
                journal.close()
        finally:
            self._state.unlock()

    @asynccontextmanager
    async def _owners(self) -> AsyncIterator[Ledger]:
        """The server that owns the slot."""
        with self._state.short_socket_path() as path:
            async with socket_session(path) as session:
                yield RemoteLedger(session, alone=True)

    def _silent(self, fault: EventEngineUnavailable) -> ConfigError:
        return ConfigError(
            f"the server that owns the directory does not answer ({fault}); is it starting or stopping?",
            str(self._state.socket),
        )
