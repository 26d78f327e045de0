"""The OpenAPI document of what this gateway serves, routes and its own surface.

One rule: it is made from what is in force, so it cannot be out of date. Pure. Source: OpenAPI
specification 3.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from gateway import __version__
from gateway.domain.api_routes import API_ROUTES, Access
from gateway.domain.path_template import RouteTemplate, fill_variables, variable_names
from gateway.endpoints.routing.model import Operation, Route
from gateway.settings import Settings

ANY_METHOD: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
"""What is written down for a route that takes every method."""

_NOT_PARAMETERS: Final = frozenset({"accept", "content-type", "authorization"})
"""Header parameters of these names are ignored (specification, Parameter Object)."""

_ERROR: Final = {"$ref": "#/components/responses/Error"}
_COMPONENTS: Final[Mapping[str, Any]] = {
    "schemas": {
        "Error": {
            "type": "object",
            "required": ["error", "message"],
            "properties": {
                "error": {"type": "string", "description": "A code"},
                "message": {"type": "string"},
                "upload_id": {"type": "string"},
                "faults": {"type": "array", "items": {"$ref": "#/components/schemas/Fault"}},
            },
        },
        "Fault": {
            "type": "object",
            "required": ["in", "pointer", "rule", "message"],
            "properties": {
                "in": {"enum": ["body", "headers"]},
                "pointer": {"type": "string", "description": "JSON pointer (RFC 6901)"},
                "rule": {"type": "string", "description": "Keyword of JSON Schema"},
                "message": {"type": "string"},
            },
        },
        "Stored": {
            "type": "object",
            "required": ["upload_id", "path", "bytes", "mime"],
            "properties": {
                "upload_id": {"type": "string"},
                "path": {"type": "string"},
                "bytes": {"type": "integer"},
                "mime": {"type": "string"},
                "digest": {"type": "object"},
            },
        },
    },
    "responses": {
        "Error": {
            "description": "Refused or failed",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
    },
    "securitySchemes": {
        "bearer": {"type": "http", "scheme": "bearer"},
        "jwt": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
        "signed": {"type": "apiKey", "in": "query", "name": "X-Gateway-Signature"},
    },
}
_JWT: Final[list[dict[str, Any]]] = [{"jwt": []}]
_TOKEN: Final[list[dict[str, Any]]] = [{"bearer": []}, {"token": []}]
_SECURITY: Final[Mapping[Access, list[dict[str, Any]]]] = {
    Access.PUBLIC: [],
    Access.SIGNED_OR_PEER: [{"signed": []}],
}


def document(routes: Iterable[Route], settings: Settings) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of `routes` and of the gateway's own pages."""
    default = {"none": [], "token": _TOKEN, "jwt": [*_JWT, *_TOKEN]}[settings.auth]
    found: dict[str, dict[str, Any]] = {}
    for api in API_ROUTES:
        item = found.setdefault(api.pattern, _parameters(api.pattern))
        item[api.method.lower()] = _page(api.summary, _SECURITY.get(api.access, default))
    upload = settings.file_upload_api_path
    found[upload] = {**_parameters(upload), "put": _upload(default)}
    _add_routes(found, routes, default)
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "Upload Gateway", "version": __version__},
        "paths": found,
        "components": _COMPONENTS,
    }
    if settings.public_url:
        made["servers"] = [{"url": settings.public_url}]
    return made


def _add_routes(
    found: dict[str, dict[str, Any]], routes: Iterable[Route], default: list[dict[str, Any]]
) -> None:
    spelled: dict[object, str] = {}
    for route in routes:
        # Paths that differ in the names of their variables only are the same to OpenAPI.
        shown = fill_variables(route.path, "{{{}}}".format)
        path = spelled.setdefault(RouteTemplate.parse(route.path).shape, shown)
        item = found.setdefault(path, _parameters(path))
        jwt = [{"jwt": list(route.scopes)}]  # specification 3.1, Security Requirement Object: roles
        security = {"default": default, "none": [], "token": _TOKEN, "jwt": jwt}[route.auth]
        for method in route.operations or ANY_METHOD:
            item[method.lower()] = _operation(route, method, security)


def _operation(route: Route, method: str, security: list[dict[str, Any]]) -> dict[str, Any]:
    said = route.operations.get(method) or Operation(method, "")
    made: dict[str, Any] = {
        "operationId": f"{method.lower()} {route.path}",
        "summary": said.usage or route.name,
        "security": security,
        "responses": _responses(said),
    }
    if said.headers_schema and (headers := _headers(said.headers_schema)):
        made["parameters"] = headers
    if said.body_schema is not None:
        schema = _own_base(said.body_schema, made["operationId"])
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return made


def _responses(operation: Operation) -> dict[str, Any]:
    codes = sorted(operation.normal_codes) or [200]
    known = set(HTTPStatus)
    said = {str(code): {"description": HTTPStatus(code).phrase if code in known else str(code)}
            for code in codes}  # fmt: skip
    return {**said, "default": _ERROR}


def _headers(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    needed = {str(name).lower() for name in schema.get("required", ())}
    properties = schema.get("properties", {})
    return [
        {
            "name": name,
            "in": "header",
            # A header with a default is filled in where it is missing.
            "required": name.lower() in needed and "default" not in _as_mapping(wanted),
            "schema": wanted,
        }
        for name, wanted in properties.items()
        if name.lower() not in _NOT_PARAMETERS
    ]


def _as_mapping(schema: Any) -> Mapping[str, Any]:
    return schema if isinstance(schema, Mapping) else {}


def _own_base(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Let references inside a schema lead into that schema, not into the whole document."""
    if "$id" in schema or not _refers(schema):
        return schema
    return {"$id": f"urn:upload-gateway:{re.sub(r'[^A-Za-z0-9]+', '-', name)}", **schema}


def _refers(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "$ref" in value or any(map(_refers, value.values()))
    return isinstance(value, list) and any(map(_refers, value))


def _parameters(path: str) -> dict[str, Any]:
    names = variable_names(path)
    if not names:
        return {}
    return {
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    }


def _page(summary: str, security: list[dict[str, Any]]) -> dict[str, Any]:
    responses = {"200": {"description": "OK"}, "default": _ERROR}
    return {"summary": summary, "security": security, "responses": responses}


def _upload(security: list[dict[str, Any]]) -> dict[str, Any]:
    stored = {"application/json": {"schema": {"$ref": "#/components/schemas/Stored"}}}
    return {
        "summary": "Upload a file",
        "security": security,
        "requestBody": {"required": True, "content": {"*/*": {"schema": {}}}},
        "responses": {
            "201": {"description": "Stored, new", "content": stored},
            "200": {"description": "Stored, replaced", "content": stored},
            "default": _ERROR,
        },
    }
