"""The operations of routes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.endpoints.routing.model import Operation, Route
from gateway.endpoints.routing.openapi.components import TOKEN_SECURITY, Security
from gateway.endpoints.routing.openapi.parameters import route_parameters
from gateway.endpoints.routing.openapi.responses import max_body_bytes, route_responses
from gateway.endpoints.routing.openapi.shared_schemas import SharedSchemas
from gateway.endpoints.routing.rules import RequestConditions
from gateway.settings import Settings

_BODY_METHODS: Final = frozenset({"PUT", "POST", "PATCH"})


@dataclass(frozen=True, slots=True)
class RouteOperations:
    """Describes operations of routes. `default` is what `--auth` needs, `shared` what they refer to."""

    settings: Settings
    default: Security
    shared: SharedSchemas

    def describe(self, route: Route, method: str, path: str) -> dict[str, Any]:
        """Return an operation of a route; `path` is its path in the document."""
        operation = route.operations.get(method) or Operation(method, "")
        security = _security(route, self.default)
        described: dict[str, Any] = {
            "operationId": f"{method.lower()} {path}",
            "summary": operation.usage or route.name,
            **({"description": operation.description} if operation.description else {}),
            **({"tags": list(operation.tags)} if operation.tags else {}),
            "security": security,
        }
        if parameters := route_parameters(route, operation, path, self.shared):
            described["parameters"] = parameters
        if (body := _body(route, operation, self.shared)) is not None:
            described["requestBody"] = body
        authorized = bool(security) and {} not in security
        described["responses"] = route_responses(route, operation, self.shared, authorized=authorized)
        hosts = _hosts(route.conditions, self.settings)
        return {**described, **hosts, **_extensions(route, operation)}


def _security(route: Route, default: Security) -> Security:
    if route.auth == "none":
        return []
    if route.auth == "token":
        return TOKEN_SECURITY
    needs_rights = bool(route.scopes or route.groups)
    if route.auth == "jwt" or (needs_rights and default):
        return [{"jwt": list(route.scopes)}]  # specification 3.1, Security Requirement Object: roles
    return default


def _body(route: Route, operation: Operation, shared: SharedSchemas) -> dict[str, Any] | None:
    others: dict[str, Any] = {media_type: {"schema": {}} for media_type in operation.other_types}
    if operation.body_schema is not None:
        schema = shared.whole(operation.body_schema, f"{route.name} body")
        content = {"application/json": {"schema": schema}, **others}
        return {"required": not operation.body_optional, "content": content}
    if others:
        return {"required": not operation.body_optional, "content": others}
    if operation.method not in _BODY_METHODS or route.redirect is not None:
        return None
    return {"content": {"*/*": {"schema": {}}}}


def _hosts(conditions: RequestConditions, settings: Settings) -> dict[str, Any]:
    """Return the servers of a route that has hosts of its own; ports are those of `--public-url`."""
    if not conditions.hosts:
        return {}
    public = urlsplit(settings.public_url or "")
    scheme = f"{public.scheme}:" if public.scheme else ""
    port = f":{public.port}" if public.port else ""
    servers = []
    for host in conditions.hosts:
        if host.startswith("*."):
            variable = {"name": {"default": "www", "description": "Any name below"}}
            server = {"url": f"{scheme}//{{name}}{host[1:]}{port}", "variables": variable}
        else:
            server = {"url": f"{scheme}//{host}{port}"}
        servers.append(server)
    return {"servers": servers, "x-gateway-hosts": list(conditions.hosts)}


def _extensions(route: Route, operation: Operation) -> dict[str, Any]:
    """Return what the specification has no words for; docs/how-to/api-docs.md describes it."""
    conditions, rate = route.conditions, route.rate
    when = {
        place: {
            name: list(value) if isinstance(value, tuple) else value for name, value in wanted.items()
        }
        for place, wanted in (("headers", conditions.headers), ("query", conditions.query))
        if wanted
    }
    bounds: Mapping[str, object | None] = {
        "requests": rate and {"count": rate.count, "seconds": rate.seconds, "by": rate.by},
        "in_flight": route.limits.in_flight,
        "body_bytes": max_body_bytes(route, operation),
        "seconds": route.limits.total,
    }
    limits = {name: value for name, value in bounds.items() if value is not None}
    extensions = {
        "x-gateway-when": when,
        "x-gateway-groups": list(route.groups),
        "x-gateway-limits": limits,
        "x-gateway-websocket": route.websocket and operation.method == "GET",
    }
    return {name: value for name, value in extensions.items() if value}
