"""The OpenAPI document of what this gateway serves: routes of plugins, uploads and its own API.

It is generated from the loaded routes, so it is never out of date. Source: OpenAPI specification 3.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from gateway import __version__
from gateway.domain.api_routes import API_ROUTES, Access, ApiRoute
from gateway.domain.path_template import RouteTemplate
from gateway.domain.template_segments import fill_variables, variable_names
from gateway.endpoints.routing.model import Operation, Route
from gateway.endpoints.routing.openapi_files import (
    API_PARAMETERS,
    API_SCHEMAS,
    ENTRY,
    FOLDER_PAGE,
    UPLOADS_PAGE,
    file_operations,
    folder_operation,
    folder_path,
)
from gateway.settings import Settings

ANY_METHOD: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
"""The methods of a route that allows all."""

_NOT_PARAMETERS: Final = frozenset({"accept", "content-type", "authorization"})
"""Header parameters of these names are ignored (specification, Parameter Object)."""

_OK: Final[Mapping[str, Any]] = {"description": "OK"}
_ERROR: Final = {"$ref": "#/components/responses/Error"}
_FILE: Final[Mapping[str, Any]] = {
    "upload_id": {"type": "string"},
    "path": {"type": "string"},
    "bytes": {"type": "integer"},
    "mime": {"type": "string"},
    "digest": {"type": "string"},
    "result": {"type": "object", "description": "What handlers left"},
}
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
                "in": {"enum": ["body", "headers", "query", "path"]},
                "pointer": {"type": "string", "description": "JSON pointer (RFC 6901)"},
                "rule": {"type": "string", "description": "Keyword of JSON Schema"},
                "message": {"type": "string"},
            },
        },
        "Entry": ENTRY,
        "FolderPage": FOLDER_PAGE,
        "UploadsPage": UPLOADS_PAGE,
        "Stored": {
            "type": "object",
            "required": ["upload_id", "path", "url", "bytes", "mime"],
            "properties": {**_FILE, "url": {"type": "string", "format": "uri"}},
        },
        "Held": {
            "type": "object",
            "required": ["upload_id", "state", "path", "bytes", "mime"],
            "properties": {**_FILE, "state": {"const": "held"}},
        },
        "StoredFiles": {
            "type": "object",
            "required": ["uploads"],
            "properties": {
                "uploads": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["status"],
                        "properties": {
                            "status": {"type": "integer"},
                            "filename": {"type": "string"},
                            "upload_id": {"type": "string"},
                            "state": {"const": "held"},
                            "path": {"type": "string"},
                            "result": {"type": "object"},
                            "url": {"type": "string", "format": "uri"},
                            "error": {"type": "string", "description": "A code"},
                        },
                    },
                },
                "unused_fields": {"type": "array", "items": {"type": "string"}},
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
    Access.OWNER: [],
}


def document(routes: Iterable[Route], settings: Settings) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of `routes` and of the gateway's own API."""
    default = {"none": [], "token": _TOKEN, "jwt": [*_JWT, *_TOKEN]}[settings.auth]
    paths: dict[str, dict[str, Any]] = {}
    for api in API_ROUTES:
        item = paths.setdefault(api.pattern, _parameters(api.pattern))
        item[api.method.lower()] = _page(api, _security(api, default, settings))
    upload = settings.file_upload_api_path
    paths[upload] = {
        **_parameters(upload),
        "put": _upload(default),
        "post": _form(default),
        **file_operations(settings, default),
    }
    if (folder := folder_path(settings)) is not None:
        paths[folder] = {**_parameters(folder), "get": folder_operation(default)}
    _add_routes(paths, routes, default)
    openapi: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "Upload Gateway", "version": __version__},
        "paths": paths,
        "components": _COMPONENTS,
    }
    if settings.public_url:
        openapi["servers"] = [{"url": settings.public_url}]
    return openapi


def _add_routes(
    paths: dict[str, dict[str, Any]], routes: Iterable[Route], default: list[dict[str, Any]]
) -> None:
    path_of_shape: dict[object, str] = {}
    for route in routes:
        # Paths that differ in the names of their variables only are the same to OpenAPI.
        plain = fill_variables(route.path, "{{{}}}".format)
        path = path_of_shape.setdefault(RouteTemplate.parse(route.path).shape, plain)
        item = paths.setdefault(path, _parameters(path))
        jwt = [{"jwt": list(route.scopes)}]  # specification 3.1, Security Requirement Object: roles
        security = {"default": default, "none": [], "token": _TOKEN, "jwt": jwt}[route.auth]
        for method in route.operations or ANY_METHOD:
            item[method.lower()] = _operation(route, method, security)


