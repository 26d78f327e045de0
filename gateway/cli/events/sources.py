"""Sources of `gateway events`: the running server, else the journals of the directory and NATS.

A running server is asked through its socket: it knows its processes and its event engine. Otherwise
the journal of each slot is opened here under its lock, for one query at a time, so that a starting
server waits only milliseconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

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
    QueueName,
    Selection,
    Verb,
)
from gateway.events.remote_ledger import RemoteLedger, socket_session
from gateway.settings import Settings
from gateway.storage.local.state_dir import LockHeldError, StateDirectory, existing_slots

if TYPE_CHECKING:
    from gateway.events.nats.engine import NatsEngine

T = TypeVar("T")

SERVER_TIMEOUT: Final = 10.0
"""Seconds for a server that owns a slot to finish its start or stop, and to answer."""

PROBE_TIMEOUT: Final = 3.0
"""Seconds for one process of a running server to answer; then the next one is asked."""

_RETRY_INTERVAL: Final = 0.05

_NOT_ASKED: Final = (
    "this journal has relayed deliveries to NATS, which was not asked: what waits there is not shown."
    " Start the gateway, or add --events nats://HOST (and --events-prefix NAME)"
)

Query = Callable[[Ledger], Awaitable[T]]


@dataclass(frozen=True, slots=True)
class OpenQueue:
    """The queue of an installation while it is open, and what its ledger cannot say."""

    name: QueueName
    ledger: Ledger
    note: str | None = None


@asynccontextmanager
async def open_queue(settings: Settings) -> AsyncIterator[OpenQueue]:
    """Open the queue of a directory: through its running server, else its journals and `--events`.

    Raises `ConfigError` if there is no journal, a server does not answer, or NATS is unavailable.
    """
    slots = {slot: SlotLedger(settings.state, slot) for slot in existing_slots(settings.state)}
    async with AsyncExitStack() as stack:
        running = await _running_server(list(slots.values()), stack)
        if running is not None:
            yield OpenQueue(await running.queue(), running)
            return
        parts: dict[str, Ledger] = {f"slot-{slot}": ledger for slot, ledger in slots.items()}
        if settings.events != "journal":
            engine = await stack.enter_async_context(_nats(settings))
            nats = {"nats": engine.ledger}
            yield OpenQueue(engine.queue_name, CombinedLedger({**parts, **nats}, pausing=nats))
            return
        if not parts:
            raise ConfigError(
                "there is no journal: no gateway has served this directory yet; add --directory DIR",
                str(settings.directory),
            )
        ledger = CombinedLedger(parts)
        relayed = await ledger.page(Selection(state="relayed"), None, 1)
        yield OpenQueue(QueueName(), ledger, _NOT_ASKED if relayed.rows else None)


async def _running_server(slots: Sequence[SlotLedger], stack: AsyncExitStack) -> RemoteLedger | None:
    """Return the ledger of the running server, all processes and its NATS included; None: none runs.

    Waits while a server starts or stops. Raises `ConfigError`.
    """
    deadline = time.monotonic() + SERVER_TIMEOUT
    while held := [slot for slot in slots if slot.is_held()]:
        for slot in held:
            async with AsyncExitStack() as connecting:
                try:
                    ledger = await connecting.enter_async_context(slot.server_ledger(alone=False))
                    async with asyncio.timeout(PROBE_TIMEOUT):
                        await ledger.queue()
                except (EventEngineUnavailable, TimeoutError) as error:
                    if time.monotonic() > deadline:
                        raise slot.no_answer(error) from error
                else:
                    stack.push_async_callback(connecting.pop_all().aclose)
                    return ledger
        await asyncio.sleep(_RETRY_INTERVAL)
    return None


@asynccontextmanager
async def _nats(settings: Settings) -> AsyncIterator[NatsEngine]:
    engine = make_engine(settings, "command-line")
    engine.start()
    try:
        try:
            async with asyncio.timeout(SERVER_TIMEOUT):
                await engine.wait_ready()
        except TimeoutError:
            raise ConfigError(f"{engine.shown} is unavailable; does the NATS server run?") from None
        yield engine
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
                async with self.server_ledger() as ledger:
                    return await query(ledger)
            except EventEngineUnavailable as error:
                if time.monotonic() > deadline:
                    raise self.no_answer(error) from error
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
    async def server_ledger(self, *, alone: bool = True) -> AsyncIterator[RemoteLedger]:
        """Connect to the server of the slot: `alone` for the deliveries of this slot only."""
        with self._state.short_socket_path() as path:
            async with socket_session(path) as session:
                yield RemoteLedger(session, alone=alone)

    def is_held(self) -> bool:
        """Return whether a process has this slot. Raises `ConfigError` where that cannot be read."""
        self._state.prepare()
        try:
            self._state.lock.acquire()
        except LockHeldError:
            return True
        self._state.lock.release()
        return False

    def no_answer(self, error: Exception) -> ConfigError:
        """Return the error where the server of the slot does not answer."""
        return ConfigError(
            f"the server that owns the directory does not answer ({error}); is it starting, stopping, or"
            " an earlier version that needs a restart?",
            str(self._state.socket),
        )
