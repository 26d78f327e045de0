"""Presigned uploads: URLs with which clients put objects into the bucket themselves.

A URL is recorded before it is given out and stays until it can no longer be used, so that neither a
lost notification nor a wrong object goes unnoticed. All processes share the records; with PostgreSQL,
all machines do.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from gateway.domain.grant import Grant
from gateway.records.collection import Collection
from gateway.storage.protocols import Stat

FIRST_CHECK_DELAY: Final = 120.0
"""Seconds from a URL to the first check of its object; each delay is twice the one before."""

UPLOAD_GRACE: Final = 3600.0
"""Seconds after the expiry of a URL for which an upload that began in time may go on."""

MAX_CLOCK_SKEW: Final = 60.0
"""Seconds by which an object may seem older than its URL."""

MAX_PER_PATH: Final = 100
"""URLs of one path that a notification is compared with, the latest first."""


@dataclass(frozen=True, slots=True)
class PresignedUpload:
    """One URL that was given out. Times are Unix seconds; at `due` its object is checked.

    `notified` is the etag of the last object of which handlers got an event; `lost` is the date of
    the object whose event was made without a notification.
    """

    key: str
    path: str
    created: float
    expires: float
    due: float
    content_type: str | None = None
    length: int | None = None
    max_length: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    notified: str | None = None
    lost: float | None = None

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> PresignedUpload:
        """Return the upload of a record."""
        fields = dict(item)
        return cls(notified=fields.pop("told", None), **fields)

    def item(self) -> dict[str, Any]:
        """Return the record. Records call `notified` `told`, as earlier versions wrote them."""
        # In the order of the fields: the store compares records as text (`replaces`).
        return {
            "told" if name == "notified" else name: value
            for name, value in asdict(self).items()
            if value is not None
        }

    @property
    def last_check(self) -> float:
        """When the object is checked for the last time and the record removed."""
        return self.expires + UPLOAD_GRACE

    def rescheduled(self, now: float) -> PresignedUpload:
        """Return the upload with its next check: delays double, the last check is at the end."""
        delay = self.due - self.created
        if self.notified is not None:
            due = self.last_check
        else:
            due = min(self.created + 2 * delay, self.last_check)
        return replace(self, due=max(due, now + delay))

    def may_have_created(self, stat: Stat) -> bool:
        """Return whether an object may come from this URL: an older object does not."""
        return stat.modified >= self.created - MAX_CLOCK_SKEW

    def violation(self, size: int, mime: str | None) -> str | None:
        """Return the error code of an object that the URL forbids: not all stores enforce its limits."""
        if self.length is not None and size != self.length:
            return "too_large" if size > self.length else "incomplete_body"
        if self.max_length is not None and size > self.max_length:
            return "too_large"
        if self.content_type is not None and mime is not None and mime != self.content_type:
            return "unsupported_media_type"
        return None


class PresignedUploads:
    """The records of all presigned uploads. `now` is the clock of their expiry, in Unix seconds.

    The first check is `first_check` seconds after a URL. Callable from any event loop. Every method
    raises `RecordsUnavailable`.
    """

    def __init__(
        self,
        records: Collection,
        clock: Callable[[], float] = time.time,
        first_check: float = FIRST_CHECK_DELAY,
    ) -> None:
        self._records = records
        self.now = clock
        self._first_check = first_check

    async def record_grant(self, grant: Grant) -> None:
        """Record durably what a URL allows, before the URL is given out."""
        now = self.now()
        key = f"{_key_prefix(grant.path)}.{now:017.6f}.{secrets.token_hex(4)}"
        upload = PresignedUpload(
            key,
            grant.path,
            now,
            float(grant.expires),
            now + self._first_check,
            grant.content_type,
            grant.length,
            grant.max_length,
            dict(grant.metadata),
        )
        await self._records.put(key, upload.item())

    async def for_path(self, path: str) -> list[PresignedUpload]:
        """Return the URLs that may have created an object at `path`, the latest first."""
        page = await self._records.query(_key_prefix(path), order="desc", limit=MAX_PER_PATH)
        return [PresignedUpload.from_item(item) for item in page.items]

    async def due_for_check(self, limit: int) -> list[PresignedUpload]:
        """Return the uploads that are due, the longest waiting first."""
        page = await self._records.query(index="due", until=self.now(), limit=limit)
        return [PresignedUpload.from_item(item) for item in page.items]

    async def replace_upload(self, before: PresignedUpload, after: PresignedUpload) -> bool:
        """Replace a record unless another process has changed it; return whether it was replaced."""
        return await self._records.put(before.key, after.item(), replaces=before.item())

    async def remove_upload(self, upload: PresignedUpload) -> bool:
        """Remove a record; return whether it existed."""
        return await self._records.delete(upload.key)


def _key_prefix(path: str) -> str:
    """Return the prefix of the keys of all URLs of `path`: paths may be longer than keys."""
    return hashlib.sha256(path.encode()).hexdigest()[:40]
