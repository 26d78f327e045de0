"""What operations share: schemas, refusals, and how callers show who they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args

from gateway.endpoints.routing.model import SchemaPlace
from gateway.endpoints.routing.openapi.endpoint_schemas import UPLOADS_PAGE
from gateway.endpoints.routing.openapi.files import ENTRY, FOLDER_PAGE
from gateway.endpoints.routing.openapi.live_schemas import DOCTOR, LIVE
from gateway.settings import Settings

Security = list[dict[str, list[str]]]
"""Alternatives; empty: none is needed, and an empty one among them: none is needed either."""

TOKEN_SECURITY: Final[Security] = [{"bearer": []}, {"token": []}]

ERROR: Final = {"$ref": "#/components/responses/Error"}
BAD_SCHEMA: Final = {"$ref": "#/components/responses/BadSchema"}
UNAUTHORIZED: Final = {"$ref": "#/components/responses/Unauthorized"}
FORBIDDEN: Final = {"$ref": "#/components/responses/Forbidden"}

_DURATION: Final = {"type": "integer", "minimum": 0}
RETRY_AFTER: Final = {"Retry-After": {"description": "Seconds", "schema": _DURATION}}
RATE_HEADERS: Final = {
    **RETRY_AFTER,
    "RateLimit-Limit": {"schema": {"type": "integer"}},
    "RateLimit-Remaining": {"schema": {"type": "integer"}},
    "RateLimit-Reset": {"description": "Seconds", "schema": _DURATION},
}

_FILE: Final[Mapping[str, Any]] = {
    "upload_id": {"type": "string"},
    "path": {"type": "string"},
    "bytes": {"type": "integer"},
    "mime": {"type": "string"},
    "digest": {"type": "string"},
    "result": {"type": "object", "description": "What handlers left"},
}
_STORED_FILE: Final[Mapping[str, Any]] = {
    "status": {"type": "integer"},
    "filename": {"type": "string"},
    "upload_id": {"type": "string"},
    "state": {"const": "held"},
    "path": {"type": "string"},
    "result": {"type": "object"},
    "url": {"type": "string", "format": "uri"},
    "error": {"type": "string", "description": "A code"},
}
_FAULT: Final[Mapping[str, Any]] = {
    "in": {"enum": list(get_args(SchemaPlace))},
    "pointer": {"type": "string", "description": "JSON pointer (RFC 6901)"},
    "rule": {"type": "string", "description": "Keyword of JSON Schema"},
    "message": {"type": "string"},
}
_ERROR_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["error", "message"],
    "properties": {
        "error": {"type": "string", "description": "A code"},
        "message": {"type": "string"},
        "upload_id": {"type": "string"},
        "faults": {"type": "array", "items": {"$ref": "#/components/schemas/Fault"}},
    },
}
SCHEMAS: Final[Mapping[str, Any]] = {
    "Error": _ERROR_SCHEMA,
    "Fault": {"type": "object", "required": list(_FAULT), "properties": _FAULT},
    "Entry": ENTRY,
    "FolderPage": FOLDER_PAGE,
    "UploadsPage": UPLOADS_PAGE,
    "Live": LIVE,
    "DoctorFindings": DOCTOR,
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
                "items": {"type": "object", "required": ["status"], "properties": _STORED_FILE},
            },
            "unused_fields": {"type": "array", "items": {"type": "string"}},
        },
    },
}
_CHALLENGE: Final = {"WWW-Authenticate": {"schema": {"type": "string"}}}


def error_response(description: str, headers: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a refusal of the gateway."""
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {"description": description, **({"headers": headers} if headers else {}), "content": content}


_RESPONSES: Final[Mapping[str, Any]] = {
    "Error": error_response("Refused or failed"),
    "BadSchema": error_response("The request breaks its schema: `faults` name each rule and its place"),
    "Unauthorized": error_response("Credentials are missing, or not accepted", _CHALLENGE),
    "Forbidden": error_response("This caller may not call here"),
}


def components(settings: Settings, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the components of the document; `shared` are schemas of routes."""
    issuer = "" if settings.jwt_issuer is None else f" of {settings.jwt_issuer}"
    token = "A token of the gateway, or an API key"  # noqa: S105
    return {
        "schemas": {**SCHEMAS, **shared},
        "responses": _RESPONSES,
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer", "description": token},
            "jwt": {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": f"A JSON Web Token{issuer}",
            },
            "token": {
                "type": "apiKey",
                "in": "header",
                "name": "X-Auth-Token",
                "description": token,
            },
            "signed": {
                "type": "apiKey",
                "in": "query",
                "name": "X-Gateway-Signature",
                "description": "The URL is signed for this request",
            },
        },
    }
