"""What the gateway's own endpoints take and answer, as far as the document says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.endpoints.routing.openapi.files import (
    ANY_CONTENT,
    CURSOR,
    FORM_CONTENT,
    IF_MATCH,
    PAGE,
    query_parameter,
)

_TEXT: Final = {"type": "string"}
_AFTER: Final = query_parameter("after", _TEXT, "The cursor: `next` of the page before")
_PATH: Final = query_parameter("path", _TEXT, "A stored path; that of a folder ends with a slash")

UPLOADS_PAGE: Final = {
    "type": "object",
    "required": ["uploads", "next"],
    "properties": {
        "uploads": {"type": "array", "items": {"type": "object"}},
        "next": {"type": ["string", "null"], "description": "The cursor of the next page"},
        "unavailable": {"type": "array", "items": {"type": "string"}},
    },
}


def _limit(maximum: int, what: str) -> dict[str, Any]:
    return query_parameter("limit", {"type": "integer", "minimum": 1, "maximum": maximum}, what)


API_PARAMETERS: Final[Mapping[tuple[str, str], list[dict[str, Any]]]] = {
    ("GET", "/-/uploads"): [
        query_parameter("principal", _TEXT, "Only uploads of principals of this name"),
        query_parameter("kind", _TEXT, "Only uploads of principals of this kind, such as key or oidc"),
        query_parameter("since", _TEXT, "Only uploads since then: ISO 8601, or a Unix time"),
        query_parameter("state", _TEXT, "Only uploads in this state"),
        query_parameter("id", _TEXT, "This upload, with its handlers; may be repeated up to 50 times"),
        _limit(1000, "Uploads of a page"),
        CURSOR,
    ],
    ("GET", "/-/files"): [_PATH, *PAGE],
    ("DELETE", "/-/files"): [{**_PATH, "required": True}, IF_MATCH],
    ("GET", "/-/doctor"): [
        query_parameter("refresh", {"enum": ["true"]}, "Check again, unless that was seconds ago")
    ],
    ("GET", "/-/links"): [
        query_parameter("state", {"enum": ["active", "expired", "revoked"]}, "Only links in this state"),
        _limit(500, "Links of a page"),
        CURSOR,
    ],
    ("GET", "/-/shared"): [
        query_parameter("path", _TEXT, "A folder below that of the link, such as `sub/`"),
        query_parameter("format", {"enum": ["zip"]}, "All files below the folder as an archive"),
        *PAGE,
    ],
    ("GET", "/-/quotas"): [_limit(100, "Quotas of the answer")],
    ("GET", "/-/events"): [
        query_parameter("state", _TEXT, "Only deliveries in this state"),
        query_parameter("handler", _TEXT, "Only deliveries to this handler"),
        query_parameter("since", _TEXT, "Only events since then: ISO 8601, or a Unix time"),
        query_parameter("error", _TEXT, "Only failed deliveries of this group of errors"),
        _limit(1000, "Deliveries of a page"),
        _AFTER,
    ],
    ("GET", "/-/events/errors"): [
        query_parameter("state", {"enum": ["dead", "delayed"]}, "Deliveries in this state: dead"),
        query_parameter("handler", _TEXT, "Only deliveries to this handler"),
        query_parameter("since", _TEXT, "Only events since then: ISO 8601, or a Unix time"),
    ],
    ("GET", "/-/plugins/routes"): [
        query_parameter("search", {"type": "string", "maxLength": 200}, "Words in a text of a route"),
        _limit(1000, "Routes of a page"),
        query_parameter("after", {"type": "integer"}, "`next` of the page before"),
    ],
}
"""Parameters, by method and pattern."""

API_SCHEMAS: Final[Mapping[tuple[str, str], str]] = {
    ("GET", "/-/uploads"): "UploadsPage",
    ("GET", "/-/live"): "Live",
    ("GET", "/-/doctor"): "DoctorFindings",
}
"""The schemas of their 200, where there is one."""

_SELECTION: Final = {
    "type": "object",
    "description": "Deliveries that match all of these; one is needed",
    "minProperties": 1,
    "properties": {
        "state": _TEXT,
        "handler": _TEXT,
        "since": {"type": "string", "description": "ISO 8601, or a Unix time"},
        "events": {"type": "array", "items": _TEXT, "maxItems": 1000},
        "error": {"type": "string", "description": "With the state dead: a group of errors"},
        "after": {"type": ["string", "null"], "description": "One chunk: null, then its `next`"},
    },
    "examples": [{"state": "dead"}],
}
_DONE: Final = {**_SELECTION, "examples": [{"state": "done"}]}
_HANDLER: Final = {"type": "object", "required": ["handler"], "properties": {"handler": _TEXT}}
_TOKEN: Final = {"type": "object", "required": ["token"], "properties": {"token": _TEXT}}
_LINK: Final = {
    "type": "object",
    "required": ["kind", "folder"],
    "additionalProperties": False,
    "properties": {
        "kind": {"enum": ["drop", "share"]},
        "folder": {"type": "string", "description": "A stored path, such as `/upload/inbox/`"},
        "expires": {
            "type": ["number", "string", "null"],
            "description": "Seconds, a text such as `12h`, or `never`; default `7d`",
        },
        "max_files": {"type": ["integer", "null"], "minimum": 1},
        "max_bytes": {"type": ["integer", "string", "null"], "description": "Bytes, or such as `5G`"},
        "password": {"type": ["string", "null"], "minLength": 1, "maxLength": 1000},
    },
    "examples": [{"kind": "drop", "folder": "/upload/inbox/", "max_files": 20}],
}
_PASSWORD: Final = {"type": "object", "properties": {"password": _TEXT}}
_REASON: Final = {"type": "object", "properties": {"reason": {"type": "string", "maxLength": 1000}}}


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


API_BODIES: Final[Mapping[tuple[str, str], dict[str, Any]]] = {
    ("POST", "/-/uploads/{upload_id}/release"): _json({"type": "object", "maxProperties": 0}),
    ("POST", "/-/uploads/{upload_id}/reject"): _json(_REASON),
    ("POST", "/-/session"): _json(_TOKEN),
    ("POST", "/-/links"): _json(_LINK),
    ("POST", "/-/links/open"): _json(_PASSWORD),
    ("PUT", "/-/objects/{filepath}"): ANY_CONTENT,
    ("POST", "/-/objects/{filepath}"): FORM_CONTENT,
    ("POST", "/-/reload"): _json({"type": "object", "maxProperties": 0}),
    ("POST", "/-/events/retry"): _json(_SELECTION),
    ("POST", "/-/events/drop"): _json(_SELECTION),
    ("POST", "/-/events/replay"): _json(_DONE),
    ("POST", "/-/events/pause"): _json(_HANDLER),
    ("POST", "/-/events/resume"): _json(_HANDLER),
}
"""Bodies of requests, by media type."""
