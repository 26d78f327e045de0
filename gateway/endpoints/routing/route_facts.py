"""What operators are shown of routes: no script, no secret, no value of a header or of a query."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.domain.units import iso_time
from gateway.endpoints.routing.model import Route
from gateway.endpoints.routing.proxy.upstream_groups import Outage, Upstreams

MAX_TEXTS: Final = 20
"""Hosts, operations, networks and groups of a route that are shown; `_count` has how many there are."""

MAX_UPSTREAMS: Final = 200
"""Upstreams that are shown on their own; those that are down come first."""

Facts = dict[str, Any]
Outages = Mapping[tuple[str, str], Sequence[float]]
"""The seconds for which processes have sent no requests to an upstream, by its group and name."""


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """The routes in force. `upstreams` is what this process knows of theirs."""

    routes: Callable[[], Sequence[Route]]
    upstreams: Upstreams

    @property
    def count(self) -> int:
        """How many routes there are."""
        return len(self.routes())

    def outages(self) -> list[Outage]:
        """Return the upstreams that get no requests of this process."""
        return self.upstreams.outages()

    def page(self, search: str, after: int, limit: int, outages: Outages, now: float) -> Facts:
        """Return `limit` of the routes with `search` in a text of theirs, behind the first `after`.

        `next` is where the next page begins, None for the last one; `count` is how many match.
        """
        words = search.casefold().split()
        matching = [route for route in self.routes() if _matches(route, words)]
        shown = matching[after : after + limit]
        following = after + len(shown)
        return {
            "routes": [self._route(route, outages, now) for route in shown],
            "count": len(matching),
            "next": following if following < len(matching) else None,
        }

    def listed_upstreams(self, outages: Outages, now: float) -> list[Facts]:
        """Return the upstreams of all routes, those that are down first."""
        counts: dict[tuple[str, str], int] = {}
        names: dict[str, str] = {}
        for route in self.routes():
            if not route.upstreams:
                continue
            group = self.upstreams.group(route)
            names.setdefault(group, route.name)
            for upstream in route.upstreams:
                counts[group, upstream] = counts.get((group, upstream), 0) + 1
        ranked = sorted(counts, key=lambda key: (key not in outages, key[1], key[0]))
        return [
            {**_state(key, outages, now), "route": names[key[0]], "route_count": counts[key]}
            for key in ranked[:MAX_UPSTREAMS]
        ]

    def _route(self, route: Route, outages: Outages, now: float) -> Facts:
        group = self.upstreams.group(route) if route.upstreams else ""
        weights = route.weights or (1,) * len(route.upstreams)
        upstreams = [
            {**_state((group, upstream), outages, now), "weight": weight}
            for upstream, weight in zip(route.upstreams, weights, strict=True)
        ]
        operations = [{"method": each.method, "usage": each.usage} for each in route.operations.values()]
        return {
            "name": route.name,
            "place": route.place,
            "methods": list(route.methods),
            "path": route.path,
            "hosts": route.conditions.hosts[:MAX_TEXTS],
            "when": [*route.conditions.headers, *(f"?{name}" for name in route.conditions.query)],
            "target": route.target.partition("?")[0],
            "scheme": route.scheme,
            "upstreams": upstreams[:MAX_TEXTS],
            "upstream_count": len(upstreams),
            "redirect": None if route.redirect is None else route.redirect.status,
            "operations": operations[:MAX_TEXTS],
            "authorization": _authorization(route),
            "features": [*_features(route)],
            "limits": _limits(route),
        }


def _matches(route: Route, words: Iterable[str]) -> bool:
    texts = (route.name, route.path, *route.methods, *route.upstreams, *route.conditions.hosts)
    usages = (each.usage for each in route.operations.values())
    text = "\n".join((*texts, *usages)).casefold()
    return all(word in text for word in words)


def _state(key: tuple[str, str], outages: Outages, now: float) -> Facts:
    """Return an upstream, in how many processes it gets no requests, and since when."""
    seconds = outages.get(key, ())
    since = iso_time(now - max(seconds)) if seconds else None
    return {"upstream": key[1], "down": len(seconds), "since": since}


def _authorization(route: Route) -> Facts:
    return {
        "kind": route.auth,
        "scopes": route.scopes[:MAX_TEXTS],
        "groups": route.groups[:MAX_TEXTS],
        "allow": [str(network) for network in route.clients.allow[:MAX_TEXTS]],
        "deny": [str(network) for network in route.clients.deny[:MAX_TEXTS]],
    }


def _features(route: Route) -> Iterable[str]:
    """Yield what else a route does, in words of its YAML keys."""
    operations = route.operations.values()
    present = {
        "request_script": route.request_script is not None,
        "response_script": route.response_script is not None,
        "request_schema": any(each.checks_requests for each in operations),
        "response_schema": any(each.checks_responses for each in operations),
        "cors": route.cors is not None,
        "health": route.health is not None,
        "websocket": route.websocket,
        "request_headers": bool(route.request_headers),
        "response_headers": bool(route.response_headers),
        "upstream_tls": route.upstream_tls is not None,
        "raw_path": route.raw_path,
    }
    return (name for name, is_there in present.items() if is_there)


def _limits(route: Route) -> Facts:
    limits, rate = route.limits, route.rate
    return {
        "connect": limits.connect,
        "idle": limits.idle,
        "total": limits.total,
        "in_flight": limits.in_flight,
        "body": limits.body,
        "rate": rate and {"requests": rate.count, "seconds": rate.seconds, "by": rate.by},
    }
