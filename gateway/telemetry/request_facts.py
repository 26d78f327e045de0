"""What is told of one request: by its line in the access log, by metrics, by its trace."""

from __future__ import annotations

import time
from typing import Final

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
    is a monotonic time in seconds.
    """

    __slots__ = (
        "aborted", "bytes_in", "bytes_out", "principal", "request_id", "route", "started", "upload_id",
        "upstream", "upstream_seconds",
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
        self.upload_id: str | None = None
        self.aborted = False
