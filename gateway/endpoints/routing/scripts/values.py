"""What the values of scripts of routes mean: what they return, and what they leave in a response."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from aiohttp import hdrs
from multidict import CIMultiDict

from gateway.endpoints.routing.proxy.whole_response import DIGEST_FIELDS
from gateway.errors import TABLE
from gateway.http.responses import GatewayResponse, Response
from gateway.plugins.scripting.callout import HTTPError
from gateway.plugins.scripting.decision import BYTES, JSON, TEXT, InvalidResult

FRAMING: Final = (hdrs.CONTENT_LENGTH, hdrs.TRANSFER_ENCODING, hdrs.CONNECTION)
"""Header fields of a response that the gateway computes."""

BODY_FIELDS: Final = (hdrs.ETAG, *DIGEST_FIELDS)
"""Header fields that are not true of another body."""

WITHOUT_BODY: Final = frozenset({204, 304})
"""Statuses whose responses have no body, whatever their header says (RFC 9112 section 6.3)."""

_CODES: Final = {status: code for code, status in reversed(list(TABLE.items()))}
"""The first code of the error table for a status."""

_BREAKS: Final = frozenset("\r\n\0")
_TOKEN: Final = frozenset(
    "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)


@dataclass(slots=True)
class ScriptResponse:
    """`response` as a script sees it: the upstream's response; all of it may be changed."""

    code: int
    headers: CIMultiDict[str]
    body: Any


def response_of(value: Any) -> Response:
    """Return a script's value as a response: a body, `(code, body)` or `(code, body, headers)`.

    str is text, dict and list are JSON, bytes are themselves; the default status is 200. Raises
    `InvalidResult` for anything else, None too.
    """
    if value is None:
        raise InvalidResult("a script returned None where a response is needed")
    if not isinstance(value, tuple):
        return _response(200, value, {})
    if len(value) not in (2, 3):
        raise InvalidResult("a script returns a body, (code, body) or (code, body, headers)")
    code, body, *headers = value
    return _response(code, body, headers[0] if headers else {})


def response_of_error(error: HTTPError) -> Response:
    """Return `HTTPError(code, body)`; without a body it explains its status. Raises `InvalidResult`."""
    body = error.body
    if body is None and isinstance(error.code, int) and error.code >= 400:
        phrase = HTTPStatus(error.code).phrase if error.code in set(HTTPStatus) else "refused"
        body = {"error": _CODES.get(error.code, "refused"), "message": phrase}
    return _response(error.code, body, {})


def changed_head(response: ScriptResponse, upstream: GatewayResponse) -> tuple[int, CIMultiDict[str]]:
    """Return status and headers as a script left them; the body is still the upstream's.

    Raises `InvalidResult`.
    """
    status, headers = response.code, checked_headers(response.headers)
    for name in FRAMING:
        headers.popall(name, None)
        headers.extend((name, value) for value in upstream.headers.getall(name, ()))
    if status != upstream.status:
        status = checked_status(status)
        if (status in WITHOUT_BODY) != (upstream.status in WITHOUT_BODY):
            headers.popall(hdrs.CONTENT_LENGTH, None)
    return status, headers


def checked_status(code: Any) -> int:
    """Return the status of a response. Raises `InvalidResult`."""
    if not isinstance(code, int) or isinstance(code, bool) or not 200 <= code <= 599:
        raise InvalidResult("the status of a response is a whole number from 200 to 599")
    return int(code)


def checked_headers(headers: Any) -> CIMultiDict[str]:
    """Return a script's headers. Raises `InvalidResult` for names or values HTTP cannot carry."""
    if not isinstance(headers, Mapping):
        raise InvalidResult("headers are a mapping of names to texts")
    checked: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        # RFC 9110 section 5.1: a name is a token; section 5.5: no line breaks and no NUL in values.
        if not isinstance(name, str) or not name or not set(name) <= _TOKEN:
            raise InvalidResult("the name of a header must be a token such as Content-Type")
        if not isinstance(value, str) or set(value) & _BREAKS:
            raise InvalidResult(f"the value of the header {name} must be a text without line breaks")
        checked.add(name, value)
    return checked


def remove_unchanged(headers: CIMultiDict[str], earlier: CIMultiDict[str], names: Iterable[str]) -> None:
    """Remove the fields that are still as they were, where what they describe has changed."""
    for name in names:
        if name in headers and headers.getall(name) == earlier.getall(name, None):
            headers.popall(name)


def encoded_body(body: Any) -> tuple[bytes, str | None]:
    """Return a script's body as bytes, and its type. Raises `InvalidResult`.

    Halves of surrogate pairs, which UTF-8 cannot have, become `?`.
    """
    if body is None:
        return b"", None
    if isinstance(body, bytes):
        return body, BYTES
    try:
        if isinstance(body, str):
            return body.encode(errors="replace"), TEXT
        if isinstance(body, dict | list):
            return json.dumps(body, ensure_ascii=False).encode(errors="replace"), JSON
    except (TypeError, ValueError, RecursionError) as error:
        name = type(error).__name__
        raise InvalidResult(f"the body cannot be encoded: {name}") from None
    name = type(body).__name__
    raise InvalidResult(f"a body is str, dict, list, bytes or None, not {name}")


def _response(code: Any, body: Any, headers: Any) -> Response:
    """Return a response whose length is computed anew."""
    status = checked_status(code)
    content, mime = encoded_body(body)
    fields = checked_headers(headers)
    if mime:
        fields.setdefault("Content-Type", mime)
    for name in FRAMING:
        fields.popall(name, None)
    return Response(status=status, body=content or None, headers=fields)
