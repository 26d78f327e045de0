"""The routing table: which route serves a path and a method.

The path decides first, literal before variable before rest, segment by segment; then the method.
Segments are those of the raw path, decoded once. Upstreams read paths in ways of their own: what some
of them would read as another path is refused, so that it cannot lead around a more specific route.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from gateway.domain import paths
from gateway.domain.grant import METHODS
from gateway.domain.path_template import RouteTemplate
from gateway.domain.template_segments import LITERAL, REST
from gateway.endpoints.routing.model import Operation, Route
from gateway.endpoints.routing.proxy.forwarding import has_dot_segment
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


@dataclass(slots=True)
class _RouteNode:
    """A node of the tree of segments, and the routes that end here or match the rest."""

    literals: dict[str, _RouteNode] = field(default_factory=dict)
    variable: _RouteNode | None = None
    routes: list[Route] = field(default_factory=list)
    rest_routes: list[Route] = field(default_factory=list)


class NoRoute(Refusal):
    """No route has the path of a request."""

    def __init__(self) -> None:
        super().__init__("not_found", "nothing is served under this path")


class RouteTable:
    """The routes of one set of plugins."""

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self.routes = tuple(routes)
        self._templates = {route.name: RouteTemplate.parse(route.path) for route in self.routes}
        self.plain_routes = frozenset(route.name for route in self.routes if route.is_plain)
        self._root = _RouteNode()
        self._lenient_root = _RouteNode()
        for route in self.routes:
            _add(self._root, route, self._templates[route.name])
            _add(self._lenient_root, route, self._templates[route.name], lenient=True)
        self._equally_open = not any(
            requires_more(route, self.routes[0]) or requires_more(self.routes[0], route)
            for route in self.routes
        )

    def find(self, raw_path: str, method: str) -> RouteMatch:
        """Return the route. Raises `Refusal` (`not_found`, `bad_path`) and `MethodNotAllowed`."""
        routes, segments = self._routes(raw_path)
        allowed = [route for route in routes if route.allows(method)]
        if not allowed:
            raise MethodNotAllowed(sorted({name for route in routes for name in route.methods}))
        route = allowed[0]
        template = self._templates[route.name]
        _refuse_split_values(route, template, segments)
        if not self._equally_open:
            self._refuse_other_spelling(route, segments)
        return RouteMatch(
            route,
            route.operation(method),
            "/" + "/".join(segments),
            template.values(segments),
            template.values(raw_path[1:].split("/")),
        )

    def _routes(self, raw_path: str) -> tuple[list[Route], tuple[str, ...]]:
        if not self.routes:
            raise NoRoute
        segments = paths.decode(raw_path)
        for position, segment in enumerate(segments, start=1):
            if has_dot_segment(segment) or _HARMFUL.search(_decoded_again(segment)):
                raise Refusal("bad_path", f"segment {position} of the path is not a plain name")
        routes = _search(self._root, segments, 0)
        if not routes:
            raise NoRoute
        return routes, segments

    def _refuse_other_spelling(self, route: Route, segments: Sequence[str]) -> None:
        """Refuse a path that a lenient upstream takes for that of a route which requires more.

        Express and ASP.NET ignore case, Express the slash at the end, IIS blanks and dots there.
        """
        plain = [_lenient(segment) for segment in segments]
        if not plain[-1]:
            plain.pop()
        others = _search(self._lenient_root, plain, 0)
        if route not in others and any(requires_more(other, route) for other in others):
            message = "another route serves this path; write it as that route does, case and all"
            raise Refusal("bad_path", message)


def requires_more(other: Route, route: Route) -> bool:
    """Tell whether `other` requires authorization that `route` does not."""
    if other.auth not in {route.auth, "none"} and (other.auth != "default" or route.auth == "none"):
        return True
    if set(other.scopes) - set(route.scopes):
        return True
    return bool(other.groups) and (not route.groups or bool(set(route.groups) - set(other.groups)))


def is_stricter(other: Route, route: Route) -> bool:
    """Tell whether `other` asks for more than `route`: authorization, a rate, or a schema."""
    checks = any(each.checks_requests for each in other.operations.values())
    has_rate = other.rate is not None and other.rate != route.rate
    return requires_more(other, route) or has_rate or checks


def _add(root: _RouteNode, route: Route, template: RouteTemplate, *, lenient: bool = False) -> None:
    """Add a route; in a lenient tree names are in lower case, and a rest may be missing."""
    node = root
    for part in template.segments:
        if part.kind == REST:
            node.rest_routes.append(route)
            if lenient:
                node.routes.append(route)
            return
        if part.kind == LITERAL:
            name = _lenient(part.text) if lenient else part.text
            if not name and lenient:
                break  # a slash at the end
            node = node.literals.setdefault(name, _RouteNode())
        else:
            node.variable = node.variable or _RouteNode()
            node = node.variable
    node.routes.append(route)


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


def _search(node: _RouteNode, segments: Sequence[str], at: int) -> list[Route]:
    if at == len(segments):
        return node.routes
    literal = node.literals.get(segments[at])
    if literal is not None and (routes := _search(literal, segments, at + 1)):
        return routes
    if node.variable and segments[at] and (routes := _search(node.variable, segments, at + 1)):
        return routes
    return node.rest_routes
