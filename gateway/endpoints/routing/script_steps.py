"""The steps that run a route's scripts, before and after the upstream.

A script gets copies and runs in an executor; its changes count once it has succeeded. An invalid
result is a 500, with the place in the log only.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import hdrs
from multidict import CIMultiDict

from gateway.auth.authenticator import INTERNAL
from gateway.endpoints.routing.model import Next, Process, RequestContext
from gateway.endpoints.routing.script_results import (
    ScriptReply,
    checked_headers,
    reply_of,
    reply_of_error,
)
from gateway.errors import GatewayError, RecordsUnavailable, Refusal
from gateway.http.responses import GatewayResponse, Response
from gateway.plugins.scripting.callout import HTTPError
from gateway.plugins.scripting.decision import InvalidResult
from gateway.plugins.scripting.executor_thread import TimedOut
from gateway.plugins.scripting.trace import place_of_error, plugin_traceback
from gateway.telemetry import logs
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.routing")

MAX_RESPONSE_BYTES = 64 << 20
"""Bytes of an upstream's response that a script may read (as those of a `callout`)."""

Run = Callable[[Callable[[], Awaitable[Any]], float], Awaitable[Any]]
"""Runs a function in the executor of routes, for at most so many seconds."""

Mask = Callable[[str], str]


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


class FetchResponse(Protocol):
    """Sends the request to the upstream and reads its response to the end."""

    async def __call__(self, context: RequestContext, limit: int) -> tuple[int, CIMultiDict[str], bytes]:
        """Return status, headers and body. Raises `Refusal`."""
        ...


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

    def __init__(self, run: Run, mask: Mask, fetch: FetchResponse) -> None:
        self._run = run
        self._mask = mask
        self._fetch = fetch

    async def before(self, context: RequestContext, call_next: Next) -> GatewayResponse:
        """Run `request_script`: what it returns is the response; None continues."""
        process = context.route.request_process
        if process is None:
            return await call_next(context)
        request = script_request(context)

        def convert(value: Any) -> ScriptReply | CIMultiDict[str]:
            return checked_headers(request.headers) if value is None else reply_of(value)

        outcome = await self._run_script(context, process, lambda: process.function(request), convert)
        if isinstance(outcome, ScriptReply):
            return response_of(outcome)
        context.headers = outcome
        return await call_next(context)

    async def after(self, context: RequestContext, call_next: Next) -> GatewayResponse:
        """Run `response_script` on the upstream's response, or on an empty 204."""
        process = context.route.response_process
        if process is None:
            return await call_next(context)
        status, headers, body = 204, CIMultiDict[str](), b""
        if context.route.upstreams:
            status, headers, body = await self._fetch(context, MAX_RESPONSE_BYTES)
        request = script_request(context)
        response = ScriptResponse(status, CIMultiDict(headers), body)

        def convert(value: Any) -> ScriptReply:
            return reply_of_changed(response) if value is None else reply_of(value)

        make = lambda: process.function(request, response)  # noqa: E731
        return response_of(await self._run_script(context, process, make, convert))

    async def _run_script(
        self,
        context: RequestContext,
        process: Process,
        make: Callable[[], Awaitable[Any]],
        convert: Callable[[Any], Any],
    ) -> Any:
        """Run a script and convert its value. Raises `Refusal` for what fails in it."""
        try:
            return convert(await self._run(make, context.route.limits.script))
        except HTTPError as error:
            return self._error_reply(context, process, error)
        except Refusal:
            raise
        except TimedOut as error:
            self._report(context, process, error)
            raise Refusal("gateway_timeout", f"the script of this path took too long{_id()}") from error
        except RecordsUnavailable as error:
            self._report(context, process, error)
            raise Refusal(
                "records_unavailable", f"what this path needs cannot be reached now{_id()}"
            ) from error
        except Exception as error:
            self._report(context, process, error)
            raise Refusal("internal", self._failure_message(context, error)) from error

    def _failure_message(self, context: RequestContext, error: Exception) -> str:
        """Return what the client reads; a handler of this installation reads the reason too."""
        text = f"the script of this path failed{_id()}"
        if context.principal != INTERNAL:
            return text
        return f"{text}: {self._mask(f'{type(error).__name__}: {error}')}"

    def _error_reply(self, context: RequestContext, process: Process, error: HTTPError) -> ScriptReply:
        try:
            return reply_of_error(error)
        except InvalidResult as invalid:
            self._report(context, process, invalid, error)
            raise Refusal("internal", f"the script of this path failed{_id()}") from invalid

    def _report(
        self,
        context: RequestContext,
        process: Process,
        error: Exception,
        raised: Exception | None = None,
    ) -> None:
        """Log what a script did, with the plugin's own frames and without secrets."""
        place = place_of_error(raised or error)
        shown = f"{place[0]}:{place[1]}" if place else process.place
        if isinstance(error, TimedOut) and error.place:
            shown = error.place
        own = isinstance(error, GatewayError | TimedOut)
        message = str(error) if own else f"{type(error).__name__}: {error}"
        traceback = "" if own else f"\n{plugin_traceback(error).rstrip()}"
        fields = {"route": context.route.name, "place": shown, "outcome": self._mask(message)}
        log.error("script failed%s", self._mask(traceback), extra=event("script.failed", **fields))


def reply_of_changed(response: ScriptResponse) -> ScriptReply:
    """Return the upstream's response as a script left it. Raises `InvalidResult`."""
    return reply_of((response.code, response.body, response.headers))


def response_of(reply: ScriptReply) -> Response:
    """Return a reply as a response; its length is computed anew."""
    headers = _without_framing(reply.headers)
    return Response(status=reply.code, body=reply.body or None, headers=headers)


def _without_framing(headers: Mapping[str, str]) -> CIMultiDict[str]:
    kept = CIMultiDict(headers)
    for name in (hdrs.CONTENT_LENGTH, hdrs.TRANSFER_ENCODING, hdrs.CONNECTION):
        kept.popall(name, None)
    return kept


def _id() -> str:
    """Return the words that connect the client's response with the log."""
    request_id = logs.bound_fields().get("request_id")
    return f"; the server log has details under {request_id}" if request_id else ""
