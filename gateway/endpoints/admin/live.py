"""`GET /-/live`: what goes on now in all processes, as one JSON snapshot or one event a second.

A snapshot is made at most once a second for all streams of a process together: then every other
process is asked once, for all their viewers. Its size is bounded, however much goes on.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from gateway.auth.authenticator import Auth
from gateway.auth.principals import JWT
from gateway.auth.request import IncomingRequest, RequestHead
from gateway.auth.roles import UPLOADER
from gateway.domain.units import iso_time
from gateway.endpoints.admin.event_stream import (
    EventStreamResponse,
    EventStreams,
    accepts_stream,
)
from gateway.endpoints.admin.live_rates import RateSampler
from gateway.endpoints.admin.live_views import View, merge_parts, own_views
from gateway.endpoints.admin.processes import ProcessClients
from gateway.endpoints.admin.viewers import Viewer, viewer_of
from gateway.endpoints.inflight import Inflight
from gateway.endpoints.json_changes import read_change
from gateway.errors import EventEngineUnavailable, Refusal
from gateway.events.protocols import Ledger
from gateway.http.responses import ApiHandler, GatewayResponse, Response, json_response
from gateway.limits import Lease
from gateway.telemetry.metrics import Metrics

INTERVAL: Final = 1.0
"""Seconds between two events of a stream."""

FRESH: Final = 0.8
"""Seconds for which a snapshot serves all who ask."""

PROCESS_TIMEOUT: Final = 0.7
"""Seconds in which another process must tell its part: one that hangs holds up no snapshot."""

QUEUE_INTERVAL: Final = 5.0
QUEUE_SHARE: Final = 0.05
"""Seconds between two counts of the queue, and the share of the time that counting may take: a count of
a million deliveries takes some seconds of the journal's thread, a few milliseconds at a time."""

QUEUE_TIMEOUT: Final = 10.0
MAX_VIEWERS: Final = 1000

CHECK_INTERVAL: Final = 10.0
"""Seconds between two checks of whether the caller of a stream may still see it."""

Json = dict[str, Any]


