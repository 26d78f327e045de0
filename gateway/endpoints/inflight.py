"""The uploads in flight, and how the latest failed ones ended. In memory: the journal has the rest.

Runs on the server's event loop.
"""

from __future__ import annotations

import heapq
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from gateway.domain.held import merge_results
from gateway.domain.model import Upload
from gateway.domain.units import iso_time, unix_time
from gateway.limits import FairShare, Lease, client_key

MAX_UPLOADS: Final = 10_000
"""Uploads in flight, of which each client gets its share."""

MAX_FAILED: Final = 1_000
"""Failed uploads whose end can still be queried."""

MAX_ENDED: Final = 1_000
"""Uploads that ended lately, whose end is shown where uploads are followed live."""

RATE_WEIGHT: Final = 0.3
"""How much the latest second counts in the rate of an upload: it is that of some 3 seconds."""


@dataclass(slots=True)
class Progress:
    """One upload in flight: `state` is admitting, receiving, deciding, committing, failed or rejected.

    `refusal` is what is told of a rejected one, see `shown_refusal`. `since` is the Unix time of its
    request. `counted` are the bytes of `received` that `Inflight.received_bytes` has, or that earlier
    requests have brought; `rate` are bytes a second, None until one was measured.
    """

    upload: Upload
    lease: Lease | None
    state: str
    received: int
    since: float
    error: str | None = None
    refusal: dict[str, Any] | None = None
    counted: int = 0
    rate: float | None = None

    def resume_at(self, offset: int) -> None:
        """Begin a request of an upload of which earlier ones have brought `offset` bytes."""
        self.received = self.counted = offset

    def describe(self) -> dict[str, Any]:
        """Return the JSON object of the status page."""
        return {
            "upload_id": self.upload.id,
            "state": self.state,
            "path": self.upload.path,
            "bytes": self.received,
            "content_length": self.upload.content_length,
            "created": iso_time(self.upload.created),
            "principal": named_principal(self.upload.principal),
            "remote": self.upload.remote,
            "error": self.error,
            **({} if self.refusal is None else {"refusal": self.refusal}),
            **results_before_commit(self.upload.results),
        }


class EndedUpload(NamedTuple):
    """How an upload ended. `since` and `ended` are Unix times: of its request, and of its end."""

    id: str
    state: str
    path: str
    bytes: int
    principal: dict[str, str] | None
    remote: str | None
    since: float
    ended: float
    error: str | None


def results_before_commit(results: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the fields of the handlers that left a result before the commit, and all results as one."""
    handlers: list[dict[str, Any]] = [
        {"handler": name, "state": "done", "attempt": 1, "error": None, "runs": [], "result": result}
        for name, result in results.items()
    ]
    return {"handlers": handlers, **merged_result(results.values())}


def merged_result(results: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the field `result`: the results in their order as one object. No field without results."""
    merged = merge_results(results)
    return {"result": merged} if merged else {}


def named_principal(principal: Mapping[str, Any] | None) -> dict[str, str] | None:
    """Return name and kind of a principal; its claims are for handlers only."""
    return None if principal is None else {key: str(principal.get(key, "")) for key in ("name", "kind")}


def _ended(progress: Progress, state: str, path: str, size: int) -> EndedUpload:
    upload = progress.upload
    name = named_principal(upload.principal)
    times = progress.since, time.time()
    return EndedUpload(upload.id, state, path, size, name, upload.remote, *times, progress.error)


class Inflight:
    """All uploads between their first header and their response."""

    def __init__(self) -> None:
        self._share = FairShare("uploads in flight", MAX_UPLOADS)
        self._active: dict[str, Progress] = {}
        self._failed: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._ended: deque[EndedUpload] = deque(maxlen=MAX_ENDED)
        self._received_bytes = 0

    def __len__(self) -> int:
        return len(self._active)

    def begin_upload(self, upload: Upload) -> Progress:
        """Count an upload in. Raises as `FairShare.acquire`."""
        lease = self._share.acquire(client_key(upload.principal, upload.remote))
        progress = Progress(upload, lease, "admitting", 0, time.time())
        self._active[upload.id] = progress
        return progress

    def end_upload(self, upload_id: str) -> None:
        """Count an upload out. A second call does nothing."""
        progress = self._active.pop(upload_id, None)
        if progress is not None:
            self._received_bytes += max(progress.received - progress.counted, 0)
            if progress.lease is not None:
                progress.lease.close()

    def end_stored(self, upload_id: str, state: str, path: str, size: int) -> None:
        """Count an upload out that is stored or held."""
        progress = self._active.get(upload_id)
        self.end_upload(upload_id)
        if progress is not None:
            self._ended.append(_ended(progress, state, path, size))

    def end_failed(self, progress: Progress, error: str, refusal: dict[str, Any] | None = None) -> None:
        """Count a failed upload out; its end (`error`: an error code) can be queried for a while."""
        self.end_upload(progress.upload.id)
        progress.refusal = refusal
        self._record(progress, error, progress.received)

    def record_failed(
        self, upload: Upload, error: str, received: int, refusal: dict[str, Any] | None = None
    ) -> None:
        """Keep for a while how an upload ended, also one of which no request is in flight."""
        progress = self._active.get(upload.id) or Progress(upload, None, "", 0, time.time())
        progress.refusal = refusal
        self._record(progress, error, received)

    def _record(self, progress: Progress, error: str, received: int) -> None:
        progress.state = "failed" if progress.refusal is None else "rejected"
        progress.error = error
        # Not the upload itself: its headers may have megabytes.
        self._failed[progress.upload.id] = {**progress.describe(), "bytes": received}
        if len(self._failed) > MAX_FAILED:
            self._failed.popitem(last=False)
        self._ended.append(_ended(progress, progress.state, progress.upload.path, received))

    # -- followed live

    def measure(self, seconds: float) -> int:
        """Measure the rates of the uploads in flight since the latest call, `seconds` ago.

        Returns the bytes that all uploads have brought so far: 0.3 ms for 1000 in flight.
        """
        for progress in self._active.values():
            gained = max(progress.received - progress.counted, 0)
            progress.counted = progress.received
            self._received_bytes += gained
            now, before = gained / seconds, progress.rate
            progress.rate = now if before is None else before + RATE_WEIGHT * (now - before)
        return self._received_bytes

    def active(self) -> Iterator[Progress]:
        """Yield the uploads in flight, that whose request began last first."""
        return reversed(self._active.values())

    def ended(self) -> Iterator[EndedUpload]:
        """Yield the uploads that ended lately, the latest first."""
        return reversed(self._ended)

    def newest(self, before: str, limit: int) -> list[dict[str, Any]]:
        """Return the status pages of up to `limit` uploads whose id is below `before`, newest first."""
        ids = (key for key in (*self._active, *self._failed) if key < before)
        pages = map(self.describe, heapq.nlargest(limit, ids))
        return [page for page in pages if page is not None]

    def ended_since(self, since: float) -> dict[str, int]:
        """Count the failed and the rejected uploads in memory that began since a Unix time."""
        pages = [page for page in self._failed.values() if unix_time(page["created"]) >= since]
        return {state: sum(page["state"] == state for page in pages) for state in ("failed", "rejected")}

    def find(self, upload_id: str) -> Progress | None:
        """Return the progress of an upload in flight."""
        return self._active.get(upload_id)

    def describe(self, upload_id: str) -> dict[str, Any] | None:
        """Return the status page of an upload that is in flight or failed lately."""
        progress = self._active.get(upload_id)
        return self._failed.get(upload_id) if progress is None else progress.describe()
