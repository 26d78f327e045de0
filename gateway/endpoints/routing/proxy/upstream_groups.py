"""The upstreams of the routes in force, and what is known of them over a reload."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from gateway.endpoints.routing.model import Route
from gateway.endpoints.routing.proxy.upstreams import UpstreamGroup
from gateway.endpoints.routing.rules import ActiveHealth, PassiveHealth, UpstreamTls
from gateway.telemetry.request_metrics import MAX_NAMES

_Key = tuple[tuple[str, ...], str, UpstreamTls | None, PassiveHealth, ActiveHealth | None]


class Outage(NamedTuple):
    """An upstream that gets no requests, and for how long. `group` is the name of `Upstreams.group`."""

    group: str
    upstream: str
    seconds: float


class Upstreams:
    """The upstreams of all routes. Equal settings share what is known, also over a reload."""

    def __init__(self) -> None:
        self._groups: dict[_Key, UpstreamGroup] = {}
        self._of_routes: dict[str, tuple[Route, UpstreamGroup]] = {}
        self._followed: tuple[tuple[UpstreamGroup, Route], ...] = ()
        self._labels: dict[UpstreamGroup, str] = {}

    def of_route(self, route: Route) -> UpstreamGroup:
        """Return the upstreams of a route."""
        entry = self._of_routes.get(route.name)
        if entry is not None and entry[0] is route:
            return entry[1]
        key = route.upstreams, route.scheme, route.upstream_tls, route.passive, route.health
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = UpstreamGroup(route.upstreams, route.passive, route.health)
        self._of_routes[route.name] = route, group
        return group

    def follow(self, routes: Iterable[Route]) -> dict[UpstreamGroup, Route]:
        """Forget what no route in force needs; return the groups of those that are, each with one."""
        self._of_routes.clear()
        self._followed = tuple((self.of_route(route), route) for route in routes if route.upstreams)
        used = dict(self._followed)
        self._labels = {group: route.label for group, route in reversed(self._followed)}
        self._groups = {key: group for key, group in self._groups.items() if group in used}
        return used

    def up(self) -> dict[tuple[str, ...], float]:
        """Return 1 for each route and upstream that gets requests, else 0. Thread-safe."""
        routes = self._followed[:MAX_NAMES]
        return {
            (route.label, upstream): float(group.is_up(upstream))
            for group, route in routes
            for upstream in route.upstreams
        }

    def down(self) -> dict[str, list[str]]:
        """Return the upstreams that get no requests now, each with the routes that it is missing in."""
        routes: dict[str, list[str]] = {}
        for group, route in self._followed:
            for upstream in route.upstreams:
                if not group.is_up(upstream):
                    routes.setdefault(upstream, []).append(route.label)
        return routes

    def group(self, route: Route) -> str:
        """Return a name for all routes that share what is known of upstreams with this one.

        It is the name of the first of them: in processes with the same routes it is the same.
        """
        return self._labels.get(self.of_route(route), route.label)

    def outages(self) -> list[Outage]:
        """Return the upstreams that get no requests now, once for each group of routes."""
        down = (
            (label, upstream, group.down_for(upstream))
            for group, label in self._labels.items()
            for upstream in group.names
        )
        return [
            Outage(label, upstream, seconds) for label, upstream, seconds in down if seconds is not None
        ]
