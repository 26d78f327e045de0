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
    received_id,
    tick_body,
    upload_failed_event,
    uploaded_body,
    uploading_event,
)
from gateway.domain.model import Delivery, Download, FileRequest, Upload
from gateway.domain.schedules import Every
from gateway.errors import ConfigError
from gateway.plugins.handler import Handler
from gateway.plugins.scripting.temporary_files import TemporaryFiles
from gateway.plugins.scripting.values import Event
from gateway.plugins.stubs import body_bytes
from gateway.plugins.testing_models import HandlerTestModel

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


def event_of_test(handler: Handler, test: HandlerTestModel, files: TemporaryFiles) -> Event:
    """Return the event of a test: the keys of every real one, replaced by those that the test gives.

    Its file is put into `files`, and described by the event. Raises `ConfigError` for a file that cannot
    be read, `Refusal` for a path that no file can have.
    """
    event = default_event(handler, test.now) | test.event
    if handler.event == model.OBJECT_CREATED:
        event = _with_key_and_path(event, test.event)
    if test.has_body:
        event |= _put_file(handler, event, test, files)
    return Event(event).copy()  # a script may change it; the defaults belong to all tests


def default_event(handler: Handler, now: float | None = None) -> dict[str, Any]:
    """Return the event of a handler's test where the test says nothing else."""
    return _EVENTS[handler.event](handler, now)


def _put_file(
    handler: Handler, event: dict[str, Any], test: HandlerTestModel, files: TemporaryFiles
) -> dict[str, Any]:
    """Put the file of a test into `files`; return the keys that describe it, but those of the test."""
    path, upload_id = str(event["path"]), event.get("upload_id")
    content, mime = _content(handler, test), test.event.get("mime")
    if handler.event == model.RECEIVED:  # it has no name yet
        stat, place = files.put_private(str(upload_id), path, content, mime)
    else:
        stat = files.put(path, content, mime=mime, metadata=event.get("metadata"), upload_id=upload_id)
        place = files.directory / stat.path.removeprefix("/")
    facts = {
        "bytes": stat.bytes,
        "digests": dict(stat.digests),
        "etag": stat.etag,
        "mime": stat.mime,
        "filepath": str(place),
    }
    return {key: value for key, value in facts.items() if key in event and key not in test.event}


def _content(handler: Handler, test: HandlerTestModel) -> bytes:
    if test.body_file is None:
        return body_bytes(test.body)
    try:
        return Path(handler.document.folder, test.body_file).read_bytes()
    except OSError as error:
        raise ConfigError(f"body_file {test.body_file}: {error.strerror}") from None


def _with_key_and_path(event: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Derive the path from the key, or the key from the path, if a test gives only one of them."""
    if "key" in given and "path" not in given:
        event["path"] = f"/{event['key']}"
    if "path" in given and "key" not in given:
        event["key"] = str(event["path"]).removeprefix("/")
    return event


def _uploaded(handler: Handler, _now: float | None) -> dict[str, Any]:
    body = uploaded_body(_UPLOAD, mime=_MIME, size=4, digests={}, params={}, headers={})
    return _delivered(handler, "00000000000000000000000001-0", _UPLOAD.id, body)


def _received(handler: Handler, _now: float | None) -> dict[str, Any]:
    body = received_body(_UPLOAD, mime=_MIME, size=4, digests={}, params={}, headers={})
    event = _delivered(handler, received_id(_UPLOAD.id), _UPLOAD.id, body)
    return event | {"filepath": f"/srv/.gateway/held/{_UPLOAD.id}"}


def _object_created(handler: Handler, _now: float | None) -> dict[str, Any]:
    body = object_created_body(_UPLOAD, path=_UPLOAD.path, size=4, etag=_ETAG, mime=_MIME, digests={})
    return _delivered(handler, "00000000000000000000000002-0", _UPLOAD.id, body)


def _deleted(handler: Handler, _now: float | None) -> dict[str, Any]:
    body = deleted_body(_DELETION, size=4, etag=_ETAG, mime=_MIME, metadata={})
    return _delivered(handler, _DELETION.id, None, body)


def _tick(handler: Handler, now: float | None) -> dict[str, Any]:
    tick = _TICK if now is None else int(now)
    body = tick_body(handler.name, handler.schedule or Every(86400), tick)
    return _delivered(handler, f"tick.handler.{tick}", None, body)


def _delivered(
    handler: Handler, event_id: str, upload_id: str | None, body: dict[str, Any]
) -> dict[str, Any]:
    delivery = Delivery(None, event_id, upload_id, handler.event, handler.name, 1, body)
    return delivered_event(delivery, "127.0.0.1", 8080, Path("/srv"))


_EVENTS: Final[Mapping[str, Callable[[Handler, float | None], dict[str, Any]]]] = {
    model.UPLOADING: lambda *_: uploading_event(_UPLOAD),
    model.RECEIVED: _received,
    model.UPLOADED: _uploaded,
    model.UPLOAD_FAILED: lambda *_: upload_failed_event(_UPLOAD, "incomplete_body", 2),
    model.DOWNLOADING: lambda *_: downloading_event(_DOWNLOAD),
    model.LISTING: lambda *_: listing_event(_LISTING),
    model.DELETING: lambda *_: deleting_event(_DELETION),
    model.DELETED: _deleted,
    model.OBJECT_CREATED: _object_created,
    model.SCHEDULE: _tick,
}
