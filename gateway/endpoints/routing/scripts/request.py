"""`request` as the scripts of routes see it, and what becomes of what they assign in it.

A script gets copies. What it leaves in them counts once all of it has been checked.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode

from aiohttp import hdrs
from multidict import CIMultiDict

from gateway.endpoints.routing.forwarding import has_dot_segment
from gateway.endpoints.routing.model import NOT_PROXIED_METHODS, RequestContext
from gateway.endpoints.routing.proxy.unpack import (
    TooLargeError,
    UnpackError,
    UnsupportedCodingError,
    codings,
    unpack,
)
from gateway.endpoints.routing.scripts.values import (
    BODY_FIELDS,
    checked_headers,
    encoded_body,
    remove_unchanged,
)
from gateway.errors import Refusal
from gateway.plugins.scripting.decision import BYTES, InvalidResult

READ_ONLY: Final = frozenset({"resources", "principal", "remote"})
"""What a script cannot assign in its request: nothing of it is sent to the upstream."""

_METHOD: Final = re.compile(r"[A-Z][A-Z0-9-]{0,31}")
_HOST: Final = re.compile(r"[A-Za-z0-9._~-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
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


async def unpack_request(context: RequestContext) -> None:
    """Unpack a body that was read, for scripts; the upstream gets the packed one.

    Raises `Refusal`: `unsupported_media_type`, `too_large`, `bad_request` for a damaged body, or as
    `Lease.extend`.
    """
    coding = ",".join(context.headers.getall(hdrs.CONTENT_ENCODING, ()))
    if not context.body or context.unpacked is not None or not codings(coding):
        return
    limit = context.route.limits.max_body
    try:
        context.unpacked = await asyncio.to_thread(unpack, context.body, coding, limit)
    except UnsupportedCodingError as error:
        accepted = {"Accept-Encoding": "gzip, deflate, identity"}  # RFC 9110 section 12.5.3
        raise Refusal("unsupported_media_type", f"the body is {error}", accepted) from error
    except UnpackError as error:
        code = "too_large" if isinstance(error, TooLargeError) else "bad_request"
        raise Refusal(code, f"the body is {error}") from error
    if context.buffered is not None:
        context.buffered.extend(len(context.unpacked))


def script_request(context: RequestContext) -> ScriptRequest:
    """Return `request` for the scripts of a request; it shares nothing with it."""
    headers = CIMultiDict(context.headers)
    if context.unpacked is not None:
        headers.popall(hdrs.CONTENT_ENCODING, None)
    return ScriptRequest(
        method=context.upstream_method,
        path=context.path,
        headers=headers,
        params={name: list(values) for name, values in context.params.items()},
        resources=dict(context.resources),
        body=_seen_body(context),
        principal=None if context.principal is None else dict(context.principal),
        remote=context.remote,
    )


def _seen_body(context: RequestContext) -> bytes:
    return (context.body or b"") if context.unpacked is None else context.unpacked


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
            context.body, context.unpacked = self.body, None


def request_changes(request: ScriptRequest, context: RequestContext) -> RequestChanges:
    """Return what a script has changed in its request. Raises `InvalidResult`."""
    headers = checked_headers(request.headers)
    if headers.getall(hdrs.HOST, []) != context.headers.getall(hdrs.HOST, []):
        _check_host(headers.getall(hdrs.HOST, []))
    if request.resources != context.resources:
        raise InvalidResult("request.resources cannot be changed: assign request.path")
    method = path = params = body = None
    if request.method != context.upstream_method:
        method = _checked_method(request.method)
    if request.path != context.path:
        path = _checked_path(request.path)
    if request.params != context.params:
        params = _checked_params(request.params)
    if request.body != _seen_body(context):
        body, mime = encoded_body(request.body)
        remove_unchanged(headers, context.headers, BODY_FIELDS)
        if mime and mime != BYTES:
            headers.setdefault(hdrs.CONTENT_TYPE, mime)
    elif context.unpacked is not None and hdrs.CONTENT_ENCODING not in headers:
        for coding in context.headers.getall(hdrs.CONTENT_ENCODING):
            headers.add(hdrs.CONTENT_ENCODING, coding)
    return RequestChanges(headers, method, path, params, body)


def _check_host(hosts: list[str]) -> None:
    if len(hosts) > 1 or not all(_HOST.fullmatch(host) for host in hosts):
        raise InvalidResult(f"request.headers['Host'] must be one host, or host:port: {hosts!r:.100}")


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
