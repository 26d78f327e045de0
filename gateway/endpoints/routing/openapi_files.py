"""The operations on stored files in the OpenAPI document: lists, downloads and removals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.settings import Settings
from gateway.storage.protocols import MAX_FOLDER_PAGE

Operation = dict[str, Any]
Security = list[dict[str, Any]]

ENTRY: Final = {
    "type": "object",
    "required": ["name", "kind", "path", "url"],
    "properties": {
        "name": {"type": "string"},
        "kind": {"enum": ["file", "folder"]},
        "path": {"type": "string"},
        "url": {"type": "string"},
        "bytes": {"type": "integer"},
        "modified": {"type": "string", "format": "date-time"},
        "etag": {"type": "string", "description": "Without quotes"},
        "mime": {"type": ["string", "null"]},
        "digest": {"type": "string", "description": "As in Repr-Digest (RFC 9530)"},
    },
}
FOLDER_PAGE: Final = {
    "type": "object",
    "required": ["path", "entries", "next"],
    "properties": {
        "path": {"type": "string"},
        "entries": {"type": "array", "items": {"$ref": "#/components/schemas/Entry"}},
        "next": {"type": ["string", "null"], "description": "The cursor of the next page"},
    },
}
UPLOADS_PAGE: Final = {
    "type": "object",
    "required": ["uploads", "next"],
    "properties": {
        "uploads": {"type": "array", "items": {"type": "object"}},
        "next": {"type": ["string", "null"], "description": "The cursor of the next page"},
        "unavailable": {"type": "array", "items": {"type": "string"}},
    },
}
_ERROR: Final = {"$ref": "#/components/responses/Error"}


def _query(name: str, schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": dict(schema), "description": description}


_TEXT: Final = {"type": "string"}
_CURSOR: Final = _query("cursor", _TEXT, "`next` of the page before")
_PAGE: Final = [
    _query("limit", {"type": "integer", "minimum": 1, "maximum": MAX_FOLDER_PAGE}, "Entries of a page"),
    _CURSOR,
    _query("recursive", {"type": "boolean"}, "The files of all folders below, too"),
]
_PATH: Final = _query("path", _TEXT, "A stored path; that of a folder ends with a slash")
_IF_MATCH: Final = {
    "name": "If-Match",
    "in": "header",
    "schema": _TEXT,
    "description": "Strong entity tags in quotes, or *",
}

API_PARAMETERS: Final[Mapping[tuple[str, str], list[dict[str, Any]]]] = {
    ("GET", "/-/uploads"): [
        _query("principal", _TEXT, "Only uploads of this principal"),
        _query("since", _TEXT, "Only uploads since then: ISO 8601, or a Unix time"),
        _query("state", _TEXT, "Only uploads in this state"),
        _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000}, "Uploads of a page"),
        _CURSOR,
    ],
    ("GET", "/-/files"): [_PATH, *_PAGE],
    ("DELETE", "/-/files"): [{**_PATH, "required": True}, _IF_MATCH],
}
"""Parameters of the gateway's own endpoints, by method and pattern."""

API_SCHEMAS: Final[Mapping[tuple[str, str], str]] = {("GET", "/-/uploads"): "UploadsPage"}
"""The schemas of their 200, where there is one."""


def file_operations(settings: Settings, security: Security) -> dict[str, Operation]:
    """Return the operations of the upload path on what is stored there, as far as they are served."""
    operations: dict[str, Operation] = {}
    if settings.downloads:
        operations["get"] = {
            "summary": "The file",
            "security": security,
            "responses": {
                "200": {"description": "The file", "content": {"*/*": {"schema": {}}}},
                "206": {"description": "A part of it"},
                "304": {"description": "Not modified"},
                "default": _ERROR,
            },
        }
    if settings.deletes:
        operations["delete"] = {
            "summary": "Remove the file",
            "security": security,
            "parameters": [_IF_MATCH],
            "responses": {"204": {"description": "It is gone, durably"}, "default": _ERROR},
        }
    return operations


def folder_path(settings: Settings) -> str | None:
    """Return the path of the folder of all uploads, None where folders are not listed."""
    path = settings.file_upload_api_path
    if not settings.listing or not path.endswith(("/{filepath}", "/{filename}")):
        return None
    return path[: path.rindex("{")]


def folder_operation(security: Security) -> Operation:
    """Return the list of that folder."""
    content = {
        "application/json": {"schema": {"$ref": "#/components/schemas/FolderPage"}},
        "text/html": {"schema": _TEXT},
    }
    return {
        "summary": "A page of a folder",
        "security": security,
        "parameters": _PAGE,
        "responses": {"200": {"description": "OK", "content": content}, "default": _ERROR},
    }
