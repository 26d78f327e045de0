"""Makes the document of the operations that a caller sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway import __version__
from gateway.domain.path_template import RouteTemplate
from gateway.domain.template_segments import fill_variables
from gateway.endpoints.routing.model import Route
from gateway.endpoints.routing.openapi.audience import VisibleOperations
from gateway.endpoints.routing.openapi.components import (
    SCHEMAS,
    TOKEN_SECURITY,
    Security,
    components,
)
from gateway.endpoints.routing.openapi.endpoint_operations import endpoint_operation
from gateway.endpoints.routing.openapi.files import add_file_operations
from gateway.endpoints.routing.openapi.operations import RouteOperations
from gateway.endpoints.routing.openapi.parameters import path_parameters, rest_names
from gateway.endpoints.routing.openapi.shared_schemas import SharedSchemas
from gateway.endpoints.routing.rules import ANY_REQUEST
from gateway.settings import Settings

Paths = dict[str, dict[str, Any]]

_DEFAULT_SECURITY: Final[Mapping[str, Security]] = {
    "none": [],
    "token": TOKEN_SECURITY,
    "jwt": [{"jwt": []}, *TOKEN_SECURITY],
}
"""What `--auth` needs."""


def document(visible: VisibleOperations, settings: Settings) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of these operations."""
    default = _DEFAULT_SECURITY[settings.auth]
    paths: Paths = {}
    shared = SharedSchemas(SCHEMAS)
    _add_routes(paths, visible, RouteOperations(settings, default, shared))
    add_file_operations(paths, visible.file_methods, settings, default)
    for api in visible.endpoints:
        item = paths.setdefault(api.pattern, path_parameters(api.pattern, {"filepath"}))
        item[api.method.lower()] = endpoint_operation(api, default, settings)
    openapi: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Upload Gateway",
            "version": __version__,
            "description": "What this gateway serves, as far as the caller may call it",
        },
        "paths": paths,
        "components": components(settings, shared.components),
    }
    if settings.public_url:
        openapi["servers"] = [{"url": settings.public_url}]
    return openapi


def _add_routes(paths: Paths, visible: VisibleOperations, operations: RouteOperations) -> None:
    """Add the routes: those that serve every request of their path and method precede the others."""
    path_of_shape: dict[object, str] = {}
    for route, methods in sorted(visible.routes, key=lambda pair: pair[0].conditions != ANY_REQUEST):
        # Paths that differ in the names of their variables only are the same to OpenAPI.
        template = RouteTemplate.parse(route.path)
        plain = fill_variables(route.path, "{{{}}}".format)
        path = path_of_shape.setdefault(template.shape, plain)
        item = paths.setdefault(path, path_parameters(path, rest_names(template)))
        for method in methods:
            _add(item, method.lower(), route, operations.describe(route, method, path))


def _add(item: dict[str, Any], method: str, route: Route, operation: dict[str, Any]) -> None:
    """Add an operation. OpenAPI has one for a path and method: others become its alternatives."""
    first = item.setdefault(method, operation)
    if first is not operation:
        operation["operationId"] += f" of {route.name}"
        first.setdefault("x-gateway-alternatives", []).append(operation)
