"""The embedded journal against the suite that every engine must pass."""

from __future__ import annotations

import asyncio

import pytest

from gateway.events.journal import Journal
from tests.contract.event_engines import Conformance, Engine


@pytest.fixture
def engine(journal: Journal) -> Engine:
    """The journal; a process that dies takes its claims with it until the next start."""

    async def crash() -> None:
        await asyncio.wrap_future(journal.queue.recover())
        journal.queue._wakeups.notify_all()

    return Engine(journal.outbox, journal.queue, journal.ledger, crash)


class TestJournal(Conformance):
    """The journal needs no exceptions."""
