"""The exception tree, and the table of error codes that clients see.

Raised anywhere; `endpoints.dispatcher` maps them to HTTP, `cli` maps `ConfigError` to exit code 2.
Any other exception is answered with 500 `internal`.

    GatewayError
    ├── Refusal                     answered with a code of TABLE
    │   └── Terminated              answered with the status and body of a handler's `terminate()`
    ├── UnknownOutcome              the connection is closed without a response
    │   └── ClientDisconnected      the client has disconnected; the gateway did not fail
    ├── ConfigError                 settings or plugins are wrong: what, where (file:line), what to do
    ├── EventEngineUnavailable      the event engine cannot be reached now; try again
    ├── RecordsUnavailable          the records cannot be reached now; try again
    ├── Postponed                   a delivery cannot run here now, its handler did not fail; try again
    │   └── PeerUnavailable         the gateway that owns the file cannot be reached
    ├── Superseded                  the committed file has been replaced or removed since
    ├── HandlerFailed               a run of a handler failed; the delivery is retried
    └── HandlerGone                 no loaded plugin defines the handler of a delivery
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from http import HTTPStatus

TABLE: Mapping[str, int] = {
    "bad_request": 400,
    "bad_path": 400,
    "bad_range": 400,
    "bad_digest": 400,
    "bad_schema": 400,
    "digest_mismatch": 400,
    "inconsistent_length": 400,
    "length_exceeded": 400,
    "incomplete_body": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "insufficient_scope": 403,
    "bad_signature": 403,
    "expired": 403,
    "not_granted": 403,
    "used_up": 403,
    "password_needed": 403,
    "wrong_password": 403,
    "link_unavailable": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "idle_timeout": 408,
    "already_decided": 409,
    "conflict": 409,
    "mismatching_offset": 409,
    "superseded": 410,
    "length_required": 411,
    "already_exists": 412,
    "precondition_failed": 412,
    "unsupported_version": 412,
    "too_large": 413,
    "unsupported_media_type": 415,
    "range_not_satisfiable": 416,
    "expectation_failed": 417,
    "misdirected_request": 421,
    "locked": 423,
    "upgrade_required": 426,
    "too_many_requests": 429,
    "headers_too_large": 431,
    "checksum_mismatch": 460,
    "internal": 500,
    "other_file_system": 500,
    "not_implemented": 501,
    "bad_gateway": 502,
    "hook_failed": 503,
    "issuer_unavailable": 503,
    "journal_unavailable": 503,
    "overloaded": 503,
    "process_unavailable": 503,
    "records_unavailable": 503,
    "sessions_unavailable": 503,
    "stopping": 503,
    "storage_unavailable": 503,
    "upstreams_unavailable": 503,
    "gateway_timeout": 504,
    "no_space": 507,
    "quota_exceeded": 507,
}
"""Every error code a client can see, and its HTTP status (RFC 9110 section 15; 460: tus 1.0.0)."""

RETRY_AFTER_SECONDS: Mapping[str, int] = {
    "locked": 1,
    "too_many_requests": 1,
    "hook_failed": 5,
    "issuer_unavailable": 5,
    "journal_unavailable": 10,
    "overloaded": 5,
    "process_unavailable": 2,
    "records_unavailable": 5,
    "sessions_unavailable": 5,
    "stopping": 5,
    "storage_unavailable": 5,
    "upstreams_unavailable": 5,
}
"""`Retry-After`: seconds before a client should try again (RFC 9110 section 10.2.3)."""


OUT_OF_DESCRIPTORS: frozenset[int] = frozenset({errno.EMFILE, errno.ENFILE})
"""What the system says where the process, or the machine, can open nothing more."""


class GatewayError(Exception):
    """The root of what this project raises on purpose."""


class Refusal(GatewayError):
    """A request is refused: `code` stands in TABLE, `message` is written for the client.

    `headers` are added to the response (for example `Allow`), `details` to its JSON;
    `endpoints.uploads` sets `upload_id`. The message must never quote a secret. Raises `KeyError` for an
    unknown code.
    """

    def __init__(self, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = TABLE[code]
        self.headers = dict(headers or {})
        self.upload_id: str | None = None
        self.details: Mapping[str, object] = {}
        if code in RETRY_AFTER_SECONDS:
            self.headers.setdefault("Retry-After", str(RETRY_AFTER_SECONDS[code]))


def descriptor_refusal(error: BaseException) -> Refusal | None:
    """Return the refusal for an error that says that nothing more can be opened; None for others.

    It ends by itself as other requests end, so the client is told to try again.
    """
    if not isinstance(error, OSError) or error.errno not in OUT_OF_DESCRIPTORS:
        return None
    return Refusal("overloaded", "too many files and connections are open: try again later")


class Terminated(Refusal):
    """A handler called `terminate(code >= 400)`: the client gets its status and output unchanged.

    `rejected_by` names the handler of OnFileReceived that refused a whole file, None for other refusals.
    """

    def __init__(self, status: int, body: bytes, content_type: str) -> None:
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "refused"
        super().__init__("forbidden", f"a handler refused the upload: {status} {phrase}")
        self.code = "terminated"
        self.status = status
        self.body = body
        self.content_type = content_type
        self.rejected_by: str | None = None


class UnknownOutcome(GatewayError):
    """It is unknown whether the upload is durable, so no status would be true."""


class ClientDisconnected(UnknownOutcome):
    """The client disconnected before the response; not an error of the gateway."""


class ConfigError(GatewayError):
    """Settings or plugins are wrong. `str()` is one line: where, what, what to do.

    `file` and `line` (from 1) point at the cause when it has a place.
    """

    def __init__(self, message: str, file: str | None = None, line: int | None = None) -> None:
        place = "" if file is None else f"{file}:{line}: " if line else f"{file}: "
        super().__init__(place + message)
        self.file = file
        self.line = line


class EventEngineUnavailable(GatewayError):
    """The event engine cannot be reached or written now; a retry may succeed."""


class RecordsUnavailable(GatewayError):
    """The records cannot be reached or written now; it is unknown whether a put was done."""


class Postponed(GatewayError):
    """A delivery cannot run here now and its handler did not fail: it uses no attempt."""


class PeerUnavailable(Postponed):
    """The gateway that owns an event's file cannot be reached now."""


class Superseded(GatewayError):
    """The file of an event is no longer the file at its path."""


class HandlerFailed(GatewayError):
    """A run of a handler failed. `traceback` holds the plugin's frames, secrets masked.

    The next run is due in `retry_after` seconds at the earliest; there is none after a `final` failure.
    """

    def __init__(
        self, message: str, traceback: str, *, retry_after: float = 0.0, final: bool = False
    ) -> None:
        super().__init__(message)
        self.traceback = traceback
        self.retry_after = retry_after
        self.final = final


class HandlerGone(GatewayError):
    """No loaded plugin defines this handler."""
