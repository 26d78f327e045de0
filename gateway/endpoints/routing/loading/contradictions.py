"""Routes that cannot stand together, and those that should not: rules that need all routes."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from gateway.domain.path_template import RouteTemplate, UploadPathTemplate
from gateway.domain.template_index import TemplateIndex
from gateway.domain.template_segments import Segments, overlap
from gateway.endpoints.routing.conditions import (
    can_share_host,
    exclude_each_other,
    has_narrower,
    have_same_host,
)
from gateway.endpoints.routing.model import Route
from gateway.endpoints.routing.rules import RequestConditions
from gateway.endpoints.routing.table import is_stricter, requires_more
from gateway.errors import ConfigError
from gateway.plugins import Document
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.routing")


class PlacedRoute(Protocol):
    """A route, and the document that it was made of."""

    @property
    def route(self) -> Route:
        """The route."""

    @property
    def document(self) -> Document:
        """Its document."""


def contradictions(plugins: Sequence[PlacedRoute], upload: str) -> Iterator[ConfigError]:
    """Yield an error for each pair of routes that contradict each other, or the upload path."""
    yield from _clashes(plugins)
    yield from _nameless(plugins)
    yield from _on_uploads(plugins, upload)
    yield from _raw_over_stricter(plugins)


def warn_of_exposed(plugins: Sequence[PlacedRoute]) -> None:
    """Warn of routes that are open to all and cover a protected route of the same upstream."""
    routes = [plugin.route for plugin in plugins]
    indexes = _protected_by_upstream(routes)
    for route in (route for route in routes if route.auth == "none"):
        for other in (routes[number] for number in _near(route, indexes)):
            if requires_more(other, route) and _exposes(route, other):
                log.warning(
                    "%s: %s is open to all and covers %s, which is protected (%s): only the path, the"
                    " host or a header keeps them apart, and clients write these; give both the same"
                    " authorization, or each an upstream of its own",
                    *(route.place, shown_path(route), shown_path(other), other.place),
                    extra=event("route.exposed", route=route.name, protected=other.name),
                )


def _protected_by_upstream(routes: Sequence[Route]) -> dict[str, TemplateIndex]:
    """Return the routes that require anything, by upstream, by their paths and by their targets.

    Thousands of routes of OpenAPI documents are too many to compare each with each.
    """
    indexes: dict[str, TemplateIndex] = {}
    for number, route in enumerate(routes):
        clients = route.clients
        if route.auth != "none" or route.scopes or route.groups or clients.allow or clients.deny:
            for upstream in set(route.upstreams):
                index = indexes.setdefault(upstream, TemplateIndex())
                for template in {route.path, route.target}:
                    index.add(_segments(template), number)
    return indexes


def _near(route: Route, indexes: Mapping[str, TemplateIndex]) -> list[int]:
    """Return the numbers of the protected routes that may have paths in common with a route."""
    numbers: set[int] = set()
    for index in (indexes[upstream] for upstream in route.upstreams if upstream in indexes):
        for template in {route.path, route.target}:
            numbers.update(index.overlapping(_segments(template)))
    return sorted(numbers)


def shown_path(route: Route) -> str:
    """Return the path of a route with its hosts, as lines for operators show it."""
    return f"{'|'.join(route.conditions.hosts)}{route.path}"


def _raw_over_stricter(plugins: Sequence[PlacedRoute]) -> Iterator[ConfigError]:
    """Yield an error for a route with `raw_path` through which a stricter one could be avoided."""
    for plugin in (plugin for plugin in plugins if plugin.route.raw_path):
        for other in (other.route for other in plugins):
            if is_stricter(other, plugin.route) and _covers(plugin.route, other):
                yield plugin.document.error(
                    f"with `raw_path: true` requests could avoid what {shown_path(other)} asks for"
                    f" ({other.place}): remove it, or give that route a path outside of this one",
                    *("target", "raw_path"),
                )


def _exposes(route: Route, other: Route) -> bool:
    """Tell whether `route` serves what `other` does, by being more general or for other requests.

    Host and headers are the client's choice: of routes that they set apart the targets are compared.
    """
    if _share_requests(route, other):
        general, specific = _segments(route.path), _segments(other.path)
    else:
        general, specific = _segments(route.target), _segments(other.target)
    if not overlap(general, specific):
        return False
    same = [kind for kind, _ in general] == [kind for kind, _ in specific]
    return _more_general(general, specific) or (same and bool(_common_methods(route, other)))


def _covers(route: Route, other: Route) -> bool:
    """Tell whether paths of `other` match `route` too, which is the more general one.

    Routes for different hosts do not cover each other, and neither do those that exclude each other.
    """
    if not _share_requests(route, other):
        return False
    general, specific = _segments(route.path), _segments(other.path)
    return overlap(general, specific) and _more_general(general, specific)


@functools.lru_cache(maxsize=4096)
def _segments(path: str) -> Segments:
    return RouteTemplate.parse(path).segments


def _share_requests(route: Route, other: Route) -> bool:
    """Tell whether hosts and `when` of both can be those of one request."""
    conditions, others = route.conditions, other.conditions
    return can_share_host(conditions, others) and not exclude_each_other(conditions, others)


def _clashes(plugins: Sequence[PlacedRoute]) -> Iterator[ConfigError]:
    """Yield an error for two routes that match the same requests, and neither goes first."""
    by_shape: dict[object, list[PlacedRoute]] = {}
    for plugin in plugins:
        by_shape.setdefault(RouteTemplate.parse(plugin.route.path).shape, []).append(plugin)
    for same_shape in by_shape.values():
        for at, plugin in enumerate(same_shape):
            for earlier in same_shape[:at]:
                methods = _common_methods(plugin.route, earlier.route)
                if methods and _are_equal(plugin.route.conditions, earlier.route.conditions):
                    yield plugin.document.error(
                        f"this and the path at {earlier.route.place} both serve {methods}: change one,"
                        " or set them apart by `hosts` or `when`",
                        *("proxy", "path"),
                    )


def _are_equal(conditions: RequestConditions, others: RequestConditions) -> bool:
    """Tell whether requests can meet both conditions, and neither goes first."""
    if not have_same_host(conditions, others) or exclude_each_other(conditions, others):
        return False
    return not has_narrower(conditions, others)


def _nameless(plugins: Sequence[PlacedRoute]) -> Iterator[ConfigError]:
    """Yield an error for routes without `name` whose methods and paths are the same."""
    first: dict[str, PlacedRoute] = {}
    for plugin in plugins:
        earlier = first.setdefault(plugin.route.name, plugin)
        equal = _are_equal(plugin.route.conditions, earlier.route.conditions)
        if not equal and "name" not in plugin.document.data:
            message = f"there is another route for {plugin.route.name} at {earlier.route.place}"
            yield plugin.document.error(f"{message}: give this one a `name`", "proxy", "path")


def _common_methods(route: Route, other: Route) -> str:
    if not route.operations and not other.operations:
        return "every method"
    methods = set(route.methods or other.methods)
    return ", ".join(sorted(name for name in methods if route.allows(name) and other.allows(name)))


def _on_uploads(plugins: Sequence[PlacedRoute], upload: str) -> Iterator[ConfigError]:
    """Yield an error for a route that overlaps the upload path and is not more general than that."""
    upload_segments = UploadPathTemplate.parse(upload).segments
    for plugin in plugins:
        segments = RouteTemplate.parse(plugin.route.path).segments
        if overlap(segments, upload_segments) and not _more_general(segments, upload_segments):
            yield plugin.document.error(
                f"this path overlaps the upload path {upload} (--file-upload-api-path): change one",
                *("proxy", "path"),
            )


def _more_general(segments: Segments, others: Segments) -> bool:
    """Tell whether `others` is the more specific path, by the rule of the table."""
    for segment, other in zip(segments, others, strict=False):
        if segment.kind != other.kind:
            return segment.kind > other.kind
    return False
