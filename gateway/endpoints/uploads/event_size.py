"""Refuses uploads whose events would be larger than a message of the event engine.

An event holds the request's headers and parameters. What could not be relayed is refused before its
body is read: once stored, its handlers must run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from gateway.domain.digests import SIZES, named_digests
from gateway.domain.event_bodies import uploaded_body
from gateway.domain.model import UPLOADED, Upload
from gateway.errors import Refusal
from gateway.plugins.hooks import Hooks
from gateway.telemetry import tracing

_ALL_DIGESTS: Final = named_digests({name: bytes(size) for name, size in SIZES.items()})


@dataclass(slots=True, frozen=True)
class EventSizeLimit:
    """The limit of an engine; `max_event_bytes()` bounds the body of an event as JSON."""

    hooks: Hooks
    max_event_bytes: Callable[[], int]

    def check(self, upload: Upload) -> None:
        """Raise `Refusal("headers_too_large")` for an upload whose event would not fit."""
        if not self.hooks.handler_specs(UPLOADED):
            return
        traceparent = tracing.MAX_TRACEPARENT if tracing.is_on() else None
        body = uploaded_body(
            replace(upload, traceparent=traceparent),
            mime=upload.content_type or "",
            size=0,
            digests=_ALL_DIGESTS,
            params=upload.params,
            headers=upload.headers,
        )
        size, limit = len(json.dumps(body)), self.max_event_bytes()
        if size > limit:
            raise Refusal(
                "headers_too_large",
                f"headers, query and path make an event of {size} bytes, {limit} are allowed here",
            )
