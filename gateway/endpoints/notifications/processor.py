"""An object has come: is it as it was allowed, and who is told?

One rule: the event of an object is durable before anybody is answered, and told once. A wrong
object is removed and told of as a failed upload, never as a created one. What the gateway itself
has stored has had its event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from gateway.domain.model import HandlerSpec, Upload
from gateway.endpoints.notifications.event_builder import NotificationScope, NotifiedObject, event_of
from gateway.endpoints.notifications.parser import ObjectNotification
from gateway.endpoints.notifications.presigned_uploads import PresignedUpload, PresignedUploads
from gateway.errors import RecordsUnavailable, Refusal, Superseded
from gateway.events.protocols import NewEvent
from gateway.storage.protocols import Stat, Storage
from gateway.storage.s3.parts import MARK, OWNER
from gateway.telemetry.metrics import LoopCounter

LOOKS: Final = 16
"""Objects that are looked at at once."""

SAME_SECOND: Final = 2.0
"""The date of an object is told in whole seconds, that of a notification is not."""

log = logging.getLogger("gateway.notifications")

Publish = Callable[[Sequence[NewEvent]], Awaitable[None]]
Stored = Callable[[str, str], Awaitable[bool]]
Genuine = Callable[[str, str, str], bool]
Failed = Callable[[Upload, str, int], None]


class NotificationResult(NamedTuple):
    """What became of a notice: a word for the count, and the event where there is one to tell."""

    word: str
    event: NewEvent | None = None
    initiations: Sequence[PresignedUpload] = ()


class NotificationProcessor:
    """Turns notices, and objects that were looked for, into events.

    `shelf` is our storage; `genuine(mark, upload_id, path)` tells whether a gateway of our installation
    stored that, `stored(upload_id, path)` whether our journal says so; `audience` names the handlers of
    objects; `failed` tells those of failed uploads. `notices` and `ends` count.
    """

    def __init__(
        self,
        where: NotificationScope,
        shelf: Storage,
        initiated: PresignedUploads,
        *,
        genuine: Genuine,
        stored: Stored,
        publish: Publish,
        audience: Callable[[], Sequence[HandlerSpec]],
        failed: Failed,
        notices: LoopCounter,
        ends: LoopCounter,
    ) -> None:
        self._where = where
        self._shelf = shelf
        self._initiated = initiated
        self._genuine = genuine
        self._stored = stored
        self._publish = publish
        self._audience = audience
        self._failed = failed
        self._notices = notices
        self._ends = ends
        self._looks = asyncio.Semaphore(LOOKS)
        self._strange: set[str] = set()

    async def take(self, notices: Sequence[ObjectNotification]) -> dict[str, int]:
        """Tell handlers what is new; return how many notices came to what, when all is durable.

        Raises `EventEngineUnavailable`, and `Refusal` where the storage cannot be asked: then it
        may be repeated.
        """
        outcomes = await asyncio.gather(*(self._look(notice) for notice in notices))
        if events := [outcome.event for outcome in outcomes if outcome.event is not None]:
            await self._publish(events)
        counts: dict[str, int] = {}
        for outcome in outcomes:
            self._notices.add(outcome.word)
            counts[outcome.word] = counts.get(outcome.word, 0) + 1
            if outcome.event is not None:
                await self._note(outcome.initiations, outcome.event.body["etag"])
        return counts

    async def find(self, initiation: PresignedUpload, stat: Stat) -> bool:
        """Tell of an object that was looked for; return whether that was news. Raises as `take` does."""
        if not initiation.is_of(stat) or initiation.told == stat.etag:
            return False
        initiations = await self._initiated.of(initiation.path)
        if await self._is_own(stat.metadata, initiation.path, initiations):
            return False
        if await self._remove_wrong(initiations, stat):
            return False
        key, notice = initiation.path.removeprefix("/"), self._where.notice_of(initiation.path, stat)
        if handlers := self._wanted(key):
            subject = NotifiedObject(notice, key, True, stat, initiations, stat.modified)
            await self._publish([event_of(subject, handlers)])
        await self._note([initiation], stat.etag, lost=stat.modified)
        return True

    # -- one notice

    async def _look(self, notice: ObjectNotification) -> NotificationResult:
        key = self._where.inside(notice.bucket, notice.key)
        if key is not None:
            return await self._look_inside(notice, key)
        if not self._where.takes(notice.bucket):
            return self._strange_bucket(notice.bucket)
        if notice.bucket not in self._where.others:
            return NotificationResult("outside")
        return self._told(NotifiedObject(notice, notice.key, False))

    async def _look_inside(self, notice: ObjectNotification, key: str) -> NotificationResult:
        path = f"/{key}"
        initiations = await self._remembered(path)
        if not initiations and not self._wanted(key):
            return NotificationResult("unwanted")
        if await self._is_own(notice.metadata or {}, path, initiations):
            return NotificationResult("own")
        stat = await self._stat(path, notice)
        if stat is not None and await self._is_own(stat.metadata, path, initiations):
            return NotificationResult("own")
        if stat is not None and await self._remove_wrong(initiations, stat):
            return NotificationResult("removed")
        if any(_was_told(one, notice) for one in initiations):
            return NotificationResult("duplicate")
        return self._told(NotifiedObject(notice, key, True, stat, initiations))

    async def _is_own(
        self, metadata: Mapping[str, str], path: str, initiations: Sequence[PresignedUpload]
    ) -> bool:
        """Tell whether a gateway stored an object, and so has told of it: it is marked so.

        Some stores keep headers that nobody signed, so clients can write an upload id too, but no mark:
        that is good on whichever machine it was made, and however long ago. Without one, as earlier
        versions stored, the id is believed of what may have come by a URL of the bucket, for it has the
        metadata of one, if our journal agrees.
        """
        upload_id = metadata.get(OWNER)
        if not upload_id:
            return False
        if self._genuine(metadata.get(MARK, ""), upload_id, path):
            return True
        if not any(one.metadata.items() <= metadata.items() for one in initiations):
            return True
        return await self._stored(upload_id, path)

    def _told(self, subject: NotifiedObject) -> NotificationResult:
        handlers = self._wanted(subject.key)
        if not handlers:
            return NotificationResult("unwanted")
        return NotificationResult("told", event_of(subject, handlers), subject.initiations)

    def _strange_bucket(self, bucket: str) -> NotificationResult:
        if bucket not in self._strange and len(self._strange) < 100:
            self._strange.add(bucket)
            log.warning(
                "notifications of the bucket %r are ignored: name it in --object-buckets to take them",
                bucket[:100],
            )
        return NotificationResult("strange")

    def _wanted(self, key: str) -> tuple[str, ...]:
        return tuple([spec.name for spec in self._audience() if spec.wants(key)])

    async def _remembered(self, path: str) -> list[PresignedUpload]:
        try:
            return await self._initiated.of(path)
        except RecordsUnavailable as fault:
            log.warning("what was allowed for %s is not known now: %s", path, fault)
            return []

    async def _stat(self, path: str, notice: ObjectNotification) -> Stat | None:
        """Look at the object; None where it is gone, or another one by now."""
        try:
            async with self._looks:
                stat = await self._shelf.stat(path)
        except Refusal as refusal:
            if refusal.code in {"not_found", "bad_path", "forbidden"}:
                return None
            raise
        return stat if notice.etag is None or stat.etag == notice.etag else None

    # -- what was allowed

    async def _remove_wrong(self, initiations: Sequence[PresignedUpload], stat: Stat) -> bool:
        """Remove an object that none of the URLs allows by which it may have come."""
        possible = [one for one in initiations if one.is_of(stat)]
        faults = [one.fault_of(stat.bytes, stat.mime) for one in possible]
        if not faults or None in faults:
            return False
        try:
            await self._shelf.delete(stat.path, stat.etag)
        except Superseded:
            return True  # its successor will be looked at in its turn
        except Refusal as refusal:
            if refusal.code != "not_found":
                raise
        reason = str(faults[0])
        self._ends.add("removed")
        log.error(
            "removed an object that its URL did not allow",
            extra={"facts": {"path": stat.path, "bytes": stat.bytes, "reason": reason}},
        )
        allowed = possible[0]
        upload = Upload(allowed.key, stat.path, content_type=stat.mime, metadata=dict(allowed.metadata))
        self._failed(upload, reason, stat.bytes)
        return True

    async def _note(
        self, initiations: Sequence[PresignedUpload], etag: str | None, lost: float | None = None
    ) -> None:
        """Remember that handlers were told. Where that fails, they may be told once more."""
        for one in initiations:
            if etag is None or one.told == etag:
                continue
            try:
                after = replace(one, told=etag, lost=lost, due=one.until)
                if await self._initiated.change(one, after):
                    self._ends.add("finished" if lost is None else "reconciled")
            except RecordsUnavailable as fault:
                log.warning("that handlers know %s is not written down: %s", one.path, fault)


def _was_told(initiation: PresignedUpload, notice: ObjectNotification) -> bool:
    """Tell whether this is the late notification of an object that was found without one."""
    return (
        initiation.lost is not None
        and notice.at is not None
        and initiation.told == notice.etag
        and notice.at <= initiation.lost + SAME_SECOND
    )
