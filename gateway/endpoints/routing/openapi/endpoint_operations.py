"""The operations of the gateway's own endpoints."""

from __future__ import annotations

from typing import Any, Final

from gateway.domain.api_routes import Access, ApiRoute
from gateway.endpoints.routing.openapi.components import ERROR, Security
from gateway.endpoints.routing.openapi.endpoint_schemas import (
    API_BODIES,
    API_PARAMETERS,
    API_SCHEMAS,
)
from gateway.settings import Settings

TAG: Final = "Gateway"

_OPEN: Final = frozenset({Access.PUBLIC, Access.OWNER})


def endpoint_operation(api: ApiRoute, default: Security, settings: Settings) -> dict[str, Any]:
    """Return the operation of a row of `API_ROUTES`. `default` is what `--auth` needs."""
    key, success = (api.method, api.pattern), {"description": "OK"}
    content = {}
    if key in API_SCHEMAS:
        schema = {"$ref": f"#/components/schemas/{API_SCHEMAS[key]}"}
        content = {"content": {"application/json": {"schema": schema}}}
    parameters = {"parameters": API_PARAMETERS[key]} if key in API_PARAMETERS else {}
    body = {}
    if key in API_BODIES:
        body = {"requestBody": {"required": True, "content": API_BODIES[key]}}
    internal = {"x-gateway-internal": True} if _is_internal(api) else {}
    return {
        "summary": api.summary,
        "tags": [TAG],
        **internal,
        "security": _security(api, default, settings),
        **parameters,
        **body,
        "responses": {"200": {**success, **content}, "default": ERROR},
    }


def _is_internal(api: ApiRoute) -> bool:
    """Tell whether gateways of the installation, or processes of this one, call among themselves."""
    removes_object = api.access is Access.SIGNED_OR_PEER and api.method == "DELETE"
    return api.access is Access.OWNER or removes_object


def _security(api: ApiRoute, default: Security, settings: Settings) -> Security:
    """Return what an endpoint needs. No requirement is an alternative of its own: `{}`."""
    if api.access in _OPEN:
        return []
    if api.access is Access.CALLER:
        return default and [*default, {}]
    if api.access is Access.LINK:
        return [{"bearer": []}, {"signed": []}]
    if api.access is not Access.SIGNED_OR_PEER:
        return default
    signed: Security = [{"signed": []}]
    return [*signed, *(default or [{}])] if api.method == "GET" and settings.downloads else signed
