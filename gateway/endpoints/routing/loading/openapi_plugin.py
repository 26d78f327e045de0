"""The routes of an OpenAPI document: one plugin, one route for each operation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import CodeType
from typing import Final
from urllib.parse import quote

import yaml
from pydantic import ValidationError

from gateway.auth.request import RequestHead
from gateway.endpoints.routing.loading.operation_builder import build_operation
from gateway.endpoints.routing.loading.route_builder import RouteBuilder
from gateway.endpoints.routing.model import Operation, Route
from gateway.endpoints.routing.rules import ANY_REQUEST
from gateway.endpoints.routing.scripts.compiler import script_warnings
from gateway.endpoints.routing.specification.operations import Expansion, SpecifiedOperation
from gateway.endpoints.routing.specification.places import Place
from gateway.endpoints.routing.specification.source import Source, read_source
from gateway.endpoints.routing.table import RouteTable
from gateway.errors import Refusal
from gateway.plugins import Document, ParsedPlugin, PluginErrors
from gateway.plugins.openapi_models import OpenApiPluginModel
from gateway.plugins.route_models import ProxyModel, RouteModel, RouteRules, RouteTestModel, TargetModel
from gateway.plugins.scripting.namespace import PluginContext
from gateway.plugins.spec_models import SpecModel

MAX_ROUTES: Final = 10_000
"""Operations of one document."""


@dataclass(frozen=True, slots=True)
class SpecifiedRoute:
    """A route of an OpenAPI document; `document` tells the lines of its operation there."""

    route: Route
    document: Document = field(repr=False)


@dataclass(frozen=True, slots=True)
class OpenApiPlugin:
    """An OpenAPI document in force. `route` has what its routes have in common."""

    route: Route
    placed: tuple[SpecifiedRoute, ...] = field(repr=False)
    version: str
    source: Path
    model: OpenApiPluginModel = field(repr=False)
    document: Document = field(repr=False)
    codes: dict[str, CodeType] = field(repr=False)
    unchecked: tuple[str, ...] = field(repr=False)

    @property
    def tests(self) -> tuple[RouteTestModel, ...]:
        """The tests that the plugin's document holds."""
        return tuple(self.model.tests)

    def route_of(self, test: RouteTestModel) -> Route:
        """Return the route of a test. Raises `ValueError` where it names the path of none."""
        if test.request.path is None:
            raise ValueError("its request needs the `path`: the document has many")
        try:
            table = RouteTable(replace(each.route, conditions=ANY_REQUEST) for each in self.placed)
            head = RequestHead(test.request.method, quote(test.request.path), {}, None)
            return table.find(head).route
        except Refusal as refusal:
            raise ValueError(f"the document has no such operation: {refusal}") from None

    def describe(self) -> str:
        """Return the line that is printed at start."""
        route, count = self.route, len(self.placed)
        backends = ", ".join(route.upstreams) or "scripts"
        routes = "1 route" if count == 1 else f"{count} routes"
        return (
            f"{route.name}: {routes} of {self.source} (OpenAPI {self.version}) -> {backends}"
            f" ({route.place}), authorization {route.auth}"
        )

    def warnings(self) -> Iterator[str]:
        """Yield what `gateway check` warns of."""
        yield from script_warnings(self.document, self.codes)
        yield from self.unchecked


def openapi_name(model: OpenApiPluginModel) -> str:
    """Return the name of a plugin: its own, or that of the file."""
    return model.name or Path(model.openapi.file).stem


def make_openapi(parsed: ParsedPlugin, context: PluginContext, *, issuer: bool) -> OpenApiPlugin:
    """Make the routes of a document. Raises `PluginErrors` with all that is wrong."""
    model, document = parsed.model_as(OpenApiPluginModel), parsed.document
    builder = RouteBuilder(parsed.name, _as_route(document), _route_model(model), context, issuer)
    common = builder.route()
    if builder.errors or common is None:
        raise PluginErrors(builder.errors)
    common = replace(common, place=f"{document.file}:{document.line('openapi')}")
    source = read_source(Path(os.path.normpath(os.path.join(document.folder, model.openapi.file))))
    expansion = Expansion(source, model.openapi.path, model.target.path, model.openapi.skip)
    routes = tuple(_routes(source, expansion, common))
    errors = sorted(source.errors, key=lambda error: error.line or 0)
    for at, name in enumerate(model.openapi.skip):
        if name in expansion.unused_skips:
            errors.append(document.error(f"{source.file} has no {name}", "openapi", "skip", at))
    if errors:
        raise PluginErrors(errors)
    unchecked = [*expansion.unchecked.lines()]
    if expansion.has_security and common.auth == "none":
        unchecked.append(
            f"{common.place}: the document asks for credentials (`security`), and the routes are open"
            " to all (`authorization.auth: none`): only the upstream checks them"
        )
    return OpenApiPlugin(
        common, routes, source.version, source.file, model, document, builder.codes, tuple(unchecked)
    )


def _as_route(document: Document) -> Document:
    """Return a document that has the keys of `openapi` at its top, where those of a route are."""
    node = document.node
    [inner] = [value for key, value in node.value if key.value == "openapi"]
    both = yaml.MappingNode(node.tag, [*node.value, *inner.value], node.start_mark, node.end_mark)
    return replace(document, node=both)


def _route_model(model: OpenApiPluginModel) -> RouteModel:
    """Return the keys of the plugin as those of one route, which has the path `/`."""
    rules = {name: getattr(model, name) for name in RouteRules.model_fields}
    return RouteModel.model_construct(
        {*(model.model_fields_set & rules.keys()), "upstreams", "proxy", "target"},
        **rules,
        upstreams=model.openapi.upstreams,
        proxy=ProxyModel(path="/", authorization=model.proxy.authorization),
        target=TargetModel(scheme=model.target.scheme),
    )


def _routes(source: Source, expansion: Expansion, common: Route) -> Iterator[SpecifiedRoute]:
    if not expansion.operations and not source.errors:
        source.note("the document has no operation", ("paths",))
    if len(expansion.operations) > MAX_ROUTES:
        source.note(f"the document has more than {MAX_ROUTES} operations", ("paths",))
        return
    for operations in expansion.by_route():
        first = operations[0]
        built = {each.method: compile_operation(source, each) for each in operations}
        yield SpecifiedRoute(
            replace(
                common,
                name=f"{common.name} {first.name}",
                place=f"{source.file}:{source.line(first.place)}",
                path=first.path,
                target=first.target,
                operations={method: each for method, each in built.items() if each is not None},
            ),
            _document(source, first),
        )


def compile_operation(source: Source, operation: SpecifiedOperation) -> Operation | None:
    """Return the operation with its schemas compiled; its faults are noted in the source."""

    def fail(message: str, *where: object) -> None:
        place: Place = tuple(step if isinstance(step, int) else str(step) for step in where)
        source.note(message, operation.origin(place))

    try:
        spec = SpecModel.model_validate(operation.spec)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False, include_context=False):
            fail(detail["msg"], *detail["loc"])
        return None
    return build_operation(spec, operation.path, fail)


def _document(source: Source, operation: SpecifiedOperation) -> Document:
    """Return a document that tells the line of an operation for all its keys."""
    mark = yaml.Mark(str(source.file), 0, source.line(operation.place) - 1, 0, "", 0)
    node = yaml.MappingNode("tag:yaml.org,2002:map", [], mark, mark)
    return Document(source.file, node, {"name": operation.name}, ())
