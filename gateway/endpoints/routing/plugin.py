"""Makes a `Route` of a routing plugin's document.

Whatever is wrong with it is reported at load, with file and line: a route that exists can be served.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import CodeType
from typing import Any, Final, TypeVar

from gateway.domain.path_template import RouteTemplate
from gateway.domain.template_segments import LITERAL, variable_names
from gateway.endpoints.routing.contradictions import contradictions, warn_of_exposed
from gateway.endpoints.routing.model import Limits, Operation, Rate, Route, RouteScript
from gateway.endpoints.routing.schemas import (
    BadSchemaError,
    compile_headers,
    compile_schema,
    header_defaults,
)
from gateway.endpoints.routing.scripts.compiler import compile_script, make_script, opens_paths
from gateway.endpoints.routing.table import RouteTable
from gateway.errors import ConfigError
from gateway.http.cors import CorsPolicy
from gateway.plugins import Document, Kind, ParsedPlugin, Plugin, PluginErrors, validate
from gateway.plugins.legacy_keys import NO_UPSTREAM, ROUTE_KEYS, translate
from gateway.plugins.route_models import RouteModel, RouteTestModel, SpecModel
from gateway.plugins.scripting.namespace import PluginContext, ScriptContext

KIND: Final = "routing"
REQUEST: Final = "request_script"
RESPONSE: Final = "response_script"
ARGUMENTS: Final = {REQUEST: "request", RESPONSE: "request, response"}
"""The names that each script has beside those of all scripts."""

NO_ISSUER: Final = (
    "the route authorizes by JSON Web Token, but no issuer is set: add --jwt-issuer URL --jwt-audience"
    " NAME"
)

_AUTHORITY: Final = re.compile(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")
_ORIGIN: Final = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/?#\s]+")
Result = TypeVar("Result")


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
        backends = ", ".join(route.upstreams) or "scripts"
        return f"{methods} {route.path} -> {backends} ({route.place}), authorization {route.auth}"

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

    keys = frozenset({"proxy", "upstreams", "authorities", "target"})
    make = partial(_make, issuer=issuer)
    return Kind(KIND, keys, _parse, make, combine, (REQUEST, RESPONSE))


def _parse(document: Document) -> ParsedPlugin:
    document = translate(document, ROUTE_KEYS)
    model = validate(document, RouteModel)
    methods = " ".join(sorted({spec.method for spec in model.spec}))
    name = model.name or f"{methods} {model.proxy.path}".strip()
    return ParsedPlugin(KIND, name, document, model)


def _make(parsed: ParsedPlugin, context: PluginContext, *, issuer: bool) -> RoutePlugin:
    """Make the route of a document. Raises `PluginErrors` with all that is wrong."""
    model = parsed.model_as(RouteModel)
    builder = _RouteBuilder(parsed.name, parsed.document, model, context, issuer)
    route = builder.route()
    if builder.errors or route is None:
        raise PluginErrors(builder.errors)
    return RoutePlugin(route, model, parsed.document, builder.codes)


@dataclass(slots=True)
class _RouteBuilder:
    """Makes one route and collects the errors of its document."""

    name: str
    document: Document
    model: RouteModel
    context: PluginContext
    issuer: bool
    errors: list[ConfigError] = field(default_factory=list)
    codes: dict[str, CodeType] = field(default_factory=dict)

    def route(self) -> Route | None:
        """Return the route; it is not to be used if there are `errors`."""
        model, document = self.model, self.document
        operations: dict[str, Operation] = {}
        for at, spec in enumerate(model.spec):
            if spec.method in operations:
                self._error(f"{spec.method} is listed twice: remove one", "spec", at, "method")
            operations[spec.method] = self._operation(at, spec)
        self._check_paths()
        auth = model.proxy.authorization.auth
        if auth == "jwt" and not self.issuer:
            self._error(NO_ISSUER, "proxy", "authorization", "auth")
        target = model.target
        return Route(
            name=self.name,
            place=f"{document.file}:{document.line('proxy', 'path')}",
            path=model.proxy.path,
            target=(target and target.path) or model.proxy.path,
            upstreams=self._upstreams(),
            scheme="https" if target and target.scheme.startswith("https") else "http",
            auth=auth,
            operations=operations,
            request_script=self._script(REQUEST, model.request_script),
            response_script=self._script(RESPONSE, model.response_script),
            cors=self._cors(),
            rate=Rate(**dict(model.rate_limit)) if model.rate_limit else None,
            limits=Limits(**dict(model.limits)),
            scopes=tuple(model.proxy.authorization.scopes),
            groups=tuple(model.proxy.authorization.groups),
            raw_path=target is not None and target.raw_path,
        )

    def _error(self, message: str, *where: object) -> None:
        self.errors.append(self.document.error(message, *where))

    def _try(self, step: Callable[[], Result]) -> Result | None:
        try:
            return step()
        except ConfigError as error:
            self.errors.append(error)
        return None

    def _check_paths(self) -> None:
        path, target = self.model.proxy.path, self.model.target
        served = self._template("proxy", path)
        if served and served.segments[0] == (LITERAL, "-"):
            self._error("paths below /-/ belong to the gateway itself", "proxy", "path")
        if served and target and target.path and self._template("target", target.path):
            unknown = sorted(set(variable_names(target.path)) - set(variable_names(path)))
            if unknown:
                self._error(f"the served path has no variable {{{unknown[0]}}}", "target", "path")

    def _template(self, key: str, text: str) -> RouteTemplate | None:
        try:
            return RouteTemplate.parse(text)
        except ValueError as error:
            self._error(f"`{key}.path` {error}", key, "path")
        return None

    def _upstreams(self) -> tuple[str, ...]:
        upstreams = self.model.upstreams
        for at, upstream in enumerate(upstreams):
            if upstream == NO_UPSTREAM:
                self._error(f"{NO_UPSTREAM} is no upstream: write `upstreams: []`", "upstreams", at)
            elif _AUTHORITY.fullmatch(upstream) is None:
                self._error("an upstream is host or host:port, without a scheme", "upstreams", at)
        return tuple(upstreams)

    def _script(self, key: str, text: str | None) -> RouteScript | None:
        if text is None:
            return None
        code = self._try(lambda: compile_script(self.document, key, ARGUMENTS[key]))
        if code is None:
            return None
        self.codes[key] = code
        script_context = ScriptContext(self.name, self.document.folder, self.context)
        return self._try(lambda: make_script(code, script_context, self.document, key))

    def _operation(self, at: int, spec: SpecModel) -> Operation:
        request = spec.schemas.request
        place = ("spec", at, "schema", "request")
        return Operation(
            method=spec.method,
            usage=spec.usage,
            body_schema=request.body,
            headers_schema=request.headers,
            normal_codes=frozenset(spec.schemas.response.normal.codes),
            check_body=self._schema(compile_schema, request.body, *place, "body"),
            check_headers=self._schema(compile_headers, request.headers, *place, "headers"),
            defaults=header_defaults(request.headers or {}),
        )

    def _schema(self, compiler: Callable[[Any], Result], schema: Any, *place: object) -> Result | None:
        if schema is None:
            return None
        try:
            return compiler(schema)
        except BadSchemaError as error:
            self._error(str(error), *place, *error.where)
        return None

    def _cors(self) -> CorsPolicy | None:
        model = self.model.cors
        if model is None:
            return None
        for at, origin in enumerate(model.origins):
            if _ORIGIN.fullmatch(origin) is None:
                self._error('an origin is like https://app.example, or "*"', "cors", "origins", at)
        if model.credentials and "*" in model.origins:
            # Fetch standard, CORS protocol and credentials: browsers refuse the pair.
            self._error('with credentials, origins are named: "*" is not allowed', "cors", "credentials")
        return CorsPolicy(
            tuple(model.origins),
            tuple(model.methods),
            tuple(model.headers),
            tuple(model.expose),
            model.credentials,
            model.max_age,
        )
