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
from gateway.endpoints.routing.loading.contradictions import contradictions, shown_path, warn_of_exposed
from gateway.endpoints.routing.loading.openapi_plugin import OpenApiPlugin, make_openapi, openapi_name
from gateway.endpoints.routing.loading.route_builder import REQUEST, RESPONSE, RouteBuilder
from gateway.endpoints.routing.model import Route
from gateway.endpoints.routing.scripts.compiler import script_warnings
from gateway.endpoints.routing.table import RouteTable
from gateway.errors import ConfigError
from gateway.plugins import Document, Kind, ParsedPlugin, Plugin, PluginErrors, validate
from gateway.plugins.legacy_keys import ROUTE_KEYS, translate
from gateway.plugins.openapi_models import OpenApiPluginModel
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
        yield from script_warnings(self.document, self.codes)

    def route_of(self, test: RouteTestModel) -> Route:
        """Return the route of a test."""
        return self.route

    @property
    def placed(self) -> tuple[RoutePlugin, ...]:
        """The routes, each with its document."""
        return (self,)


AnyRoutePlugin = RoutePlugin | OpenApiPlugin
"""What makes routes of a document."""


def routing_kind(upload_template: str, *, issuer: bool = True) -> Kind:
    """Return the kind of plugin that routes are; none of them may take the uploads' path.

    `issuer` tells whether an issuer of JSON Web Tokens is configured.
    """

    def combine(plugins: Sequence[Plugin]) -> RouteTable:
        kinds = [plugin for plugin in plugins if isinstance(plugin, AnyRoutePlugin)]
        routes = [placed for plugin in kinds for placed in plugin.placed]
        errors = [*_doubled_names(kinds), *contradictions(routes, upload_template)]
        if errors:
            raise PluginErrors(errors)
        warn_of_exposed(routes)
        return RouteTable(placed.route for placed in routes)

    keys = frozenset({"openapi", "proxy", "upstreams", "authorities", "target", "redirect"})
    make = partial(_make, issuer=issuer)
    return Kind(KIND, keys, _parse, make, combine, (REQUEST, RESPONSE))


def _doubled_names(plugins: Sequence[AnyRoutePlugin]) -> Iterator[ConfigError]:
    """Yield an error for OpenAPI documents of one name: their routes need names of their own."""
    first: dict[str, OpenApiPlugin] = {}
    for plugin in plugins:
        if isinstance(plugin, OpenApiPlugin):
            earlier = first.setdefault(plugin.route.name, plugin)
            if earlier is not plugin:
                message = (
                    f"there is another OpenAPI document {plugin.route.name} at {earlier.route.place}"
                )
                yield plugin.document.error(f"{message}: give this one a `name`", "openapi", "file")


def _parse(document: Document) -> ParsedPlugin:
    document = translate(document, ROUTE_KEYS)
    if "openapi" in document.data:
        described = validate(document, OpenApiPluginModel)
        return ParsedPlugin(KIND, openapi_name(described), document, described)
    model = validate(document, RouteModel)
    methods, hosts = " ".join(sorted({spec.method for spec in model.spec})), "|".join(model.hosts)
    name = model.name or f"{methods} {hosts}{model.proxy.path}".strip()
    return ParsedPlugin(KIND, name, document, model)


def _make(parsed: ParsedPlugin, context: PluginContext, *, issuer: bool) -> AnyRoutePlugin:
    """Make the routes of a document. Raises `PluginErrors` with all that is wrong."""
    if isinstance(parsed.model, OpenApiPluginModel):
        return make_openapi(parsed, context, issuer=issuer)
    model = parsed.model_as(RouteModel)
    builder = RouteBuilder(parsed.name, parsed.document, model, context, issuer)
    route = builder.route()
    if builder.errors or route is None:
        raise PluginErrors(builder.errors)
    return RoutePlugin(route, model, parsed.document, builder.codes)
