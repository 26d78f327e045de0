"""Makes a `Route` of the keys of a document, and collects all that is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Final, TypeVar

from gateway.domain.path_template import RouteTemplate
from gateway.domain.template_segments import LITERAL, variable_names
from gateway.endpoints.routing.loading.operation_builder import Fail, build_operation
from gateway.endpoints.routing.loading.rule_keys import (
    REQUEST_RULES,
    RESPONSE_RULES,
    client_networks,
    header_rules,
    redirect_rule,
    redirected_operations,
    request_conditions,
)
from gateway.endpoints.routing.loading.upstream_keys import (
    active_health,
    passive_health,
    upstream_names,
    upstream_scheme,
    upstream_tls,
)
from gateway.endpoints.routing.model import Limits, Operation, Rate, Route, RouteScript
from gateway.endpoints.routing.scripts.compiler import compile_script, make_script
from gateway.errors import ConfigError
from gateway.http.cors import CorsPolicy
from gateway.plugins import Document
from gateway.plugins.route_models import RouteModel
from gateway.plugins.scripting.namespace import PluginContext, ScriptContext

REQUEST: Final = "request_script"
RESPONSE: Final = "response_script"
ARGUMENTS: Final = {REQUEST: "request", RESPONSE: "request, response"}
"""The names that each script has beside those of all scripts."""

NO_ISSUER: Final = (
    "the route authorizes by JSON Web Token, but no issuer is set: add --jwt-issuer URL --jwt-audience"
    " NAME"
)

_ORIGIN: Final = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/?#\s]+")
Result = TypeVar("Result")


@dataclass(slots=True)
class RouteBuilder:
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
            operations[spec.method] = build_operation(spec, model.proxy.path, self._errors_of(at))
        self._check_paths()
        self._check_websocket(operations)
        auth = model.proxy.authorization.auth
        if auth == "jwt" and not self.issuer:
            self._error(NO_ISSUER, "proxy", "authorization", "auth")
        target = model.target
        return Route(
            name=self.name,
            place=f"{document.file}:{document.line('proxy', 'path')}",
            path=model.proxy.path,
            target=(target and target.path) or model.proxy.path,
            upstreams=upstream_names(model, self._error),
            scheme=upstream_scheme(model),
            auth=auth,
            operations=operations or redirected_operations(model),
            request_script=self._script(REQUEST, model.request_script),
            response_script=self._script(RESPONSE, model.response_script),
            cors=self._cors(),
            rate=Rate(**dict(model.rate_limit)) if model.rate_limit else None,
            limits=Limits(**dict(model.limits)),
            scopes=tuple(model.proxy.authorization.scopes),
            groups=tuple(model.proxy.authorization.groups),
            raw_path=target is not None and target.raw_path,
            weights=tuple(upstream.weight for upstream in model.upstreams),
            passive=passive_health(model),
            health=active_health(model, self._error),
            upstream_tls=upstream_tls(model, Path(document.folder), self._error),
            conditions=request_conditions(model, self._error),
            clients=client_networks(model),
            request_headers=header_rules(model, REQUEST_RULES, self._error),
            response_headers=header_rules(model, RESPONSE_RULES, self._error),
            redirect=redirect_rule(model, self._error),
            websocket=model.websocket,
        )

    def _error(self, message: str, *where: object) -> None:
        self.errors.append(self.document.error(message, *where))

    def _errors_of(self, at: int) -> Fail:
        """Return what notes the errors of an item of `spec`."""
        return lambda message, *where: self._error(message, "spec", at, *where)

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

    def _check_websocket(self, operations: Mapping[str, Operation]) -> None:
        """A handshake is a GET that an upstream answers (RFC 6455 section 4.1)."""
        if self.model.websocket and not (self.model.upstreams or self.model.redirect):
            self._error("WebSocket connections need an upstream: add one", "websocket")
        if self.model.websocket and operations and "GET" not in operations:
            self._error("WebSocket handshakes are GET requests: add `method: GET`", "websocket")

    def _template(self, key: str, text: str) -> RouteTemplate | None:
        try:
            return RouteTemplate.parse(text)
        except ValueError as error:
            self._error(f"`{key}.path` {error}", key, "path")
        return None

    def _script(self, key: str, text: str | None) -> RouteScript | None:
        if text is None:
            return None
        code = self._try(lambda: compile_script(self.document, key, ARGUMENTS[key]))
        if code is None:
            return None
        self.codes[key] = code
        script_context = ScriptContext(self.name, self.document.folder, self.context)
        return self._try(lambda: make_script(code, script_context, self.document, key))

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
