"""One log line and one count for each request, whichever path served it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from gateway.auth.trusted_proxies import Proxies
from gateway.telemetry.logs import event
from gateway.telemetry.metrics import Metrics

log = logging.getLogger("gateway.access")

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Methods that are counted by name; all others are counted as one."""

MAX_LOGGED_PATH: Final = 500
"""Characters of a path in the access log."""


class LoggedRequest(Protocol):
    """What is counted and logged of a request."""

    @property
    def method(self) -> str:
        """The method."""

    @property
    def raw_path(self) -> str:
        """The target, still encoded; its query is not logged."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers: proxies name the client there."""

    @property
    def remote(self) -> str | None:
        """The address of the peer."""


class Ending(NamedTuple):
    """How a request ended: `status` None for no response; when it began (monotonic), who sent it."""

    status: int | None
    started: float
    principal: str | None
    upload_id: str | None


class AccessLog:
    """Counts and logs requests."""

    def __init__(self, metrics: Metrics, proxies: Proxies) -> None:
        self._metrics = metrics
        self._proxies = proxies

    def writes(self, level: int = logging.INFO) -> bool:
        """Tell whether a line of this level is written."""
        return log.isEnabledFor(level)

    def record(self, request: LoggedRequest, ending: Ending, level: int = logging.INFO) -> None:
        """Count and log one request. The query is left out: it may hold a signature."""
        method = request.method if request.method in METHODS else "other"
        status = ending.status
        self._metrics.requests.add(method, "none" if status is None else str(status))
        if not log.isEnabledFor(level):
            return
        path = request.raw_path.partition("?")[0][:MAX_LOGGED_PATH]
        fields: dict[str, object] = {
            "method": request.method[:20],
            "path": path.encode("utf-8", "replace").decode(),
            **({} if status is None else {"status": status}),
            "ms": round((time.monotonic() - ending.started) * 1000, 1),
            "remote": self._proxies.client_address(request.remote, request.headers),
        }
        if ending.principal is not None:
            fields["principal"] = ending.principal
        if ending.upload_id is not None:
            fields["upload_id"] = ending.upload_id
        if status is None:
            log.log(level, "request", extra=event("request.aborted", **fields))
        else:
            log.log(level, "request", extra=event("request.answered", **fields))
