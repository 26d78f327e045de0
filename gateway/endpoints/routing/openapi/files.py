"""The operations on files: uploads, downloads, lists and removals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.domain.paths import MAX_SEGMENT_BYTES
from gateway.endpoints.routing.openapi.parameters import path_parameters
from gateway.settings import Settings
from gateway.storage.protocols import MAX_FOLDER_PAGE

TAG: Final = "Files"

FileOperation = dict[str, Any]
Security = list[dict[str, list[str]]]

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
    "required": ["path", "url", "entries", "next"],
    "properties": {
        "path": {"type": "string"},
        "url": {"type": "string"},
        "entries": {"type": "array", "items": {"$ref": "#/components/schemas/Entry"}},
        "next": {"type": ["string", "null"], "description": "The cursor of the next page"},
        "searched": {"type": "integer", "description": "Files that this search looked at"},
    },
}
_ERROR: Final = {"$ref": "#/components/responses/Error"}


_TEXT: Final = {"type": "string"}
IF_MATCH: Final = {
    "name": "If-Match",
    "in": "header",
    "schema": _TEXT,
    "description": "Strong entity tags in quotes, or *",
}

_FILE: Final = {"type": "string", "contentMediaType": "application/octet-stream"}
_FORM: Final = {
    "type": "object",
    "properties": {"file": _FILE},
    "additionalProperties": {"type": "string", "description": "Metadata of the file"},
    "required": ["file"],
}
FORM_CONTENT: Final = {"multipart/form-data": {"schema": _FORM}}
ANY_CONTENT: Final[dict[str, Any]] = {"*/*": {"schema": {}}}


def query_parameter(name: str, schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    """Return a field of the query that may be left out."""
    return {"name": name, "in": "query", "schema": dict(schema), "description": description}


CURSOR: Final = query_parameter("cursor", _TEXT, "`next` of the page before")
PAGE: Final = [
    query_parameter(
        "limit", {"type": "integer", "minimum": 1, "maximum": MAX_FOLDER_PAGE}, "Entries of a page"
    ),
    CURSOR,
    query_parameter("recursive", {"type": "boolean"}, "The files of all folders below, too"),
    query_parameter(
        "search",
        {"type": "string", "minLength": 1, "maxLength": MAX_SEGMENT_BYTES},
        "Only names that contain this text, here and in all folders below",
    ),
]


def add_file_operations(
    paths: dict[str, dict[str, Any]], methods: Sequence[str], settings: Settings, security: Security
) -> None:
    """Add the operations on files that a caller may call, as far as they are served.

    `methods` are those that it may use at the upload path. A path that a route has, too, keeps the
    operations of the route.
    """
    upload = settings.file_upload_api_path
    served = {
        "get": _download(security) if settings.downloads else None,
        "put": _upload(security),
        "post": _form(security),
        "delete": _removal(security) if settings.deletes else None,
    }
    for method, operation in served.items():
        if operation is not None and method.upper() in methods:
            item = paths.setdefault(upload, path_parameters(upload, {"filepath"}))
            item.setdefault(method, operation)
    folder = _folder_path(settings)
    if folder is not None and "GET" in methods:
        item = paths.setdefault(folder, path_parameters(folder))
        item.setdefault("get", _folder(security))


def _download(security: Security) -> FileOperation:
    return {
        "summary": "The file",
        "tags": [TAG],
        "security": security,
        "responses": {
            "200": {"description": "The file", "content": {"*/*": {"schema": {}}}},
            "206": {"description": "A part of it"},
            "304": {"description": "Not modified"},
            "default": _ERROR,
        },
    }


def _removal(security: Security) -> FileOperation:
    return {
        "summary": "Remove the file",
        "tags": [TAG],
        "security": security,
        "parameters": [IF_MATCH],
        "responses": {"204": {"description": "It is gone, durably"}, "default": _ERROR},
    }


def _folder_path(settings: Settings) -> str | None:
    """Return the path of the folder of all uploads, None where folders are not listed."""
    path = settings.file_upload_api_path
    if not settings.listing or not path.endswith(("/{filepath}", "/{filename}")):
        return None
    return path[: path.rindex("{")]


def _folder(security: Security) -> FileOperation:
    """Return the list of that folder."""
    content = {
        "application/json": {"schema": {"$ref": "#/components/schemas/FolderPage"}},
        "text/html": {"schema": _TEXT},
    }
    return {
        "summary": "A page of a folder",
        "tags": [TAG],
        "security": security,
        "parameters": PAGE,
        "responses": {"200": {"description": "OK", "content": content}, "default": _ERROR},
    }


def _form(security: Security) -> FileOperation:
    stored = {"application/json": {"schema": {"$ref": "#/components/schemas/StoredFiles"}}}
    return {
        "summary": "Upload the file of a form",
        "tags": [TAG],
        "security": security and [*security, {}],  # or none: the fields may be signed
        "requestBody": {"required": True, "content": FORM_CONTENT},
        "responses": {
            "201": {"description": "Stored", "content": stored},
            "202": {"description": "Some files are held until handlers decide", "content": stored},
            "207": {"description": "Stored in part", "content": stored},
            "303": {"description": "Stored, and the form has a field `redirect`"},
            "default": _ERROR,
        },
    }


def _upload(security: Security) -> FileOperation:
    stored, held = (
        {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
        for name in ("Stored", "Held")
    )
    return {
        "summary": "Upload a file",
        "tags": [TAG],
        "security": security,
        "requestBody": {"required": True, "content": ANY_CONTENT},
        "responses": {
            "201": {"description": "Stored, new", "content": stored},
            "200": {"description": "Stored, replaced", "content": stored},
            "202": {"description": "Held until handlers decide", "content": held},
            "default": _ERROR,
        },
    }
