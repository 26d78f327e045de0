"""Door: what the gateway tells of itself, everything below `/-/`.

The rule: it only reads. Liveness and readiness are open to all; whether the rest may be seen is
settled before it gets here. May import server, inflight, commit.reserve, events, hooks and below.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gateway.commit.reserve import Reserve
from gateway.errors import Refusal
from gateway.events.ledger import Ledger, Row
from gateway.hooks import Hooks
from gateway.inflight import Inflight
from gateway.metrics import Metrics
from gateway.server import json_answer

OPEN_TO_ALL: Final = frozenset({("-", "health"), ("-", "ready")})

STATES: Final = ("ready", "running", "delayed", "dead", "done")
MAX_PAGE: Final = 1000
READY_SECONDS: Final = 1.0
"""How long an answer about readiness is kept: probes must not become a load."""

JOURNAL_SECONDS: Final = 5.0

Query = dict[str, list[str]]


@dataclass(slots=True)
class Observe:
    """Answers `GET /-/...`. Lives on the server's loop."""

    ledger: Ledger
    inflight: Inflight
    reserve: Reserve
    hooks: Hooks
    metrics: Metrics
    openapi: Callable[[], dict[str, Any]]
    _ready: tuple[float, dict[str, bool]] = (0.0, {})

    async def answer(self, segments: tuple[str, ...], query: Query) -> web.Response:
        """Answer for a path below `/-/`, given as decoded segments. Raises `Refusal`."""
        pages: dict[tuple[str, ...], Callable[[], Awaitable[web.Response]]] = {
            ("-", "health"): self._health,
            ("-", "ready"): self._readiness,
            ("-", "metrics"): self._metrics,
            ("-", "events"): lambda: self._events(query),
            ("-", "openapi.json"): self._openapi,
        }
        if segments in pages:
            return await pages[segments]()
        if segments[:2] == ("-", "uploads") and len(segments) == 3:
            return await self._upload(segments[2])
        if segments[:2] == ("-", "events") and len(segments) == 3:
            return await self._event(segments[2])
        raise Refusal("not_found", "there is no such page")

    async def _health(self) -> web.Response:
        return json_answer({"status": "ok"})

    async def _readiness(self) -> web.Response:
        until, checks = self._ready
        if time.monotonic() > until:
            checks = {
                "journal": await self._journal_writable(),
                "disk": await asyncio.to_thread(self.reserve.above_watermark),
                "scripts": self.hooks.alive,
            }
            self._ready = (time.monotonic() + READY_SECONDS, checks)
        ready = all(checks.values())
        return json_answer({"ready": ready, "checks": checks}, 200 if ready else 503)

    async def _journal_writable(self) -> bool:
        try:
            async with asyncio.timeout(JOURNAL_SECONDS):
                await asyncio.wrap_future(self.ledger.check())
        except (sqlite3.Error, TimeoutError):
            return False
        return True

    async def _metrics(self) -> web.Response:
        depth = await asyncio.wrap_future(self.ledger.depth())
        rows = [(row["handler"], row["state"], row["count"]) for row in depth]
        body = await asyncio.to_thread(self.metrics.render, rows)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _upload(self, upload_id: str) -> web.Response:
        story = self.inflight.story(upload_id)
        if story is None or story["state"] == "failed":
            # On its way, its row may yet be undone; ended, the journal knows better than we do.
            row = await asyncio.wrap_future(self.ledger.story(upload_id))
            story = story if row is None else self._stored(row)
        if story is None:
            raise Refusal("not_found", "no upload of this id is known (any more)")
        return json_answer(story)

    def _stored(self, row: Row) -> dict[str, Any]:
        story = _stored(row)
        for told in story["handlers"]:
            progress = self.hooks.progress(told["event_id"], told["handler"])
            if progress is not None:
                told["progress"] = progress
        return story

    async def _openapi(self) -> web.Response:
        return json_answer(self.openapi())

    async def _events(self, query: Query) -> web.Response:
        state, handler = _one(query, "state"), _one(query, "handler")
        if state is not None and state not in STATES:
            raise Refusal("bad_request", f"state is one of {', '.join(STATES)}")
        after, limit = _number(query, "after", 0), _number(query, "limit", 100)
        limit = min(max(limit, 1), MAX_PAGE)
        rows = await asyncio.wrap_future(self.ledger.page(state, handler, after, limit))
        more = rows[-1]["seq"] if len(rows) == limit else None
        return json_answer({"deliveries": rows, "next": more})

    async def _event(self, event_id: str) -> web.Response:
        row = await asyncio.wrap_future(self.ledger.history(event_id))
        if row is None:
            raise Refusal("not_found", "no event of this id is known (any more)")
        return json_answer(row)


def _stored(row: Row) -> dict[str, Any]:
    """Tell of a committed upload; of a handler's error the first line: the rest is the operator's."""
    return {
        "upload_id": row["id"],
        "state": "stored",
        "path": row["path"],
        "bytes": row["bytes"],
        "mime": row["mime"],
        "created": row["created"],
        "committed": row["committed"],
        "handlers": [
            {
                "handler": delivery["handler"],
                "event_id": delivery["event_id"],
                "state": delivery["state"],
                "attempt": delivery["attempt"],
                "error": _first_line(delivery["error"]),
                "runs": [{**run, "error": _first_line(run["error"])} for run in delivery["runs"]],
            }
            for delivery in row["handlers"]
        ],
    }


def _first_line(text: str | None) -> str | None:
    return text.splitlines()[0] if text else text


def _one(query: Query, name: str) -> str | None:
    values = query.get(name)
    return values[0] if values else None


def _number(query: Query, name: str, default: int) -> int:
    text = _one(query, name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Refusal("bad_request", f"{name} must be a whole number")
    return int(text)
