"""The steps that run a route's scripts, before and after the upstream.

A script gets copies and runs in an executor; its changes count once it has succeeded. What cannot be
converted to a response is a 500, with the place in the log only, never half a response.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeVar

from aiohttp import hdrs
from multidict import CIMultiDict

from gateway.auth.authenticator import INTERNAL
from gateway.endpoints.routing.model import Next, RequestContext, RouteScript
from gateway.errors import TABLE, GatewayError, RecordsUnavailable, Refusal
from gateway.http.responses import GatewayResponse, Response
from gateway.plugins.scripting.callout import HTTPError
from gateway.plugins.scripting.decision import BYTES, JSON, TEXT, InvalidResult
from gateway.plugins.scripting.executor_thread import TimedOut
from gateway.plugins.scripting.trace import place_of_error, plugin_traceback
from gateway.telemetry import logs
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.routing")

T = TypeVar("T")

MAX_RESPONSE_BYTES: Final = 64 << 20
"""Bytes of an upstream's response that a script may read (as those of a `callout`)."""

RunScript = Callable[[Callable[[], Awaitable[Any]], float], Awaitable[Any]]
"""Runs a function in the executor of routes, for at most so many seconds."""

FetchWhole = Callable[[RequestContext, int], Awaitable[tuple[int, CIMultiDict[str], bytes]]]
"""Sends a request to the upstream; returns status, headers and at most so many bytes of body."""

_CODES: Final = {status: code for code, status in reversed(list(TABLE.items()))}
"""The first code of the error table for a status."""

_FRAMING: Final = (hdrs.CONTENT_LENGTH, hdrs.TRANSFER_ENCODING, hdrs.CONNECTION)
_BREAKS: Final = frozenset("\r\n\0")
_TOKEN: Final = frozenset(
    "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)


@dataclass(slots=True)
class ScriptRequest:
    """`request` as a script sees it. `headers` may be changed: they go upstream."""

    method: str
    path: str
    headers: CIMultiDict[str]
    params: dict[str, list[str]]
    resources: dict[str, str]
    body: bytes = b""
    principal: dict[str, Any] | None = None
    remote: str | None = None


@dataclass(slots=True)
class ScriptResponse:
    """`response` as a script sees it: the upstream's response; all of it may be changed."""

    code: int
    headers: CIMultiDict[str]
    body: Any


def script_request(context: RequestContext) -> ScriptRequest:
    """Return `request` for the scripts of a request; it shares nothing with it."""
    return ScriptRequest(
        method=context.request.method,
        path=context.path,
        headers=CIMultiDict(context.headers),
        params={name: list(values) for name, values in context.params.items()},
        resources=dict(context.resources),
        body=context.body or b"",
        principal=None if context.principal is None else dict(context.principal),
        remote=context.remote,
    )


class ScriptSteps:
    """Both steps. `mask` takes secret values out of texts for the log."""

    def __init__(self, run: RunScript, mask: Callable[[str], str], fetch: FetchWhole) -> None:
        self._run = run
        self._mask = mask
        self._fetch = fetch

    async def before(self, context: RequestContext, call_next: Next) -> GatewayResponse:
        """Run `request_script`: what it returns is the response; None continues."""
        script = context.route.request_script
        if script is None:
            return await call_next(context)
        request = script_request(context)

        def convert(value: Any) -> Response | CIMultiDict[str]:
            return checked_headers(request.headers) if value is None else response_of(value)

        outcome = await self._run_script(context, script, lambda: script.function(request), convert)
        if isinstance(outcome, Response):
            return outcome
        context.headers = outcome
        return await call_next(context)

    async def after(self, context: RequestContext, call_next: Next) -> GatewayResponse:
        """Run `response_script` on the upstream's response, or on an empty 204."""
        script = context.route.response_script
        if script is None:
            return await call_next(context)
        status, headers, body = 204, CIMultiDict[str](), b""
        if context.route.upstreams:
            status, headers, body = await self._fetch(context, MAX_RESPONSE_BYTES)
        request = script_request(context)
        response = ScriptResponse(status, CIMultiDict(headers), body)

        def convert(value: Any) -> Response:
            changed = (response.code, response.body, response.headers)
            return response_of(changed if value is None else value)

        make = lambda: script.function(request, response)  # noqa: E731
        return await self._run_script(context, script, make, convert)

    async def _run_script(
        self,
        context: RequestContext,
        script: RouteScript,
        make: Callable[[], Awaitable[Any]],
        convert: Callable[[Any], T],
    ) -> T | Response:
        """Run a script and convert its value. Raises `Refusal` for what fails in it."""
        try:
            return convert(await self._run(make, context.route.limits.script))
        except HTTPError as error:
            return self._error_response(context, script, error)
        except Refusal:
            raise
        except Exception as error:
            self._report(context, script, error)
            raise self._refusal(context, error) from error

    def _refusal(self, context: RequestContext, error: Exception) -> Refusal:
        if isinstance(error, TimedOut):
            return Refusal("gateway_timeout", f"the script of this path took too long{_log_reference()}")
        if isinstance(error, RecordsUnavailable):
            message = f"what this path needs cannot be reached now{_log_reference()}"
            return Refusal("records_unavailable", message)
        message = f"the script of this path failed{_log_reference()}"
        if context.principal == INTERNAL:  # a handler of this installation reads the reason too
            message += f": {self._mask(f'{type(error).__name__}: {error}')}"
        return Refusal("internal", message)

    def _error_response(
        self, context: RequestContext, script: RouteScript, error: HTTPError
    ) -> Response:
        try:
            return response_of_error(error)
        except InvalidResult as invalid:
            self._report(context, script, invalid, error)
            raise Refusal("internal", f"the script of this path failed{_log_reference()}") from invalid

    def _report(
        self,
        context: RequestContext,
        script: RouteScript,
        error: Exception,
        raised: Exception | None = None,
    ) -> None:
        """Log what a script did, with the plugin's own frames and without secrets."""
        place = place_of_error(raised or error)
        shown = f"{place[0]}:{place[1]}" if place else script.place
        if isinstance(error, TimedOut) and error.place:
            shown = error.place
        own = isinstance(error, GatewayError | TimedOut)
        message = str(error) if own else f"{type(error).__name__}: {error}"
        traceback = "" if own else f"\n{plugin_traceback(error).rstrip()}"
        fields = {"route": context.route.name, "place": shown, "outcome": self._mask(message)}
        log.error("script failed%s", self._mask(traceback), extra=event("script.failed", **fields))


def _log_reference() -> str:
    """Return the words that connect the client's response with the log."""
    request_id = logs.bound_fields().get("request_id")
    return f"; the server log has details under {request_id}" if request_id else ""


# -- results of scripts


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


def _response(code: Any, body: Any, headers: Any) -> Response:
    """Return a response whose length is computed anew."""
    if not isinstance(code, int) or isinstance(code, bool) or not 200 <= code <= 599:
        raise InvalidResult("the status of a response is a whole number from 200 to 599")
    content, mime = _encoded(body)
    fields = checked_headers(headers)
    if mime:
        fields.setdefault("Content-Type", mime)
    for name in _FRAMING:
        fields.popall(name, None)
    return Response(status=int(code), body=content or None, headers=fields)


def _encoded(body: Any) -> tuple[bytes, str | None]:
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
        name = type(error).__name__
        raise InvalidResult(f"the body of the response cannot be encoded: {name}") from None
    name = type(body).__name__
    raise InvalidResult(f"the body of a response is str, dict, list, bytes or None, not {name}")