def _operation(route: Route, method: str, security: list[dict[str, Any]]) -> dict[str, Any]:
    operation = route.operations.get(method) or Operation(method, "")
    described: dict[str, Any] = {
        "operationId": f"{method.lower()} {route.path}",
        "summary": operation.usage or route.name,
        "security": security,
        "responses": _responses(operation),
    }
    if operation.headers_schema and (headers := _headers(operation.headers_schema)):
        described["parameters"] = headers
    if operation.body_schema is not None:
        schema = _own_base(operation.body_schema, described["operationId"])
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    return described


def _responses(operation: Operation) -> dict[str, Any]:
    codes = sorted(operation.normal_codes) or [200]
    phrases = {status.value: status.phrase for status in HTTPStatus}
    described = {str(code): {"description": phrases.get(code, str(code))} for code in codes}
    return {**described, "default": _ERROR}


def _headers(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    required = {str(name).lower() for name in schema.get("required", ())}
    properties = schema.get("properties", {})
    return [
        {
            "name": name,
            "in": "header",
            # A header with a default is filled in where it is missing.
            "required": name.lower() in required and not _has_default(value_schema),
            "schema": value_schema,
        }
        for name, value_schema in properties.items()
        if name.lower() not in _NOT_PARAMETERS
    ]


def _has_default(schema: Any) -> bool:
    return isinstance(schema, Mapping) and "default" in schema


def _own_base(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Give a schema a base of its own: its references lead into it, not into the whole document."""
    if "$id" in schema or not _refers(schema):
        return schema
    return {"$id": f"urn:upload-gateway:{re.sub(r'[^A-Za-z0-9]+', '-', name)}", **schema}


def _refers(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "$ref" in value or any(map(_refers, value.values()))
    return isinstance(value, list) and any(map(_refers, value))


def _parameters(path: str) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in variable_names(path)
    ]
    return {"parameters": parameters} if parameters else {}


def _security(api: ApiRoute, default: list[dict[str, Any]], settings: Settings) -> list[dict[str, Any]]:
    """Return what an endpoint of our own needs. No requirement is an alternative of its own: `{}`."""
    if api.access is Access.SIGNED_OR_PEER and api.method == "GET" and settings.downloads:
        return [*_SECURITY[api.access], *(default or [{}])]
    return _SECURITY.get(api.access, default)


def _page(api: ApiRoute, security: list[dict[str, Any]]) -> dict[str, Any]:
    key, success = (api.method, api.pattern), _OK
    if key in API_SCHEMAS:
        schema = {"$ref": f"#/components/schemas/{API_SCHEMAS[key]}"}
        success = {**success, "content": {"application/json": {"schema": schema}}}
    responses = {"200": success, "default": _ERROR}
    parameters = {"parameters": API_PARAMETERS[key]} if key in API_PARAMETERS else {}
    return {"summary": api.summary, "security": security, **parameters, "responses": responses}


def _form(security: list[dict[str, Any]]) -> dict[str, Any]:
    stored = {"application/json": {"schema": {"$ref": "#/components/schemas/StoredFiles"}}}
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    schema = {
        "type": "object",
        "properties": {"file": file},
        "additionalProperties": {"type": "string", "description": "Metadata of the file"},
        "required": ["file"],
    }
    return {
        "summary": "Upload the file of a form",
        "security": security and [*security, {}],  # or none: the fields may be signed
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}},
        "responses": {
            "201": {"description": "Stored", "content": stored},
            "202": {"description": "Some files are held until handlers decide", "content": stored},
            "207": {"description": "Stored in part", "content": stored},
            "303": {"description": "Stored, and the form has a field `redirect`"},
            "default": _ERROR,
        },
    }


def _upload(security: list[dict[str, Any]]) -> dict[str, Any]:
    stored, held = (
        {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
        for name in ("Stored", "Held")
    )
    return {
        "summary": "Upload a file",
        "security": security,
        "requestBody": {"required": True, "content": {"*/*": {"schema": {}}}},
        "responses": {
            "201": {"description": "Stored, new", "content": stored},
            "200": {"description": "Stored, replaced", "content": stored},
            "202": {"description": "Held until handlers decide", "content": held},
            "default": _ERROR,
        },
    }
