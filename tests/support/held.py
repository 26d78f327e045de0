"""Held uploads for tests: held, decided and settled without a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.commit.held.decisions import HeldDecisions
from gateway.commit.held.local_store import LocalHeldStore
from gateway.commit.local_writer import LocalWriter
from gateway.domain.held import Decision, HandlerRefusal, Held
from gateway.domain.model import Delivery, Upload, new_id
from gateway.events.held_log import HeldUpload
from gateway.events.held_queue import HeldQueue
from tests.support.committer import CommitterHarness
from tests.support.harness import wait_until
from tests.support.records import result_of

REFUSED = Decision(HandlerRefusal(422, b"no", "text/plain"))
ACCEPTED = Decision()


class HeldHarness:
    """What decides about the uploads of a `CommitterHarness`. `rejected` are those it was told of."""

    def __init__(self, harness: CommitterHarness) -> None:
        self.base, self.journal = harness, harness.journal
        self.journal.queue.holding = frozenset({"a", "b", "c"})
        self.rejected: list[tuple[str, str, int]] = []
        self.store = LocalHeldStore(harness.local_disk, harness.held, harness.committer, harness.state)
        self.decisions = HeldDecisions(harness.state, self.store, self._reject)
        self.queue = HeldQueue(self.journal.queue, self.journal.held_uploads, self.decisions)
        self.writer = LocalWriter(harness.local_disk, harness.committer, 0o640, "sha256", harness.holder)

    def _reject(self, upload: Upload, reason: str, size: int) -> None:
        self.rejected.append((upload.id, reason, size))

    async def hold(
        self, path: str = "/x", body: bytes = b"body", handlers: tuple[str, ...] = ("a",), **fields: Any
    ) -> Held:
        """Receive a body and hold it; `fields` are of its upload."""
        upload = Upload(new_id(0), path, created=1.0, **fields)
        pending = await self.writer.begin(upload, staged=True)
        await pending.write(body)
        await pending.finish()
        await pending.stage()
        return await pending.hold({}, handlers)

    async def claim(self, handler: str = "a", limit: int = 1) -> list[Delivery]:
        """Claim what waits for a handler now."""
        return await self.queue.claim(handler, limit, 0.0)

    async def decide(self, decision: Decision = ACCEPTED, handler: str = "a") -> Delivery:
        """Let a handler decide about the upload that waits longest for it."""
        (delivery,) = await self.claim(handler)
        self.queue.keep_decision(delivery, decision)
        await self.queue.ack(delivery, 0.1)
        return delivery

    async def settled(self) -> None:
        """Wait until all that is decided is carried out."""
        await wait_until(lambda: not self.unsettled())

    def unsettled(self) -> list[HeldUpload]:
        """Return what is decided and not carried out."""
        return result_of(self.journal.held_uploads.unsettled([]))

    def row(self, held: Held) -> HeldUpload | None:
        """Return the row of a held upload."""
        return result_of(self.journal.held_uploads.find([held.upload_id])).get(held.upload_id)

    def state(self, held: Held) -> str | None:
        """Return the state of a held upload, None where it is held no longer."""
        row = self.row(held)
        return None if row is None else row.state

    def bodies(self) -> list[str]:
        """Return the ids of the bodies that are held."""
        return sorted(self.base.held.upload_ids())

    def event_states(self, held: Held) -> dict[str, str]:
        """Return the states of the deliveries of a held upload, by handler."""
        history = result_of(self.journal.ledger.upload_history(held.upload_id))
        return {row["handler"]: row["state"] for row in (history or {"handlers": []})["handlers"]}


@pytest.fixture
async def held(harness: CommitterHarness) -> AsyncIterator[HeldHarness]:
    """Held uploads whose decisions are carried out."""
    opened = HeldHarness(harness)
    await opened.decisions.start()
    yield opened
    await opened.decisions.close()
