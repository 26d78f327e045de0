"""Makes a `Route` of a routing plugin's document.

Whatever is wrong with it is reported at load, with file and line: a route that exists can be served.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import CodeType
from typing import Final

from gateway.endpoints.routing.conditions import shown_when
from gateway.endpoints.routing.contradictions import contradictions, shown_path, warn_of_exposed
from gateway.endpoints.routing.model import Route
from gateway.endpoints.routing.route_builder import REQUEST, RESPONSE, RouteBuilder
from gateway.endpoints.routing.scripts.compiler import opens_paths
from gateway.endpoints.routing.table import RouteTable
from gateway.plugins import Document, Kind, ParsedPlugin, Plugin, PluginErrors, validate
from gateway.plugins.legacy_keys import ROUTE_KEYS, translate
from gateway.plugins.route_models import RouteModel, RouteTestModel
from gateway.plugins.scripting.namespace import PluginContext

KIND: Final = "routing"


@dataclass(frozen=True, slots=True)
class RoutePlugin:
    """A routing plugin in force: its route, and what its tests need."""

    route: Route
    model: RouteModel = field(repr=False)
    document: Document = field(repr=False)
    codes: dict[str, CodeType] = field(repr=False)

    @property
    def tests(self) -> tuple[RouteTestModel, ...]:
        """The tests that the document holds."""
        return tuple(self.model.tests)

    def describe(self) -> str:
        """Return the line that is printed at start."""
        route = self.route
        methods = " ".join(route.methods) or "any method"
        served = shown_path(route) + shown_when(route.conditions)
        backends = ", ".join(route.upstreams) or "scripts"
        if route.redirect is not None:
            backends = f"{route.redirect.status} {route.redirect.url}"
        return f"{methods} {served} -> {backends} ({route.place}), authorization {route.auth}"

    def warnings(self) -> Iterator[str]:
        """Yield what `gateway check` warns of."""
        for key, code in self.codes.items():
            if opens_paths(code):
                yield (
                    f"{self.document.file}:{self.document.line(key)}: this script opens or removes files"
                    " and does not use `files`: a path from the request may lead anywhere"
                )


def routing_kind(upload_template: str, *, issuer: bool = True) -> Kind:
    """Return the kind of plugin that routes are; none of them may take the uploads' path.

    `issuer` tells whether an issuer of JSON Web Tokens is configured.
    """

    def combine(plugins: Sequence[Plugin]) -> RouteTable:
        routes = [plugin for plugin in plugins if isinstance(plugin, RoutePlugin)]
        errors = list(contradictions(routes, upload_template))
        if errors:
            raise PluginErrors(errors)
        warn_of_exposed(routes)
        return RouteTable(plugin.route for plugin in routes)

    keys = frozenset({"proxy", "upstreams", "authorities", "target", "redirect"})
    make = partial(_make, issuer=issuer)
    return Kind(KIND, keys, _parse, make, combine, (REQUEST, RESPONSE))


def _parse(document: Document) -> ParsedPlugin:
    document = translate(document, ROUTE_KEYS)
    model = validate(document, RouteModel)
    methods, hosts = " ".join(sorted({spec.method for spec in model.spec})), "|".join(model.hosts)
    name = model.name or f"{methods} {hosts}{model.proxy.path}".strip()
    return ParsedPlugin(KIND, name, document, model)


def _make(parsed: ParsedPlugin, context: PluginContext, *, issuer: bool) -> RoutePlugin:
    """Make the route of a document. Raises `PluginErrors` with all that is wrong."""
    model = parsed.model_as(RouteModel)
    builder = RouteBuilder(parsed.name, parsed.document, model, context, issuer)
    route = builder.route()
    if builder.errors or route is None:
        raise PluginErrors(builder.errors)
    return RoutePlugin(route, model, parsed.document, builder.codes)
