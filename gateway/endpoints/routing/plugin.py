"""A routing plugin's document -> a `Route`, checked and compiled.

One rule: what is wrong with a route is said at load, with file and line; a route that exists can be
served.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import CodeType
from typing import Any, Final, TypeVar

from gateway.endpoints.routing import schemas
from gateway.endpoints.routing.model import Limits, Operation, Process, Rate, Route
from gateway.endpoints.routing.script_compiler import compile_process, make_process, takes_paths
from gateway.endpoints.routing.table import RouteTable
from gateway.endpoints.routing.template import LITERAL, REST, VARIABLE, RouteTemplate, meet
from gateway.errors import ConfigError
from gateway.http.cors import CorsPolicy
from gateway.plugins import Document, Kind, Parsed, PluginContext, PluginFaults, validate
from gateway.plugins.handlers import surroundings
from gateway.plugins.legacy_keys import NO_UPSTREAM, ROUTE_KEYS, translate
from gateway.plugins.route_models import RouteCaseModel, RouteModel, SpecModel

KIND: Final = "routing"
REQUEST: Final = "request_script"
RESPONSE: Final = "response_script"
ARGUMENTS: Final = {REQUEST: "request", RESPONSE: "request, response"}
"""The names that each script has beside those of all scripts."""

_AUTHORITY: Final = re.compile(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")
_ORIGIN: Final = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/?#\s]+")
_UPLOAD_REST: Final = "{filepath}"
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class RoutePlugin:
    """A routing plugin in force: its route, and what its tests need."""

    route: Route
    model: RouteModel = field(repr=False)
    document: Document = field(repr=False)
    codes: dict[str, CodeType] = field(repr=False)

    @property
    def tests(self) -> tuple[RouteCaseModel, ...]:
        """The tests that the document holds."""
        return tuple(self.model.tests)

    def describe(self) -> str:
        """Return the line that is printed at start."""
        route = self.route
        methods = " ".join(route.methods) or "any method"
        answers = ", ".join(route.upstreams) or "scripts"
        return f"{methods} {route.path} -> {answers} ({route.place}), authorization {route.auth}"

    def warnings(self) -> Iterator[str]:
        """Yield what `gateway check` should say though it is no fault."""
        for key, code in self.codes.items():
            if takes_paths(code):
                yield (
                    f"{self.document.file}:{self.document.line(key)}: this script opens or removes files"
                    " and does not use `files`: a path from the request may lead anywhere"
                )


def routing_kind(upload_template: str, *, issuer: bool = True) -> Kind:
    """Return the kind of plugin that routes are; none of them may take the uploads' path.

    `issuer` tells whether there is one whose JSON Web Tokens are believed.
    """

    def gather(plugins: Sequence[RoutePlugin]) -> RouteTable:
        faults = [*_clashes(plugins), *_on_uploads(plugins, upload_template)]
        if faults:
            raise PluginFaults(faults)
        return RouteTable(plugin.route for plugin in plugins)

    keys = frozenset({"proxy", "upstreams", "authorities", "target"})
    make = partial(_make, issuer=issuer)
    return Kind(KIND, keys, _parse, make, gather, (REQUEST, RESPONSE))


def _parse(document: Document) -> Parsed:
    document = translate(document, ROUTE_KEYS)
    model = validate(document, RouteModel)
    methods = " ".join(sorted({spec.method for spec in model.spec}))
    name = model.name or f"{methods} {model.proxy.path}".strip()
    return Parsed(KIND, name, document, model)


def _make(parsed: Parsed, material: PluginContext, *, issuer: bool) -> RoutePlugin:
    """Make the route of a document. Raises `PluginFaults` with all that is wrong."""
    model: RouteModel = parsed.value
    maker = _Maker(parsed, model, material, issuer)
    route = maker.route()
    if maker.faults or route is None:
        raise PluginFaults(maker.faults)
    return RoutePlugin(route, model, parsed.document, maker.codes)


class _Maker:
    """Makes one route and gathers the faults on the way."""

    def __init__(self, parsed: Parsed, model: RouteModel, material: PluginContext, issuer: bool) -> None:
        self.faults: list[ConfigError] = []
        self.codes: dict[str, CodeType] = {}
        self._name = parsed.name
        self._document = parsed.document
        self._model = model
        self._material = material
        self._issuer = issuer

    def route(self) -> Route | None:
        """Return the route; where `faults` is not empty it is not to be used."""
        model, document = self._model, self._document
        operations: dict[str, Operation] = {}
        for at, spec in enumerate(model.spec):
            if spec.method in operations:
                self._fault(f"{spec.method} stands here twice: remove one", "spec", at, "method")
            operations[spec.method] = self._operation(at, spec)
        self._check_paths()
        auth = model.proxy.authorization.auth
        if auth == "jwt" and not self._issuer:
            advice = "nobody's JSON Web Tokens are believed: name their issuer with --jwt-issuer URL"
            self._fault(advice, "proxy", "authorization", "auth")
        target = model.target
        return Route(
            name=self._name,
            place=f"{document.file}:{document.line('proxy', 'path')}",
            path=model.proxy.path,
            target=target.path if target else model.proxy.path,
            upstreams=self._upstreams(),
            scheme="https" if target and target.scheme.startswith("https") else "http",
            auth=auth,
            operations=operations,
            request_process=self._process(REQUEST, model.request_script),
            response_process=self._process(RESPONSE, model.response_script),
            cors=self._cors(),
            rate=_rate(model),
            limits=Limits(**dict(model.limits)),
            scopes=tuple(model.proxy.authorization.scopes),
            groups=tuple(model.proxy.authorization.groups),
        )

    def _fault(self, message: str, *where: object) -> None:
        self.faults.append(self._document.fault(message, *where))

    def _try(self, step: Callable[[], Result]) -> Result | None:
        try:
            return step()
        except ConfigError as fault:
            self.faults.append(fault)
        return None

    def _check_paths(self) -> None:
        served = self._template("proxy", self._model.proxy.path)
        called = self._model.target and self._template("target", self._model.target.path)
        if served and served.parts[0].text == "-" and served.parts[0].kind == LITERAL:
            self._fault("paths below /-/ belong to the gateway itself", "proxy", "path")
        unknown = sorted(called.names - served.names) if served and called else []
        if unknown:
            self._fault(f"the served path has no variable {{{unknown[0]}}}", "target", "path")

    def _template(self, key: str, text: str) -> RouteTemplate | None:
        try:
            return RouteTemplate.parse(text)
        except ValueError as fault:
            self._fault(f"`{key}.path` {fault}", key, "path")
        return None

    def _upstreams(self) -> tuple[str, ...]:
        upstreams = self._model.upstreams
        for at, upstream in enumerate(upstreams):
            if upstream == NO_UPSTREAM:
                self._fault(f"{NO_UPSTREAM} is no upstream: write `upstreams: []`", "upstreams", at)
            elif _AUTHORITY.fullmatch(upstream) is None:
                self._fault("an upstream is host or host:port, without a scheme", "upstreams", at)
        return tuple(upstreams)

    def _process(self, key: str, text: str | None) -> Process | None:
        if text is None:
            return None
        code = self._try(lambda: compile_process(self._document, key, ARGUMENTS[key]))
        if code is None:
            return None
        self.codes[key] = code
        material = self._material
        around = surroundings(
            self._document, self._name, material.configs, material.state, material.services
        )
        return self._try(lambda: make_process(code, around, self._document, key))

    def _operation(self, at: int, spec: SpecModel) -> Operation:
        request = spec.schemas.request
        place = ("spec", at, "schema", "request")
        return Operation(
            method=spec.method,
            usage=spec.usage,
            body_schema=request.body,
            headers_schema=request.headers,
            normal_codes=frozenset(spec.schemas.response.normal.codes),
            check_body=self._schema(schemas.compile_schema, request.body, *place, "body"),
            check_headers=self._schema(schemas.compile_headers, request.headers, *place, "headers"),
            defaults=schemas.defaults(request.headers or {}),
        )

    def _schema(self, compiler: Callable[[Any], Result], schema: Any, *place: object) -> Result | None:
        if schema is None:
            return None
        try:
            return compiler(schema)
        except schemas.BadSchemaError as fault:
            self._fault(str(fault), *place, *fault.where)
        return None

    def _cors(self) -> CorsPolicy | None:
        model = self._model.cors
        if model is None:
            return None
        for at, origin in enumerate(model.origins):
            if _ORIGIN.fullmatch(origin) is None:
                self._fault('an origin is like https://app.example, or "*"', "cors", "origins", at)
        if model.credentials and "*" in model.origins:
            # Fetch standard, CORS protocol and credentials: browsers refuse the pair.
            self._fault('with credentials, origins are named: "*" is not allowed', "cors", "credentials")
        return CorsPolicy(
            tuple(model.origins),
            tuple(model.methods),
            tuple(model.headers),
            tuple(model.expose),
            model.credentials,
            model.max_age,
        )


def _rate(model: RouteModel) -> Rate | None:
    rate = model.rate_limit
    return Rate(rate.count, rate.seconds, rate.by) if rate else None


def _clashes(plugins: Sequence[RoutePlugin]) -> Iterator[ConfigError]:
    """Two routes that could both answer, with nothing to choose between them."""
    by_shape: dict[object, list[RoutePlugin]] = {}
    for plugin in plugins:
        by_shape.setdefault(RouteTemplate.parse(plugin.route.path).shape, []).append(plugin)
    for several in by_shape.values():
        for at, plugin in enumerate(several):
            for earlier in several[:at]:
                if methods := _common(plugin.route, earlier.route):
                    yield plugin.document.fault(
                        f"this and the path at {earlier.route.place} both answer {methods}: change one",
                        *("proxy", "path"),
                    )


def _common(one: Route, other: Route) -> str:
    if not one.operations and not other.operations:
        return "every method"
    methods = set(one.methods or other.methods)
    return ", ".join(sorted(name for name in methods if one.takes(name) and other.takes(name)))


def _on_uploads(plugins: Sequence[RoutePlugin], upload: str) -> Iterator[ConfigError]:
    """Routes that would be hidden by the uploads' path, or hide it; a more general one may stand."""
    pattern = [_upload_part(segment) for segment in upload[1:].split("/")]
    for plugin in plugins:
        parts = RouteTemplate.parse(plugin.route.path).parts
        own = [part.text if part.kind == LITERAL else part.kind for part in parts]
        if meet(own, pattern) and not _yields(own, pattern):
            yield plugin.document.fault(
                f"this path meets the upload path {upload} (--file_upload_api_path): change one",
                *("proxy", "path"),
            )


def _upload_part(segment: str) -> int | str:
    if not segment.startswith("{"):
        return segment
    return REST if segment == _UPLOAD_REST else VARIABLE


def _yields(own: Sequence[int | str], pattern: Sequence[int | str]) -> bool:
    """Tell whether the upload path is the more specific one, by the rule of the table."""
    for mine, theirs in zip(own, pattern, strict=False):
        ranks = [one if isinstance(one, int) else LITERAL for one in (mine, theirs)]
        if ranks[0] != ranks[1]:
            return ranks[0] > ranks[1]
    return False
