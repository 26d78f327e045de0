"""What is told of one request: by its line in the access log, by metrics, by its trace."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from gateway.telemetry import tracing
from gateway.telemetry.tracing import NO_ATTRIBUTES, NO_SPAN

NO_ROUTE: Final = "none"
UPLOADS: Final = "uploads"
DOWNLOADS: Final = "downloads"
LISTING: Final = "listing"
DELETES: Final = "deletes"
FORMS: Final = "forms"
RESUMABLE: Final = "resumable"
PREFLIGHT: Final = "preflight"
API: Final = "api"

ENDPOINT_NAMES: Final = frozenset(
    {NO_ROUTE, UPLOADS, DOWNLOADS, LISTING, DELETES, FORMS, RESUMABLE, PREFLIGHT, API}
)
"""What stands in place of a route for requests that no route serves."""

_FILE_ENDPOINTS: Final = {"GET": DOWNLOADS, "HEAD": DOWNLOADS, "POST": FORMS, "DELETE": DELETES}


def endpoint_of(method: str) -> str:
    """Return what requests of upload paths with this method are counted as."""
    return _FILE_ENDPOINTS.get(method, UPLOADS)


class RequestFacts:
    """One request as it is served; endpoints fill this.

    `route` is the name of the route, or one of ENDPOINT_NAMES. `upstream` is the one that was asked
    last, `upstream_seconds` the time until the head of its response; None without one. `bytes_in` and
    `bytes_out` are bytes of bodies that came and were sent, as they are on the connection, without the
    framing of chunks. `aborted` tells that the response ended early, or that there was none. `started`
    is a monotonic time in seconds. `principal` and `principal_kind` tell who sent it. `error` is the
    `tracing.error_type` of what refused it. `span` is its span, `attempt_span` that of the latest of its
    `attempts` at upstreams.
    """

    __slots__ = (
        "aborted", "attempt_span", "attempts", "bytes_in", "bytes_out", "error", "principal",
        "principal_kind", "request_id", "route", "span", "started", "upload_id", "upstream",
        "upstream_seconds",
    )  # fmt: skip

    def __init__(self, request_id: str = "") -> None:
        self.request_id = request_id
        self.started = time.monotonic()
        self.route = NO_ROUTE
        self.upstream: str | None = None
        self.upstream_seconds: float | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self.principal: str | None = None
        self.principal_kind: str | None = None
        self.upload_id: str | None = None
        self.aborted = False
        self.error: str | None = None
        self.span = NO_SPAN
        self.attempt_span = NO_SPAN
        self.attempts = 0

    def begin_span(self, headers: Mapping[str, str]) -> None:
        """Begin the span of the request, which has these headers, from when it came."""
        if tracing.is_on():
            self.span = tracing.begin_request(headers, NO_ATTRIBUTES, time.monotonic() - self.started)

    def note_principal(self, principal: Mapping[str, Any]) -> None:
        """Note who sent the request."""
        self.principal, self.principal_kind = principal["name"], principal["kind"]
