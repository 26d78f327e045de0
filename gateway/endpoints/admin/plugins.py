"""`GET /-/plugins`: which plugins are in force, and what the latest reload led to.

Never a script, a secret, or a value of a config. Upstreams are those of all processes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from gateway.auth.request import IncomingRequest
from gateway.domain.units import iso_time
from gateway.endpoints.admin.processes import ProcessClients, this_process_only
from gateway.endpoints.admin.reload import ReloadEndpoint
from gateway.errors import Refusal
from gateway.http.responses import ApiHandler, Response, json_response
from gateway.plugins import Handler, Plugins
from gateway.plugins.models import ADMITTING, DECIDING, DELIVERED, EVENTS

PAGE_ROUTES: Final = 100
MAX_PAGE_ROUTES: Final = 1000
MAX_HANDLERS: Final = 1000
MAX_CONFIGS: Final = 1000
MAX_FAULTS: Final = 100
MAX_TEXTS: Final = 20
MAX_SEARCH: Final = 200
"""Characters of a search."""

_OWN_PATH: Final = "/-/plugins"

Facts = dict[str, Any]
Outages = Mapping[tuple[str, str], Sequence[float]]
"""The seconds for which processes have sent no requests to an upstream, by its group and name."""


class RoutesInForce(Protocol):
    """The routes of plugins, and what is known of their upstreams."""

    @property
    def count(self) -> int:
        """How many routes there are."""

    def outages(self) -> Sequence[tuple[str, str, float]]:
        """Return the upstreams that get no requests of this process: group, name, and for how long."""

    def page(self, search: str, after: int, limit: int, outages: Outages, now: float) -> Facts:
        """Return some of the routes with `search` in a text of theirs."""

    def listed_upstreams(self, outages: Outages, now: float) -> list[Facts]:
        """Return the upstreams of all routes."""


@dataclass(slots=True, frozen=True)
class PluginsEndpoint:
    """Serves `/-/plugins` and `/-/plugins/routes`. `folders` are those of `--plugins`."""

    plugins: Plugins
    folders: Sequence[Path]
    reload: ReloadEndpoint
    routes: RoutesInForce
    processes: ProcessClients

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"plugins": self._get, "plugins.routes": self._get_routes}

    async def _get(self, incoming: IncomingRequest) -> Response:
        if this_process_only(incoming):
            return json_response({"outages": self.routes.outages()})
        state, now = await self._processes(), time.time()
        current = self.plugins.current
        handlers = list(self._handlers(now))
        configs = current.configs.names
        return json_response({
            "set": current.number,
            "folders": [str(folder) for folder in self.folders],
            "files": len(current.files),
            "reload": self._latest_reload(),
            "handlers": handlers[:MAX_HANDLERS],
            "handler_count": len(handlers),
            "configs": configs[:MAX_CONFIGS],
            "config_count": len(configs),
            "route_count": self.routes.count,
            "upstreams": self.routes.listed_upstreams(state.outages, now),
            **state.fields(),
        })  # fmt: skip

    async def _get_routes(self, incoming: IncomingRequest) -> Response:
        query = incoming.params
        search = "".join(query.get("search", [])[:1])
        if len(search) > MAX_SEARCH:
            raise Refusal("bad_request", f"search has at most {MAX_SEARCH} characters")
        after = _number(query.get("after"), "after", 0)
        limit = min(max(_number(query.get("limit"), "limit", PAGE_ROUTES), 1), MAX_PAGE_ROUTES)
        state = await self._processes()
        page = self.routes.page(search, after, limit, state.outages, time.time())
        for route in page["routes"]:
            route["place"] = self._place(route["place"])
        return json_response({**page, **state.fields()})

    async def _processes(self) -> _ProcessesState:
        """Return what all processes know of upstreams."""
        outages: dict[tuple[str, str], list[float]] = {}
        answers = await self.processes.get_all(_OWN_PATH) if self.processes.sessions else {}
        own = [self.routes.outages()]
        silent = [slot for slot, body in answers.items() if body is None]
        own += [json.loads(body)["outages"] for body in answers.values() if body is not None]
        for each in own:
            for group, upstream, seconds in each:
                outages.setdefault((group, upstream), []).append(seconds)
        return _ProcessesState(outages, 1 + len(answers), silent)

    def _latest_reload(self) -> Facts | None:
        """Return the outcome of the newest reload, None where there was none since the start."""
        if self.reload.latest is None:
            return None
        moment, outcome = self.reload.latest
        faults = [self._place(fault) for fault in outcome.faults[:MAX_FAULTS]]
        return {"time": iso_time(moment), "faults": faults, "fault_count": len(outcome.faults)}

    def _handlers(self, now: float) -> Iterator[Facts]:
        """Yield the handlers of each event, then its shadows; those that decide run in this order."""
        current = self.plugins.current
        for event in EVENTS:
            handlers = (*current.handlers[event], *current.shadows[event])
            for order, handler in enumerate(handlers, start=1):
                yield {
                    **_handler_facts(handler),
                    "order": order if event in DECIDING and not handler.shadow else None,
                    "place": self._place(handler.place),
                    **_schedule_facts(handler, now),
                }

    def _place(self, text: str) -> str:
        """Return a text that begins with a file, relative to the folder of plugins that has it."""
        for folder in self.folders:
            for beginning in (f"{folder}/", f"{folder.absolute()}/"):
                if text.startswith(beginning):
                    return text[len(beginning) :]
        return text


@dataclass(slots=True, frozen=True)
class _ProcessesState:
    """What the processes answered; those in `silent` did not."""

    outages: dict[tuple[str, str], list[float]]
    processes: int
    silent: list[int]

    def fields(self) -> Facts:
        return {"processes": self.processes, "silent_processes": self.silent}


def _handler_facts(handler: Handler) -> Facts:
    """Return a handler with what has a meaning for its event."""
    facts: Facts = {
        "kind": "event handler" if handler.url is None else "webhook",
        "name": handler.name,
        "event": handler.event,
        "timeout": handler.timeout,
        "shadow": handler.shadow,
        "prefix": handler.prefix[:MAX_TEXTS],
        "suffix": handler.suffix[:MAX_TEXTS],
    }
    if handler.event in DELIVERED or handler.may_hold:
        retry = handler.retry
        facts |= {
            "concurrency": handler.concurrency,
            "retry": {
                "attempts": retry.attempts,
                "backoff": retry.backoff,
                "max_backoff": retry.max_backoff,
            },
        }
    if handler.event in DECIDING:
        facts |= {"on_error": handler.on_error, "hold": handler.hold}
    if handler.event in ADMITTING:
        facts["authorization"] = "keep" if handler.keeps_authorization else "replace"
    if handler.url is not None:
        facts["host"] = _host(handler.url)
    return facts


def _schedule_facts(handler: Handler, now: float) -> Facts:
    if handler.schedule is None:
        return {}
    tick = handler.schedule.next(now)
    return {"schedule": str(handler.schedule), "next": None if tick is None else iso_time(tick)}


def _host(url: str) -> str | None:
    """Return scheme and host of a webhook; its path may be a secret. None where that is a reference."""
    if "${" in url or "://" not in url:
        return None
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}" + (f":{parts.port}" if parts.port else "")


def _number(values: Sequence[Any] | None, name: str, default: int) -> int:
    if not values:
        return default
    text = str(values[0])
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Refusal("bad_request", f"{name} must be a whole number")
    return int(text)
