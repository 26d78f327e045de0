"""Carries out what was decided about held uploads: they are published, or removed. On the loop.

A decision is in the journal before anything follows from it; what follows is begun anew after a crash,
and until it has succeeded. A rejected upload: its row first, then its one-time URL is valid again, then
its body goes, then its handlers of OnFileUploadFailed run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, NamedTuple, TypeVar

from gateway.commit.held.store import NEVER_PUBLISHED, HeldStore
from gateway.commit.records import ProcessState
from gateway.commit.upload_ends import IgnoredEnds, UploadEnds
from gateway.domain import failpoints
from gateway.domain.held import Decision
from gateway.domain.model import Delivery, Upload
from gateway.domain.upload_fields import upload_of_fields
from gateway.errors import EventEngineUnavailable, GatewayError, Refusal
from gateway.events.held_changes import failure_reason
from gateway.events.held_log import HeldUpload
from gateway.storage.waiting import finish_in_thread
from gateway.telemetry.logs import event

T = TypeVar("T")
log = logging.getLogger("gateway.commit")

MAX_SETTLING: Final = 64
"""Decided uploads that are published or removed at once: they share the batches of the committer."""

MAX_DELAYED: Final = 1000
"""Uploads that wait for their next try; with more, all others wait too."""

MIN_DELAY: Final = 0.5
MAX_DELAY: Final = 60.0
"""Seconds until the next try: first and at most."""

CLOSE_TIMEOUT: Final = 5.0
"""Seconds in which publishings that are under way may end, at the end of the process."""

UploadRejected = Callable[[Upload, str, int], None]
"""Takes a rejected upload, the reason (a code), and its bytes."""


class _NextTry(NamedTuple):
    """When (monotonic) an upload is tried again, and how long that was waited for."""

    due: float
    delay: float


class HeldDecisions:
    """The held uploads of one process. `rejected` tells the handlers of OnFileUploadFailed."""

    def __init__(self, state: ProcessState, store: HeldStore, rejected: UploadRejected) -> None:
        self.store = store
        self._state = state
        self._uploads = state.journal.held_uploads
        self._rejected = rejected
        self.ends: UploadEnds = IgnoredEnds()
        """Hears of what is published and what is removed."""
        self._changed = asyncio.Event()
        self._settling: dict[str, asyncio.Task[None]] = {}
        self._delayed: dict[str, _NextTry] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to carry out decisions, those of earlier runs of the process too."""
        self._task = asyncio.create_task(self._settle_forever())

    async def close(self) -> None:
        """Begin nothing more; wait a little for what is under way. The next start goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if tasks := [*self._settling.values()]:
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT)
        for task in tasks:
            task.cancel()

    # -- decisions

    async def decide(self, delivery: Delivery, decision: Decision, duration: float) -> None:
        """Settle a run with its decision. One that comes too late changes nothing.

        Raises `EventEngineUnavailable`.
        """
        failpoints.hit("before held decision")
        held = await _journalled(self._uploads.decide(delivery, decision, duration))
        failpoints.hit("after held decision")
        self._note(held)

    async def release(self, upload_id: str, by: str) -> None:
        """Accept an upload for an operator; its handlers are asked no more.

        Raises `Refusal`: `not_found`, `already_decided`; `EventEngineUnavailable`.
        """
        await self._overrule(upload_id, self._uploads.release_held(upload_id, by))

    async def reject(self, upload_id: str, reason: str, by: str) -> None:
        """Reject an upload for an operator. Raises as `release`."""
        await self._overrule(upload_id, self._uploads.reject_held(upload_id, reason, by))

    async def _overrule(self, upload_id: str, decided: Future[HeldUpload | None]) -> None:
        held = await _journalled(decided)
        if held is None:
            states = await _journalled(self._uploads.states([upload_id]))
            if states.get(upload_id, "undecided") != "undecided":
                raise Refusal("already_decided", f"this upload is {states[upload_id]} already")
            raise Refusal("not_found", "there is no held upload of this id")
        self._note(held)

    def _note(self, held: HeldUpload | None) -> None:
        if held is None or held.state == "undecided":
            return
        refusal = held.refusal or {}
        log.info(
            "upload %s is %s",
            held.id,
            held.state,
            extra=event(
                "upload.decided", upload_id=held.id, state=held.state, by=refusal.get("handler")
            ),
        )
        self._changed.set()

    # -- what follows

    async def _settle_forever(self) -> None:
        while True:
            self._changed.clear()
            delay: float | None
            try:
                delay = await self._begin_some()
            except EventEngineUnavailable as error:
                log.error("held uploads wait: %s", error, extra=event("journal.unavailable"))
                delay = MIN_DELAY
            except Exception:
                log.exception("held uploads wait", extra=event("held_uploads.failed"))
                delay = MAX_DELAY
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._changed.wait()

    async def _begin_some(self) -> float | None:
        """Begin with some that are decided; return after how many seconds others are due."""
        now = time.monotonic()
        waiting = {name: at.due - now for name, at in self._delayed.items() if at.due > now}
        delay = min(waiting.values(), default=None)
        free = MAX_SETTLING - len(self._settling)
        if free <= 0 or len(waiting) >= MAX_DELAYED:
            return delay
        without = [*self._settling, *(name for name in waiting if name not in self._settling)]
        decided = await _journalled(self._uploads.unsettled(without))
        for held in decided[:free]:
            task = asyncio.create_task(self._settle(held))
            self._settling[held.id] = task
        return 0.0 if decided else delay

    async def _settle(self, held: HeldUpload) -> None:
        """Publish or remove one upload; where that fails it is tried again later."""
        try:
            if held.state == "accepted":
                await self._publish(held)
            else:
                await self._remove(held)
        except (GatewayError, OSError, sqlite3.Error) as error:
            self._delay(held, error)
        except Exception as error:
            log.exception("upload %s waits", held.id, extra=event("held_uploads.failed"))
            self._delay(held, error)
        else:
            self._delayed.pop(held.id, None)
        finally:
            del self._settling[held.id]
            self._changed.set()

    def _delay(self, held: HeldUpload, error: Exception) -> None:
        before = self._delayed.get(held.id)
        delay = MIN_DELAY if before is None else min(before.delay * 2, MAX_DELAY)
        self._delayed[held.id] = _NextTry(time.monotonic() + delay, delay)
        log.warning(
            "upload %s is %s, which could not be carried out and is tried again in %.1f s: %s",
            held.id,
            held.state,
            delay,
            error,
            extra=event("upload.delayed", upload_id=held.id, state=held.state, delay=delay),
        )

    async def _publish(self, held: HeldUpload) -> None:
        failpoints.hit("before held publish")
        try:
            await self.ends.publishing(upload_of_fields(held.upload), held.bytes)
            stored = await self.store.publish(held)
        except Refusal as refusal:
            if refusal.code not in NEVER_PUBLISHED:
                raise
            rejected = self._uploads.reject_accepted(held.id, refusal.code, refusal.message)
            self._note(await _journalled(rejected))
            return
        failpoints.hit("after held publish")
        await self.ends.published(stored)
        await _journalled(self._uploads.end([held.id]))
        with contextlib.suppress(GatewayError, OSError):  # a rest that nobody sees
            await self.store.remove(held)
        log.info(
            "upload %s is published as %s",
            held.id,
            stored.path,
            extra=event("upload.published", upload_id=held.id, path=stored.path, bytes=stored.bytes),
        )

    async def _remove(self, held: HeldUpload) -> None:
        upload = upload_of_fields(held.upload)
        failpoints.hit("before held removal")
        await finish_in_thread(self._release_url, upload)
        await self.store.remove(held)
        failpoints.hit("after held removal")
        await self.ends.ended(held.id)
        self._rejected(upload, failure_reason(held.refusal), held.bytes)
        await _journalled(self._uploads.settle(held.id))

    def _release_url(self, upload: Upload) -> None:
        """Make a one-time URL valid again, before the body goes: its end is the mark of that."""
        if self._state.release_urls([upload]):
            self._state.one_time_marks.sync()


async def _journalled(future: Future[T]) -> T:
    """Return the result of an operation of the journal. Raises `EventEngineUnavailable`."""
    try:
        return await asyncio.shield(asyncio.wrap_future(future))  # a cancel must not withdraw it
    except sqlite3.Error as error:
        raise EventEngineUnavailable(f"the journal: {error}") from error
