"""The routing table: which route serves a request.

The host decides first, its own routes before those of a pattern before those of all hosts; then the
path, literal before variable before rest, segment by segment; then the method, then `when`. Segments
are those of the raw path, decoded once. Upstreams read paths in ways of their own: what some of them
would read as another path is refused, so that it cannot lead around a more specific route.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from aiohttp import hdrs

from gateway.auth.request import RequestHead
from gateway.domain import paths
from gateway.domain.addresses import host_name
from gateway.domain.grant import METHODS
from gateway.domain.path_template import RouteTemplate
from gateway.domain.template_segments import LITERAL, REST
from gateway.endpoints.routing.conditions import (
    Holds,
    precedence,
    preflight_holds,
    request_holds,
    suffixes,
)
from gateway.endpoints.routing.forwarding import has_dot_segment
from gateway.endpoints.routing.model import Operation, Route
from gateway.errors import Refusal

_HARMFUL: Final = re.compile("[\x00-\x1f\x7f\\\\]")
_SPLIT: Final = re.compile("[/;]")
"""What many servers split a segment at after they have decoded it; behind `;` are parameters, which
Tomcat and Jetty drop."""


class MethodNotAllowed(Refusal):
    """A route has this path, none this method. `allow` are the methods that they serve."""

    def __init__(self, allow: Sequence[str]) -> None:
        text = ", ".join(allow or METHODS)
        super().__init__("method_not_allowed", f"this path allows {text}", {"Allow": text})
        self.allow = tuple(allow)


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """A route and its variables in the path. `raw_resources` are still encoded."""

    route: Route
    operation: Operation | None
    path: str
    resources: dict[str, str]
    raw_resources: dict[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class _PlacedRoute:
    """A route of the table, and its parsed path."""

    route: Route
    template: RouteTemplate


@dataclass(slots=True)
class _RouteNode:
    """A node of the tree of segments, and the routes that end here or match the rest."""

    literals: dict[str, _RouteNode] = field(default_factory=dict)
    variable: _RouteNode | None = None
    routes: list[_PlacedRoute] = field(default_factory=list)
    rest_routes: list[_PlacedRoute] = field(default_factory=list)


@dataclass(slots=True)
class _HostRoutes:
    """The routes of one host, or of one pattern of hosts. `lenient` is searched for other spellings."""

    root: _RouteNode = field(default_factory=_RouteNode)
    lenient: _RouteNode = field(default_factory=_RouteNode)


class NoRoute(Refusal):
    """No route has the path of a request."""

    def __init__(self) -> None:
        super().__init__("not_found", "nothing is served under this path")


class RouteTable:
    """The routes of one set of plugins."""

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self.routes = tuple(routes)
        self.plain_routes = frozenset(route.name for route in self.routes if route.is_plain)
        self._of_hosts: dict[str, _HostRoutes] = {}
        self._of_all_hosts = _HostRoutes()
        for route in sorted(self.routes, key=lambda route: precedence(route.conditions)):
            placed = _PlacedRoute(route, RouteTemplate.parse(route.path))
            for pattern in route.conditions.hosts:
                _place(self._of_hosts.setdefault(pattern, _HostRoutes()), placed)
            if not route.conditions.hosts:
                _place(self._of_all_hosts, placed)
        self.has_conditions = any(
            route.conditions.headers or route.conditions.query for route in self.routes
        )
        self._equally_open = not any(
            requires_more(route, self.routes[0]) or requires_more(self.routes[0], route)
            for route in self.routes
        )

    def find(self, head: RequestHead, method: str | None = None) -> RouteMatch:
        """Return the route of a request; of a preflight that for the `method` which it asks for.

        Raises `Refusal` (`not_found`, `bad_path`, `bad_request`) and `MethodNotAllowed`.
        """
        segments = self._segments(head.raw_path)
        holds: Holds | None = None
        if self.has_conditions:
            holds = request_holds(head) if method is None else preflight_holds(head)
        method = method or head.method
        searched, placed_routes = [], []
        for of_host in self._search_order(head):
            searched.append(of_host)
            if placed_routes := _search(of_host.root, segments, 0, holds):
                break
        else:
            raise NoRoute
        allowed = [placed for placed in placed_routes if placed.route.allows(method)]
        if not allowed:
            names = {name for placed in placed_routes for name in placed.route.methods}
            raise MethodNotAllowed(sorted(names))
        route, template = allowed[0].route, allowed[0].template
        _refuse_split_values(route, template, segments)
        if not self._equally_open:
            _refuse_other_spelling(allowed[0], segments, searched, holds)
        return RouteMatch(
            route,
            route.operation(method),
            "/" + "/".join(segments),
            template.values(segments),
            template.values(head.raw_path[1:].split("/")),
        )

    def _segments(self, raw_path: str) -> tuple[str, ...]:
        if not self.routes:
            raise NoRoute
        segments = paths.decode(raw_path)
        for position, segment in enumerate(segments, start=1):
            if has_dot_segment(segment) or _HARMFUL.search(_decoded_again(segment)):
                raise Refusal("bad_path", f"segment {position} of the path is not a plain name")
        return segments

    def _search_order(self, head: RequestHead) -> Iterator[_HostRoutes]:
        """Yield the routes of the request's host, those of the patterns that it matches, all others.

        Raises `Refusal("bad_request")` for a `Host` that others may read as another one.
        """
        if self._of_hosts:
            host = host_name(head.headers.get(hdrs.HOST, ""))
            if host is None:
                raise Refusal("bad_request", "invalid Host header")
            for name in (host, *suffixes(host)):
                if name in self._of_hosts:
                    yield self._of_hosts[name]
        yield self._of_all_hosts


def requires_more(other: Route, route: Route) -> bool:
    """Tell whether `other` requires authorization, or an address, that `route` does not."""
    if other.auth not in {route.auth, "none"} and (other.auth != "default" or route.auth == "none"):
        return True
    if set(other.scopes) - set(route.scopes) or set(other.clients.deny) - set(route.clients.deny):
        return True
    return _is_among_fewer(other.groups, route.groups) or _is_among_fewer(
        other.clients.allow, route.clients.allow
    )


def _is_among_fewer(others: Sequence[object], own: Sequence[object]) -> bool:
    """Tell whether being one of `others` (none: anyone is) does not follow from being one of `own`."""
    return bool(others) and (not own or bool(set(own) - set(others)))


def is_stricter(other: Route, route: Route) -> bool:
    """Tell whether `other` asks for more than `route`: authorization, a rate, or a schema."""
    checks = any(each.checks_requests for each in other.operations.values())
    has_rate = other.rate is not None and other.rate != route.rate
    return requires_more(other, route) or has_rate or checks


def _place(of_host: _HostRoutes, placed: _PlacedRoute) -> None:
    _add(of_host.root, placed)
    _add(of_host.lenient, placed, lenient=True)


def _add(root: _RouteNode, placed: _PlacedRoute, *, lenient: bool = False) -> None:
    """Add a route; in a lenient tree names are in lower case, and a rest may be missing."""
    node = root
    for part in placed.template.segments:
        if part.kind == REST:
            node.rest_routes.append(placed)
            if lenient:
                node.routes.append(placed)
            return
        if part.kind == LITERAL:
            name = _lenient(part.text) if lenient else part.text
            if not name and lenient:
                break  # a slash at the end
            node = node.literals.setdefault(name, _RouteNode())
        else:
            node.variable = node.variable or _RouteNode()
            node = node.variable
    node.routes.append(placed)


def _refuse_other_spelling(
    placed: _PlacedRoute,
    segments: Sequence[str],
    searched: Sequence[_HostRoutes],
    holds: Holds | None,
) -> None:
    """Refuse a path that a lenient upstream takes for that of a route which requires more.

    Express and ASP.NET ignore case, Express the slash at the end, IIS blanks and dots there. In its
    own spelling that route would have come first: those of hosts that come later do not count.
    """
    plain = [_lenient(segment) for segment in segments]
    if not plain[-1]:
        plain.pop()
    for of_host in searched:
        others = _search(of_host.lenient, plain, 0, holds)
        if placed in others:
            return
        if any(requires_more(other.route, placed.route) for other in others):
            message = "another route serves this path; write it as that route does, case and all"
            raise Refusal("bad_path", message)


def _lenient(segment: str) -> str:
    text = segment if segment.isascii() else unicodedata.normalize("NFKC", segment)
    return text.casefold().strip().rstrip(". ")


def _decoded_again(segment: str) -> str:
    """Decode once more than we do: some upstreams decode twice."""
    return unquote(segment) if "%" in segment else segment


def _refuse_split_values(route: Route, template: RouteTemplate, segments: Sequence[str]) -> None:
    """Refuse a variable's value in which an upstream may see more, or other, segments.

    With `target.raw_path` a rest may have them.
    """
    for position, part in enumerate(template.segments):
        if part.kind == LITERAL:
            continue
        values = segments[position:] if part.kind == REST else segments[position : position + 1]
        if part.kind == REST and route.raw_path:
            return
        if any(_SPLIT.search(_decoded_again(value)) for value in values):
            reason = "has a slash (%2F) or a semicolon in a segment"
        elif "" in values[:-1]:
            reason = "has an empty segment"
        else:
            continue
        place = (
            "of the route allows it" if part.kind == REST else "allows it in a rest ({name:path}) alone"
        )
        message = f"{part.text!r} in the path {reason}; `target.raw_path: true` {place}"
        raise Refusal("bad_path", message)


def _search(
    node: _RouteNode, segments: Sequence[str], at: int, holds: Holds | None
) -> list[_PlacedRoute]:
    """Return the routes of a path that hold; one that does not hold is as if it were not there."""
    if at == len(segments):
        return _holding(node.routes, holds)
    literal = node.literals.get(segments[at])
    if literal is not None and (routes := _search(literal, segments, at + 1, holds)):
        return routes
    variable = node.variable
    if variable and segments[at] and (routes := _search(variable, segments, at + 1, holds)):
        return routes
    return _holding(node.rest_routes, holds)


def _holding(routes: list[_PlacedRoute], holds: Holds | None) -> list[_PlacedRoute]:
    return routes if holds is None else [each for each in routes if holds(each.route.conditions)]
