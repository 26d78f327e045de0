"""Uploads that were initiated: somebody got a URL with which he may put an object himself.

One rule: what was promised by a URL is written down before the URL is given out, and stays until it
can no longer be used; so neither a lost notification nor a wrong object goes unnoticed. The store
of records is shared by all processes, with PostgreSQL by all machines.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from gateway.domain.grant import Grant
from gateway.records import Collection
from gateway.storage.protocols import Stat

FIRST_LOOK: Final = 120.0
"""Seconds from a URL to the first look whether its object is there; each pause is twice the last."""

GRACE: Final = 3600.0
"""Seconds after a URL's end for which an upload that began in time may go on."""

SKEW: Final = 60.0
"""Seconds by which an object may seem older than the URL that it was put with."""

MOST_OF_A_PATH: Final = 100
"""URLs of one path that a notification is compared with: the latest."""


@dataclass(frozen=True, slots=True)
class PresignedUpload:
    """One URL that was given out. Times are Unix seconds: at `due` somebody looks for its object.

    `told` is the etag of the object that handlers were told of last; `lost` the date of the object
    that they were told of without a notification.
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
    told: str | None = None
    lost: float | None = None

    @property
    def until(self) -> float:
        """When it is forgotten."""
        return self.expires + GRACE

    def item(self) -> dict[str, Any]:
        """Return it as a record."""
        said = asdict(self)
        return {name: value for name, value in said.items() if value is not None}

    def later(self, now: float) -> PresignedUpload:
        """Return it with the next look: the pauses double, the last look is at its end."""
        passed = self.due - self.created
        due = self.until if self.told is not None else min(self.created + 2 * passed, self.until)
        return replace(self, due=max(due, now + passed))

    def is_of(self, stat: Stat) -> bool:
        """Tell whether an object may have come by this URL: an older one has not."""
        return stat.modified >= self.created - SKEW

    def fault_of(self, size: int, mime: str | None) -> str | None:
        """Return the error code of an object that is not what was allowed, None for a good one.

        A store enforces what it can; not every store enforces all of it, and a type that is not
        known is not held against anybody.
        """
        if self.length is not None and size != self.length:
            return "too_large" if size > self.length else "incomplete_body"
        if self.max_length is not None and size > self.max_length:
            return "too_large"
        if self.content_type is not None and mime is not None and mime != self.content_type:
            return "unsupported_media_type"
        return None


class PresignedUploads:
    """The memory of all URLs by which objects may be put. `clock` returns Unix seconds.

    The first look comes `first_look` seconds after a URL. Callable from any event loop. Every method
    raises `RecordsUnavailable` where the records cannot be reached.
    """

    def __init__(
        self,
        records: Collection,
        clock: Callable[[], float] = time.time,
        first_look: float = FIRST_LOOK,
    ) -> None:
        self._records = records
        self._clock = clock
        self._first_look = first_look

    def now(self) -> float:
        """Return the time by which URLs end."""
        return self._clock()

    async def remember(self, grant: Grant) -> None:
        """Write down what a URL allows, durably: before anybody gets the URL."""
        now = self._clock()
        key = f"{_marks(grant.path)}.{now:017.6f}.{secrets.token_hex(4)}"
        made = PresignedUpload(
            key,
            grant.path,
            now,
            float(grant.expires),
            now + self._first_look,
            grant.content_type,
            grant.length,
            grant.max_length,
            dict(grant.metadata),
        )
        await self._records.put(key, made.item())

    async def of(self, path: str) -> list[PresignedUpload]:
        """Return the URLs by which something may have been put at `path`, the latest first."""
        page = await self._records.query(_marks(path), order="desc", limit=MOST_OF_A_PATH)
        return [PresignedUpload(**item) for item in page.items]

    async def due(self, limit: int) -> list[PresignedUpload]:
        """Return those whose object is to be looked for now, the longest waiting first."""
        page = await self._records.query(index="due", until=self._clock(), limit=limit)
        return [PresignedUpload(**item) for item in page.items]

    async def change(self, before: PresignedUpload, after: PresignedUpload) -> bool:
        """Replace what is remembered, unless somebody else has changed it; tell whether it was done."""
        return await self._records.put(before.key, after.item(), replaces=before.item())

    async def forget(self, initiation: PresignedUpload) -> bool:
        """Forget a URL; tell whether it was still known."""
        return await self._records.delete(initiation.key)


def _marks(path: str) -> str:
    """Return what the keys of all URLs for `path` begin with: paths may be longer than keys."""
    return hashlib.sha256(path.encode()).hexdigest()[:40]
