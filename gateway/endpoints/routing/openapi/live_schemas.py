"""The schemas of what `/-/live` and `/-/doctor` answer."""

from __future__ import annotations

from typing import Any, Final

_TEXT: Final = {"type": "string"}
_TIME: Final = {"type": "string", "format": "date-time"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_RATE: Final = {"type": ["number", "null"], "minimum": 0}
_COUNTS: Final = {"type": "object", "additionalProperties": _COUNT}
_PRINCIPAL: Final = {"type": ["object", "null"], "properties": {"name": _TEXT, "kind": _TEXT}}

_UPLOAD: Final = {
    "upload_id": _TEXT,
    "state": _TEXT,
    "path": _TEXT,
    "bytes": _COUNT,
    "started": _TIME,
    "principal": _PRINCIPAL,
    "remote": {"type": ["string", "null"]},
}

_ACTIVE: Final = {
    "expected": {"type": ["integer", "null"], "description": "Bytes of the whole upload"},
    "rate": {**_RATE, "description": "Bytes a second"},
    "protocol": _TEXT,
}

_DURATIONS: Final = {
    "type": "object",
    "properties": {"count": _COUNT, "p50": _RATE, "p95": _RATE, "p99": _RATE},
    "description": "Seconds in which a share of the requests has ended, at most",
}

_RATES: Final = {
    "bytes_per_second": _RATE,
    "requests_per_second": _RATE,
    "by_status": {"type": "object", "additionalProperties": {"type": "number"}},
    "uploads_per_minute": _RATE,
    "failed_per_minute": _RATE,
    "durations": {"type": "object", "additionalProperties": _DURATIONS},
}


def _list(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "object", "properties": properties}}


LIVE: Final = {
    "type": "object",
    "required": ["time", "processes", "silent_processes", "active", "active_count", "latest"],
    "properties": {
        "time": _TIME,
        "processes": _COUNT,
        "silent_processes": {"type": "array", "items": _COUNT},
        "active": _list({**_UPLOAD, **_ACTIVE}),
        "active_count": _COUNT,
        "latest": _list({**_UPLOAD, "ended": _TIME, "error": {"type": ["string", "null"]}}),
        "rates": {"type": "object", "properties": _RATES, "description": "For operators"},
        "queue": {**_COUNTS, "type": ["object", "null"], "description": "For operators"},
        "queue_time": {**_TIME, "type": ["string", "null"]},
    },
}

DOCTOR: Final = {
    "type": "object",
    "required": ["time", "seconds", "complete", "findings"],
    "properties": {
        "time": _TIME,
        "seconds": {"type": "number"},
        "complete": {"type": "boolean"},
        "findings": _list({"level": {"enum": ["ok", "warn", "FAIL"]}, "text": _TEXT, "advice": _TEXT}),
    },
}
