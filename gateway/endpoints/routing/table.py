"""The routing table: which route serves a path and a method.

The path decides first, literal before variable before rest, segment by segment; then the method.
Segments are those of the raw path, decoded once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.domain import paths
from gateway.domain.grant import METHODS
from gateway.domain.path_template import LITERAL, REST, RouteTemplate
from gateway.endpoints.routing.model import Operation, Route
from gateway.errors import Refusal

_HARMFUL: Final = re.compile("[\x00-\x1f\x7f\\\\]")


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


class RouteTable:
    """The routes of one set of plugins."""

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self.routes = tuple(routes)
        self._root = _RouteNode()
        self._templates = {route.name: RouteTemplate.parse(route.path) for route in self.routes}
        for route in self.routes:
            self._add(route, self._templates[route.name])

    def find(self, raw_path: str, method: str) -> RouteMatch:
        """Return the route. Raises `Refusal` (`not_found`, `bad_path`) and `MethodNotAllowed`."""
        routes, segments = self._routes(raw_path)
        allowed = [route for route in routes if route.allows(method)]
        if not allowed:
            raise MethodNotAllowed(sorted({name for route in routes for name in route.methods}))
        route = allowed[0]
        template = self._templates[route.name]
        resources = template.values(segments)
        for part, value in zip(template.segments, segments, strict=False):
            if part.kind != REST and "/" in value:
                raise Refusal("bad_path", f"{part.text!r} in the path contains a slash")
        return RouteMatch(
            route,
            route.operation(method),
            "/" + "/".join(segments),
            resources,
            template.values(raw_path[1:].split("/")),
        )

    def _routes(self, raw_path: str) -> tuple[list[Route], tuple[str, ...]]:
        if not self.routes:
            raise _not_found()
        segments = paths.decode(raw_path)
        for position, segment in enumerate(segments, start=1):
            if segment in {".", ".."} or _HARMFUL.search(segment):
                raise Refusal("bad_path", f"segment {position} of the path is not a plain name")
        routes = _search(self._root, segments, 0)
        if not routes:
            raise _not_found()
        return routes, segments

    def _add(self, route: Route, template: RouteTemplate) -> None:
        node = self._root
        for part in template.segments:
            if part.kind == REST:
                node.rest_routes.append(route)
                return
            if part.kind == LITERAL:
                node = node.literals.setdefault(part.text, _RouteNode())
            else:
                node.variable = node.variable or _RouteNode()
                node = node.variable
        node.routes.append(route)


def _search(node: _RouteNode, segments: Sequence[str], at: int) -> list[Route]:
    if at == len(segments):
        return node.routes
    literal = node.literals.get(segments[at])
    if literal is not None and (routes := _search(literal, segments, at + 1)):
        return routes
    if node.variable and segments[at] and (routes := _search(node.variable, segments, at + 1)):
        return routes
    return node.rest_routes


def _not_found() -> Refusal:
    return Refusal("not_found", "nothing is served under this path")
