"""Which events a commit writes down, and for which handlers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gateway.domain.event_bodies import object_created_body, uploaded_body
from gateway.domain.model import OBJECT_CREATED, UPLOADED, HandlerSpec, Upload, new_id
from gateway.events.outbox import EventRecord
from gateway.telemetry.redaction import Redaction


@dataclass(slots=True, frozen=True)
class Subscribers:
    """The handlers of what is stored: names for uploads, specs with their filters for objects."""

    uploaded: tuple[str, ...] = ()
    created: tuple[HandlerSpec, ...] = ()

    def of_object(self, key: str) -> tuple[str, ...]:
        """Return the names of the handlers whose filters match the object `key`."""
        return tuple([spec.name for spec in self.created if spec.matches_key(key)])


@dataclass(slots=True, frozen=True)
class StoredContent:
    """What an upload became: its path, size in bytes, media type, entity tag without quotes.

    `bucket` is None where it became a file.
    """

    path: str
    size: int
    mime: str
    etag: str
    bucket: str | None = None


@dataclass(slots=True, frozen=True)
class UploadEvents:
    """Builds the events of committed uploads. `subscribers()` are those of the plugins loaded now."""

    subscribers: Callable[[], Subscribers]
    redaction: Redaction
    slot: int

    def records(
        self, subscribers: Subscribers, upload: Upload, content: StoredContent, *, from_client: bool
    ) -> Iterator[EventRecord]:
        """Yield the events of an upload; without subscribers no body is built."""
        if subscribers.uploaded and from_client:
            body = uploaded_body(
                upload,
                mime=content.mime,
                size=content.size,
                params=self.redaction.params(upload.params),
                headers=self.redaction.headers(upload.headers),
            )
            yield EventRecord(new_id(self.slot), UPLOADED, body, subscribers.uploaded)
        if not subscribers.created:
            return
        if handlers := subscribers.of_object(content.path.removeprefix("/")):
            body = object_created_body(
                upload,
                path=content.path,
                size=content.size,
                etag=content.etag,
                mime=content.mime,
                bucket=content.bucket,
            )
            yield EventRecord(new_id(self.slot), OBJECT_CREATED, body, handlers)
