"""Converts what a script returned, or the `HTTPError` that it raised, to a response.

What cannot be converted is `InvalidResult`, never half a response.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from multidict import CIMultiDict

from gateway.errors import TABLE
from gateway.plugins.scripting.callout import HTTPError
from gateway.plugins.scripting.decision import BYTES, JSON, TEXT, InvalidResult

_CODES: Final = {status: code for code, status in reversed(list(TABLE.items()))}
"""The first code of the error table for a status."""


@dataclass(frozen=True, slots=True)
class ScriptReply:
    """A response as a script returned it. `output` is the body before it was encoded."""

    code: int
    body: bytes = b""
    headers: CIMultiDict[str] = field(default_factory=CIMultiDict)
    output: Any = None


def reply_of(value: Any) -> ScriptReply:
    """Return a script's value as a reply: a body, `(code, body)` or `(code, body, headers)`.

    str is text, dict and list are JSON, bytes are themselves; the default status is 200. Raises
    `InvalidResult` for anything else, None too.
    """
    if not isinstance(value, tuple):
        if value is None:
            raise InvalidResult("a script returned None where a response is needed")
        return _reply(200, value, {})
    if len(value) not in (2, 3):
        raise InvalidResult("a script returns a body, (code, body) or (code, body, headers)")
    code, body, *rest = value
    return _reply(code, body, rest[0] if rest else {})


def reply_of_error(error: HTTPError) -> ScriptReply:
    """Return `HTTPError(code, body)` as a reply; without a body the response explains its status.

    Raises `InvalidResult`.
    """
    body = error.body
    if body is None and isinstance(error.code, int) and error.code >= 400:
        phrase = HTTPStatus(error.code).phrase if error.code in set(HTTPStatus) else "refused"
        body = {"error": _CODES.get(error.code, "refused"), "message": phrase}
    return _reply(error.code, body, {})


def checked_headers(headers: Any) -> CIMultiDict[str]:
    """Return headers that a script gave. Raises `InvalidResult` for names or values HTTP cannot
    carry."""
    if not isinstance(headers, Mapping):
        raise InvalidResult("headers are a mapping of names to texts")
    checked: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        _check_header(name, value)
        checked.add(name, value)
    return checked


def _check_header(name: Any, value: Any) -> None:
    """RFC 9110 section 5.5: no line breaks and no NUL; section 5.1: a name is a token."""
    if not isinstance(name, str) or not name or not set(name) <= _TOKEN:
        raise InvalidResult("the name of a header must be a token such as Content-Type")
    if not isinstance(value, str) or set(value) & _BREAKS:
        raise InvalidResult(f"the value of the header {name} must be a text without line breaks")


_BREAKS: Final = frozenset("\r\n\0")
_TOKEN: Final = frozenset(
    "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)


def _reply(code: Any, body: Any, headers: Any) -> ScriptReply:
    if not isinstance(code, int) or isinstance(code, bool) or not 200 <= code <= 599:
        raise InvalidResult("the status of a response is a whole number from 200 to 599")
    content, mime = _content(body)
    fields = checked_headers(headers)
    if mime:
        fields.setdefault("Content-Type", mime)
    return ScriptReply(int(code), content, fields, body)


def _content(body: Any) -> tuple[bytes, str | None]:
    if body is None:
        return b"", None
    if isinstance(body, bytes):
        return body, BYTES
    try:
        if isinstance(body, str):
            return body.encode(), TEXT
        if isinstance(body, dict | list):
            return json.dumps(body, ensure_ascii=False).encode(), JSON
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidResult(
            f"the body of the response cannot be encoded: {type(error).__name__}"
        ) from None
    raise InvalidResult(
        f"the body of a response is str, dict, list, bytes or None, not {type(body).__name__}"
    )