class QueueDepth:
    """The deliveries that are not done, by state, counted again now and then while somebody looks."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._counts: dict[str, int] | None = None
        self._read: float | None = None
        self._due = 0.0
        self._counting: asyncio.Task[None] | None = None

    async def fields(self) -> Json:
        """Return `queue`, None where it is not known, and when it was counted. Waits for no count."""
        if self._counting is None and time.monotonic() >= self._due:
            self._counting = asyncio.create_task(self._count())
        if self._read is None and self._counting is not None:  # mostly it takes a few milliseconds
            await asyncio.wait({self._counting}, timeout=PROCESS_TIMEOUT)
        read = None if self._read is None else iso_time(self._read)
        return {"queue": self._counts, "queue_time": read}

    async def _count(self) -> None:
        started = time.monotonic()
        counts: Counter[str] = Counter()
        try:
            async with asyncio.timeout(QUEUE_TIMEOUT):
                for row in await self._ledger.depth():
                    counts[row.state] += row.count
            self._counts = dict(counts)
        except (EventEngineUnavailable, TimeoutError):
            self._counts = None
        finally:
            self._read, self._counting = time.time(), None
            duration = time.monotonic() - started
            self._due = time.monotonic() + max(QUEUE_INTERVAL, duration / QUEUE_SHARE)


class LiveFeed:
    """The snapshots of one process for all who look. Lives on the loop."""

    def __init__(
        self, slot: int, inflight: Inflight, metrics: Metrics, processes: ProcessClients, ledger: Ledger
    ) -> None:
        self._slot = slot
        self._inflight = inflight
        self._processes = processes
        self._queue = QueueDepth(ledger)
        self.sampler = RateSampler(inflight, metrics)
        self._watching: Counter[View] = Counter()
        self._lock = asyncio.Lock()
        self._updated = 0.0
        self._texts: dict[View, str] = {}

    def watch(self, viewer: View, change: int) -> None:
        """Count a stream of a viewer in (1) or out (-1)."""
        self._watching[viewer] += change
        if not self._watching[viewer]:
            del self._watching[viewer]

    async def text(self, viewer: View) -> str:
        """Return the snapshot of a viewer as JSON on one line."""
        async with self._lock:
            now = time.monotonic()
            if now - self._updated >= FRESH:
                self._texts, self._updated = await self._snapshots([*{*self._watching, viewer}]), now
            elif viewer not in self._texts:
                self._texts |= await self._snapshots([viewer])
            return self._texts[viewer]

    def own_part(self, viewers: Sequence[View]) -> Json:
        """Return what this process has for these viewers."""
        return {"views": own_views(self._inflight, viewers), "counts": self.sampler.counts()}

    async def _snapshots(self, viewers: Sequence[View]) -> dict[View, str]:
        body = {"viewers": [None if viewer is None else viewer.principal for viewer in viewers]}
        answers, queue = await asyncio.gather(
            self._processes.post_all("/-/live/process", body, PROCESS_TIMEOUT),
            self._queue.fields() if None in viewers else _nothing(),
        )
        parts = {self._slot: self.own_part(viewers), **answers}
        head = {"time": iso_time(time.time())}
        snapshots = merge_parts(viewers, parts, head, queue)
        return {viewer: json.dumps(each, ensure_ascii=False) for viewer, each in snapshots.items()}


async def _nothing() -> Json:
    return {}


class LiveEndpoint:
    """Serves `/-/live`, and to the other processes `/-/live/process`."""

    def __init__(self, feed: LiveFeed, streams: EventStreams, auth: Auth) -> None:
        self._feed = feed
        self._streams = streams
        self._auth = auth

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"live": self._get, "live.process": self._part}

    async def _get(self, incoming: IncomingRequest) -> GatewayResponse:
        viewer = viewer_of(incoming)
        if incoming.method == "GET" and accepts_stream(incoming.headers):
            allowed = partial(self._is_allowed, incoming, viewer)
            return _LiveStream(
                self._streams, self._streams.acquire(incoming), self._feed, viewer, allowed
            )
        # "replace": a text of a request may hold what UTF-8 cannot have.
        content = (await self._feed.text(viewer)).encode(errors="replace")
        headers = {"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"}
        return Response(body=content, headers=headers)

    async def _is_allowed(self, incoming: IncomingRequest, viewer: View) -> bool:
        """Tell whether the caller of a stream may still see what it sees.

        Its token may have been revoked since, or its session ended. What cannot be decided now is
        decided later.
        """
        if incoming.owner:
            return True
        head = RequestHead("GET", incoming.raw_target, incoming.headers, incoming.remote)
        head.certificate = incoming.certificate
        try:
            caller = await self._auth.authenticate(head, jwt=self._auth.mode == JWT)
        except Refusal as refusal:
            return refusal.status not in {401, 403}
        role = self._auth.role(caller)
        head.uploader = caller.principal if role == UPLOADER else None
        return role is not None and viewer_of(head) == viewer

    async def _part(self, incoming: IncomingRequest) -> Response:
        try:
            body = await read_change(incoming.request)
            names = body["viewers"][:MAX_VIEWERS]
            viewers = [None if name is None else Viewer(name["name"], name["kind"]) for name in names]
        except (KeyError, TypeError, ValueError) as error:
            raise Refusal("bad_request", "viewers are null, or principals with name and kind") from error
        return json_response(self._feed.own_part(viewers))


class _LiveStream(EventStreamResponse):
    """A stream with a snapshot each second, until the gateway stops or the caller may see it no more."""

    def __init__(
        self,
        streams: EventStreams,
        lease: Lease,
        feed: LiveFeed,
        viewer: View,
        is_allowed: Callable[[], Awaitable[bool]],
    ) -> None:
        super().__init__(streams, lease)
        self._feed = feed
        self._viewer = viewer
        self._is_allowed = is_allowed

    async def _send_events(self) -> None:
        self._feed.watch(self._viewer, 1)
        try:
            await self._follow()
        finally:
            self._feed.watch(self._viewer, -1)

    async def _follow(self) -> None:
        checked = time.monotonic()
        while not (self._is_over or self._stopping.is_set()):
            started = time.monotonic()
            await self._send(f"data: {await self._feed.text(self._viewer)}\n\n")
            if started - checked >= CHECK_INTERVAL:
                checked = started
                if not await self._is_allowed():
                    return
            await self._wait(max(started + INTERVAL - time.monotonic(), 0.1))
