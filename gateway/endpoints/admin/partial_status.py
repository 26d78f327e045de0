"""What is shown of partial uploads. Pure."""

from __future__ import annotations

from typing import Any

from gateway.domain.partial import PartialStatus
from gateway.domain.units import iso_time
from gateway.endpoints.inflight import named_principal


def waiting_upload(partial: PartialStatus) -> dict[str, Any]:
    """Return the status of a partial upload with which no request is at work."""
    upload = partial.head.upload
    return {
        "upload_id": upload.id,
        "state": "waiting",
        "path": upload.path,
        "bytes": partial.offset,
        "content_length": partial.length,
        "created": iso_time(upload.created),
        "principal": named_principal(upload.principal),
        "remote": upload.remote,
        "error": None,
        "handlers": [],
        **progress_of(partial),
    }


def progress_of(partial: PartialStatus) -> dict[str, Any]:
    """Return how far a partial upload has come, and until when it can go on."""
    return {
        "protocol": partial.head.protocol,
        "offset": partial.offset,
        "length": partial.length,
        "appends": partial.appends,
        "expires": iso_time(partial.expires),
    }
