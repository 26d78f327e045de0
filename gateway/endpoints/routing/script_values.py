"""What the scripts of routes are given, and what their values mean.

A script gets copies. What it leaves in them counts once all of it has been checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode

from aiohttp import hdrs
from multidict import CIMultiDict

from gateway.endpoints.routing.forwarding import has_dot_segment
from gateway.endpoints.routing.model import NOT_PROXIED_METHODS, RequestContext
from gateway.endpoints.routing.whole_response import DIGEST_FIELDS
from gateway.errors import TABLE
from gateway.http.responses import GatewayResponse, Response
from gateway.plugins.scripting.callout import HTTPError
from gateway.plugins.scripting.decision import BYTES, JSON, TEXT, InvalidResult

READ_ONLY: Final = frozenset({"resources", "principal", "remote"})
"""What a script cannot assign in its request: nothing of it is sent to the upstream."""

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
_METHOD: Final = re.compile(r"[A-Z][A-Z0-9-]{0,31}")
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f\\\\]")


@dataclass(slots=True)
class ScriptRequest:
    """`request` as a script sees it. What it changes goes upstream, except for READ_ONLY."""

    method: str
    path: str
    headers: CIMultiDict[str]
    params: dict[str, list[str]]
    resources: dict[str, str]
    body: bytes = b""
    principal: dict[str, Any] | None = None
    remote: str | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute. Raises `AttributeError` for READ_ONLY ones that are set already."""
        if name in READ_ONLY and hasattr(self, name):
            raise AttributeError(f"request.{name} cannot be assigned: it is not sent to the upstream")
        object.__setattr__(self, name, value)


@dataclass(slots=True)
class ScriptResponse:
    """`response` as a script sees it: the upstream's response; all of it may be changed."""

    code: int
    headers: CIMultiDict[str]
    body: Any


# -- the request


def script_request(context: RequestContext) -> ScriptRequest:
    """Return `request` for the scripts of a request; it shares nothing with it."""
    return ScriptRequest(
        method=context.upstream_method,
        path=context.path,
        headers=CIMultiDict(context.headers),
        params={name: list(values) for name, values in context.params.items()},
        resources=dict(context.resources),
        body=context.body or b"",
        principal=None if context.principal is None else dict(context.principal),
        remote=context.remote,
    )


@dataclass(frozen=True, slots=True)
class RequestChanges:
    """What a script made of a request; None: as it was."""

    headers: CIMultiDict[str]
    method: str | None = None
    path: str | None = None
    params: Mapping[str, list[str]] | None = None
    body: bytes | None = None

    def apply(self, context: RequestContext) -> None:
        """Let the upstream, and later scripts, get it."""
        context.headers = self.headers
        if self.method is not None:
            context.method = self.method
        if self.path is not None:
            context.path = self.path
            context.upstream_path = quote(self.path)
        if self.params is not None:
            context.params = self.params
            context.raw_query = urlencode(self.params, doseq=True)
        if self.body is not None:
            context.body = self.body


def request_changes(request: ScriptRequest, context: RequestContext) -> RequestChanges:
    """Return what a script has changed in its request. Raises `InvalidResult`."""
    headers = checked_headers(request.headers)
    method = path = params = body = None
    if request.method != context.upstream_method:
        method = _checked_method(request.method)
    if request.path != context.path:
        path = _checked_path(request.path)
    if request.params != context.params:
        params = _checked_params(request.params)
    if request.body != (context.body or b""):
        body, mime = encoded_body(request.body)
        remove_unchanged(headers, context.headers, BODY_FIELDS)
        if mime and mime != BYTES:  # bytes may be packed, and of any type
            remove_unchanged(headers, context.headers, (hdrs.CONTENT_ENCODING,))
            headers.setdefault(hdrs.CONTENT_TYPE, mime)
    return RequestChanges(headers, method, path, params, body)


def _checked_method(method: Any) -> str:
    if not isinstance(method, str) or not _METHOD.fullmatch(method) or method in NOT_PROXIED_METHODS:
        names = " and ".join(sorted(NOT_PROXIED_METHODS))
        raise InvalidResult(
            f"request.method must be a method in capitals such as PUT, and not {names}: {method!r:.100}"
        )
    return method


def _checked_path(path: Any) -> str:
    if not isinstance(path, str) or not path.startswith("/"):
        raise InvalidResult(f"request.path must be a text that begins with a slash: {path!r:.100}")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InvalidResult(f"request.path must be valid text: {path!r:.100}") from None
    # Once more than it is encoded: an upstream that decodes twice must not see them either.
    if _CONTROLS.search(path) or _CONTROLS.search(unquote(path)) or has_dot_segment(path):
        raise InvalidResult(
            "request.path must be without dot segments, backslashes and control characters: "
            f"{path!r:.100}"
        )
    return path


def _checked_params(params: Any) -> dict[str, list[str]]:
    if not isinstance(params, Mapping):
        raise InvalidResult("request.params must be a mapping of names to lists of texts")
    checked = {}
    for name, value in params.items():
        values = [value] if isinstance(value, str) else value
        texts = isinstance(values, list | tuple) and all(isinstance(text, str) for text in values)
        if not isinstance(name, str) or not texts:
            raise InvalidResult(f"request.params[{name!r:.100}] must be a text or a list of texts")
        checked[name] = list(values)
    try:
        urlencode(checked, doseq=True)
    except UnicodeEncodeError:
        raise InvalidResult("request.params must be valid text") from None
    return checked


# -- the response


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
