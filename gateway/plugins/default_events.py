"""The events of the plugins' tests: all keys of a real one, with values that a test may replace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from gateway.domain import model
from gateway.domain.event_bodies import (
    deleted_body,
    deleting_event,
    delivered_event,
    downloading_event,
    listing_event,
    object_created_body,
    received_body,
    received_event,
    tick_body,
    upload_failed_event,
    uploaded_body,
    uploading_event,
)
from gateway.domain.model import Delivery, Download, FileRequest, Upload
from gateway.domain.schedules import Every
from gateway.plugins.handler import Handler

_UPLOAD: Final = Upload(
    id="00000000000000000000000000-0", path="/upload/file.bin", content_length=4, remote="192.0.2.1"
)
_DOWNLOAD: Final = Download(id="00000000000000000000000003-0", path=_UPLOAD.path, remote=_UPLOAD.remote)
_LISTING: Final = FileRequest(id="00000000000000000000000004-0", path="/upload/", remote=_UPLOAD.remote)
_DELETION: Final = FileRequest(
    id="00000000000000000000000005-0", path=_UPLOAD.path, method="DELETE", remote=_UPLOAD.remote
)
_MIME: Final = "application/octet-stream"
_ETAG: Final = "0123456789abcdef0123"
_TICK: Final = 1767225600


def default_event(handler: Handler) -> dict[str, Any]:
    """Return the event of a handler's test where the test says nothing else."""
    return _EVENTS[handler.event](handler)


def _uploaded(handler: Handler) -> dict[str, Any]:
    body = uploaded_body(_UPLOAD, mime=_MIME, size=4, digests={}, params={}, headers={})
    return _delivered(handler, "00000000000000000000000001-0", _UPLOAD.id, body)


def _received(_: Handler) -> dict[str, Any]:
    body = received_body(_UPLOAD, mime=_MIME, size=4, digests={}, params={}, headers={})
    filepath = Path("/srv/.gateway/incoming/0") / _UPLOAD.id
    return received_event(_UPLOAD.id, body, "127.0.0.1", 8080, filepath)


def _object_created(handler: Handler) -> dict[str, Any]:
    body = object_created_body(_UPLOAD, path=_UPLOAD.path, size=4, etag=_ETAG, mime=_MIME, digests={})
    return _delivered(handler, "00000000000000000000000002-0", _UPLOAD.id, body)


def _deleted(handler: Handler) -> dict[str, Any]:
    body = deleted_body(_DELETION, size=4, etag=_ETAG, mime=_MIME, metadata={})
    return _delivered(handler, _DELETION.id, None, body)


def _tick(handler: Handler) -> dict[str, Any]:
    body = tick_body(handler.name, Every(86400), _TICK)
    return _delivered(handler, f"tick.handler.{_TICK}", None, body)


def _delivered(
    handler: Handler, event_id: str, upload_id: str | None, body: dict[str, Any]
) -> dict[str, Any]:
    delivery = Delivery(None, event_id, upload_id, handler.event, handler.name, 1, body)
    return delivered_event(delivery, "127.0.0.1", 8080, Path("/srv"))


_EVENTS: Final[Mapping[str, Callable[[Handler], dict[str, Any]]]] = {
    model.UPLOADING: lambda _: uploading_event(_UPLOAD),
    model.RECEIVED: _received,
    model.UPLOADED: _uploaded,
    model.UPLOAD_FAILED: lambda _: upload_failed_event(_UPLOAD, "incomplete_body", 2),
    model.DOWNLOADING: lambda _: downloading_event(_DOWNLOAD),
    model.LISTING: lambda _: listing_event(_LISTING),
    model.DELETING: lambda _: deleting_event(_DELETION),
    model.DELETED: _deleted,
    model.OBJECT_CREATED: _object_created,
    model.SCHEDULE: _tick,
}
