"""`GET /-/status`: facts about the running gateway, for one screen. It names what is not known."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.auth.request import IncomingRequest
from gateway.endpoints.admin.processes import ProcessClients, this_process_only
from gateway.errors import ConfigError, EventEngineUnavailable, Refusal
from gateway.http.responses import ApiHandler, Response, json_response

FACT_TIMEOUT: Final = 5.0
"""Seconds that one fact may take; after that it is not known."""

MAX_ROUTES: Final = 5
"""Routes that are named with an upstream; a plugin with `openapi` may have a thousand."""

Facts = dict[str, Any]
UpstreamRoutes = Mapping[str, Sequence[str]]
"""Upstreams, each with the names of routes."""

ReadFact = Callable[[], Awaitable[Any]]

_NOT_KNOWN: Final = (ConfigError, EventEngineUnavailable, Refusal, OSError, sqlite3.Error, TimeoutError)


@dataclass(slots=True, frozen=True)
class FactsEndpoint:
    """Serves `/-/status`.

    `fixed` are facts that do not change while the gateway runs. `own` returns what each process counts
    of itself, which is added up. `down` returns the upstreams that get no requests of a process.
    `shared` are facts that every process knows alike, by name.
    """

    fixed: Mapping[str, Any]
    own: Callable[[], Awaitable[Mapping[str, int | None]]]
    down: Callable[[], UpstreamRoutes]
    shared: Mapping[str, ReadFact]
    processes: ProcessClients

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"status": self._get}

    async def _get(self, incoming: IncomingRequest) -> Response:
        unknown: dict[str, str] = {}
        own = await _attempt("uploads", self.own, unknown)
        if this_process_only(incoming):
            return json_response({"uploads": own, "upstreams_down": self.down()})
        counts, down, silent = [own], [self.down()], list[int]()
        if self.processes.sessions:
            for slot, body in (await self.processes.get_all("/-/status")).items():
                if body is None:
                    silent.append(slot)
                else:
                    answer = json.loads(body)
                    counts.append(answer["uploads"])
                    down.append(answer["upstreams_down"])
        values = await asyncio.gather(
            *(_attempt(name, read, unknown) for name, read in self.shared.items())
        )
        shared = {
            name: value for name, value in zip(self.shared, values, strict=True) if value is not None
        }
        if silent:
            reason = f"process {', '.join(map(str, silent))} does not answer"
            unknown |= {"uploads": reason, "upstreams_down": reason}
        facts = {**self.fixed, "silent_processes": silent, "uploads": _added(counts), **shared}
        return json_response({**facts, "upstreams_down": _merged(down), "unknown": unknown})


async def _attempt(name: str, read: ReadFact, unknown: dict[str, str]) -> Any:
    """Return a fact, None where it cannot be read; the reason is noted in `unknown`."""
    try:
        async with asyncio.timeout(FACT_TIMEOUT):
            return await read()
    except _NOT_KNOWN as error:
        unknown[name] = str(error) or f"no answer within {FACT_TIMEOUT:g} s"
        return None


def _added(counts: Sequence[Mapping[str, int | None] | None]) -> dict[str, int]:
    """Add up what the processes count; nothing of what none of them knows."""
    sums: dict[str, int] = {}
    for each in counts:
        for name, count in (each or {}).items():
            if count is not None:
                sums[name] = sums.get(name, 0) + count
    return sums


def _merged(down: Sequence[UpstreamRoutes]) -> list[Facts]:
    """Return each upstream that gets no requests: of how many processes, and of which routes."""
    processes: Counter[str] = Counter()
    routes: dict[str, set[str]] = {}
    for each in down:
        processes.update(each.keys())
        for upstream, names in each.items():
            routes.setdefault(upstream, set()).update(names)
    return [
        {
            "upstream": upstream,
            "processes": processes[upstream],
            "routes": sorted(names)[:MAX_ROUTES],
            "route_count": len(names),
        }
        for upstream, names in sorted(routes.items())
    ]
