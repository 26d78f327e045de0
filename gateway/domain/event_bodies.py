"""The keys of every event, each event spelled once.

A body is what the journal keeps; `delivered_event` adds what only the delivery knows. Handlers that run
within a request get a whole event, a deep copy of what it was made of; bodies share their values.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.domain.model import EVENT_VERSION, Delivery, Download, FileRequest, Upload
from gateway.domain.schedules import Schedule


def uploading_event(upload: Upload) -> dict[str, Any]:
    """Return the event of `APIGW.OnFileUploading`."""
    return {
        "id": f"{upload.id}.uploading",
        "event_version": EVENT_VERSION,
        "upload_id": upload.id,
        "method": upload.method,
        "remote": upload.remote,
        "principal": _copy(upload.principal),
        "path": upload.path,
        "resources": dict(upload.resources),
        "params": _copy(upload.params),
        "headers": dict(upload.headers),
        "content_length": upload.content_length,
        "content_type": upload.content_type,
        "resumable": upload.resumable,
        "concat": "partial" if upload.part_of_concat else None,
    }


def upload_failed_event(upload: Upload, reason: str, received: int) -> dict[str, Any]:
    """Return the event of `APIGW.OnFileUploadFailed`: `reason` is an error code, `received` in bytes."""
    event = uploading_event(upload)
    return event | {"id": f"{upload.id}.failed", "reason": reason, "bytes": received}


def downloading_event(download: Download) -> dict[str, Any]:
    """Return the event of `APIGW.OnFileDownloading`."""
    return {
        **_file_event(download, "downloading"),
        "archive": download.archive,
        "allow_archive": False,
        "files": _copy(download.files),
        "filename": download.filename,
        "cache_control": download.cache_control,
    }


def listing_event(listing: FileRequest) -> dict[str, Any]:
    """Return the event of `APIGW.OnFileListing`; the path ends with a slash."""
    params = listing.params
    below = params.get("recursive") == ["true"] or "search" in params
    return {**_file_event(listing, "listing"), "recursive": below}


def deleting_event(deletion: FileRequest) -> dict[str, Any]:
    """Return the event of `APIGW.OnFileDeleting`."""
    return _file_event(deletion, "deleting")


def _file_event(request: FileRequest, suffix: str) -> dict[str, Any]:
    return {
        "id": f"{request.id}.{suffix}",
        "event_version": EVENT_VERSION,
        "method": request.method,
        "remote": request.remote,
        "principal": _copy(request.principal),
        "path": request.path,
        "resources": dict(request.resources),
        "params": _copy(request.params),
        "headers": dict(request.headers),
    }


def deleted_body(
    deletion: FileRequest,
    *,
    size: int,
    etag: str,
    mime: str,
    metadata: Mapping[str, str],
    bucket: str | None = None,
) -> dict[str, Any]:
    """Return the body of `APIGW.OnFileDeleted`: the file as it was, and the request that removed it.

    `etag` has no quotes. `bucket` is None where files are stored. The query and the headers of the
    request are in `OnFileDeleting` only: so the body stays small, whatever a client sends.
    """
    return {
        "path": deletion.path,
        "bytes": size,
        "etag": etag,
        "mime": mime,
        "metadata": dict(metadata),
        "bucket": bucket,
        "resources": deletion.resources,
        "method": deletion.method,
        "remote": deletion.remote,
        "principal": deletion.principal,
        **_trace_of(deletion),
    }


def uploaded_body(
    upload: Upload,
    *,
    mime: str,
    size: int,
    digests: Mapping[str, str],
    params: dict[str, list[str]],
    headers: dict[str, str],
) -> dict[str, Any]:
    """Return the body of `APIGW.OnFileUploaded`; secrets in `params` and `headers` are redacted
    already. `digests` are in base64 by their name in RFC 9530."""
    return {
        "mime": mime,
        "path": upload.path,
        "resources": upload.resources,
        "params": params,
        "headers": headers,
        "method": upload.method,
        "remote": upload.remote,
        "principal": upload.principal,
        "content_type": upload.content_type,
        "metadata": upload.metadata,
        "bytes": size,
        "digests": dict(digests),
        **_trace_of(upload),
    }


def received_body(
    upload: Upload,
    *,
    mime: str,
    size: int,
    digests: Mapping[str, str],
    params: dict[str, list[str]],
    headers: dict[str, str],
) -> dict[str, Any]:
    """Return the body of `APIGW.OnFileReceived`; the arguments are those of `uploaded_body`."""
    body = uploaded_body(upload, mime=mime, size=size, digests=digests, params=params, headers=headers)
    return body | {"on_conflict": upload.on_conflict}


def received_id(upload_id: object) -> str:
    """Return the id of the event `APIGW.OnFileReceived` of an upload: each has one."""
    return f"{upload_id}.received"


def object_created_body(
    upload: Upload,
    *,
    path: str,
    size: int,
    etag: str,
    mime: str,
    digests: Mapping[str, str],
    bucket: str | None = None,
) -> dict[str, Any]:
    """Return the body of `APIGW.OnObjectCreated` for a file or object that the gateway stored.

    `etag` has no quotes. `bucket` is None where files are stored. `digests` are as in `uploaded_body`.
    """
    return {
        "event_name": "ObjectCreated:Put",
        "bucket": bucket,
        "key": path.removeprefix("/"),
        "path": path,
        "bytes": size,
        "etag": etag,
        "mime": mime,
        "digests": dict(digests),
        "metadata": upload.metadata,
        "version": None,
        "sequencer": None,
        "principal": upload.principal,
        **_trace_of(upload),
    }


def notified_object_body(
    *,
    event_name: str,
    bucket: str,
    key: str,
    path: str | None,
    size: int | None,
    etag: str | None,
    mime: str | None,
    metadata: Mapping[str, str],
    version: str | None,
    sequencer: str | None,
) -> dict[str, Any]:
    """Return the body of `APIGW.OnObjectCreated` for an object of which a bucket notified."""
    return {
        "event_name": event_name,
        "bucket": bucket,
        "key": key,
        "path": path,
        "bytes": size,
        "etag": etag,
        "mime": mime,
        "digests": {},
        "metadata": dict(metadata),
        "version": version,
        "sequencer": sequencer,
        "upload_id": None,
        "principal": None,
    }


def tick_body(handler: str, schedule: Schedule, tick: int) -> dict[str, Any]:
    """Return the body of a `Schedule` handler's tick; `tick` is a Unix time."""
    return {"handler": handler, "scheduled": tick, "scheduled_iso": schedule.local(tick).isoformat()}


def delivered_event(
    delivery: Delivery, address: str | None, port: int | None, directory: Path | None
) -> dict[str, Any]:
    """Return the event that a handler gets: the journalled body and what only the delivery knows.

    Files lie below `directory`; None where they are objects.
    """
    body = delivery.body
    event = {
        **body,
        "address": address,
        "port": port,
        "id": delivery.event_id,
        "event_version": EVENT_VERSION,
        "attempt": delivery.attempt,
    }
    if delivery.upload_id is not None:
        event["upload_id"] = delivery.upload_id
    if "path" in body:
        # An object without an upload was put into a bucket past the gateway: it is no local file.
        folder = None if delivery.upload_id is None else directory
        event["filepath"] = folder and str(folder / str(body["path"]).lstrip("/"))
    if "key" in body and delivery.upload_id is not None:
        # On a conflict the name is chosen after the event was written: the path has the final one.
        event["key"] = str(body["path"]).removeprefix("/")
    return event


def _trace_of(request: Upload | FileRequest) -> dict[str, str]:
    """Return the key that has the span of a request, only where it is traced."""
    return {} if request.traceparent is None else {"traceparent": request.traceparent}


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()} if value else {}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value
