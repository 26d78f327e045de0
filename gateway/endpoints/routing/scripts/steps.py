"""The steps that run a route's scripts, before and after the upstream.

A script gets copies and runs in an executor; its changes count once it has succeeded. What cannot be
converted to a response is a 500, with the place in the log only, never half a response.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from multidict import CIMultiDict

from gateway.auth.principals import INTERNAL
from gateway.endpoints.routing.model import Next, RequestContext, RouteScript
from gateway.endpoints.routing.proxy.response import ProxyResponse
from gateway.endpoints.routing.scripts.request import (
    RequestChanges,
    ScriptRequest,
    request_changes,
    script_request,
    unpack_request,
)
from gateway.endpoints.routing.scripts.values import (
    BODY_FIELDS,
    ScriptResponse,
    changed_head,
    remove_unchanged,
    response_of,
    response_of_error,
)
from gateway.endpoints.routing.websocket_handshake import is_websocket
from gateway.errors import GatewayError, RecordsUnavailable, Refusal
from gateway.http.responses import GatewayResponse, Response
from gateway.plugins.handler_spans import begin_script, fail_at
from gateway.plugins.scripting.callout import HTTPError
from gateway.plugins.scripting.calls import TimedOut
from gateway.plugins.scripting.decision import InvalidResult
from gateway.plugins.scripting.trace import place_of_error, plugin_traceback
from gateway.telemetry import logs, tracing
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.routing")

T = TypeVar("T")

MAX_RESPONSE_BYTES: Final = 64 << 20
"""Bytes of an upstream's response that a script may read (as those of a `callout`)."""

RunScript = Callable[[Callable[[], Awaitable[Any]], float], Awaitable[Any]]
"""Runs a function in the executor of routes, for at most so many seconds."""

FetchWhole = Callable[[RequestContext, int], Awaitable[tuple[int, CIMultiDict[str], bytes]]]
"""Sends a request to the upstream; returns status, headers and at most so many bytes of body."""


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
        request = await _script_request(context, script)

        def convert(value: Any) -> Response | RequestChanges:
            return request_changes(request, context) if value is None else response_of(value)

        outcome = await self._run_script(context, script, lambda: script.function(request), convert)
        if isinstance(outcome, Response):
            return outcome
        outcome.apply(context)
        return await call_next(context)

    async def after(self, context: RequestContext, call_next: Next) -> GatewayResponse:
        """Run `response_script` on the upstream's response, or on an empty 204.

        Not on the response to a WebSocket handshake, which is no more than its head.
        """
        script = context.route.response_script
        if script is None or is_websocket(context.incoming.headers):
            return await call_next(context)
        if context.route.upstreams and not script.reads_response:
            return await self._change_head(context, script, call_next)
        request = await _script_request(context, script)
        status, headers, body = 204, CIMultiDict[str](), b""
        if context.route.upstreams:
            status, headers, body = await self._fetch(context, MAX_RESPONSE_BYTES)
        response = ScriptResponse(status, CIMultiDict(headers), body)

        def convert(value: Any) -> Response:
            if value is not None:
                return response_of(value)
            changed = response_of((response.code, response.body, response.headers))
            if (changed.body or b"") != body:
                remove_unchanged(changed.headers, headers, BODY_FIELDS)
            return changed

        make = lambda: script.function(request, response)  # noqa: E731
        return await self._run_script(context, script, make, convert)

    async def _change_head(
        self, context: RequestContext, script: RouteScript, call_next: Next
    ) -> GatewayResponse:
        """Run a script that does not read the body: the upstream's body streams behind its changes."""
        request = await _script_request(context, script)
        upstream = await call_next(context)
        response = ScriptResponse(upstream.status, CIMultiDict(upstream.headers), b"")

        def convert(value: Any) -> Response | tuple[int, CIMultiDict[str]]:
            return changed_head(response, upstream) if value is None else response_of(value)

        try:
            make = lambda: script.function(request, response)  # noqa: E731
            outcome = await self._run_script(context, script, make, convert)
        except BaseException:
            await _discard(upstream)
            raise
        if isinstance(outcome, Response):
            await _discard(upstream)
            return outcome
        status, headers = outcome
        if status != upstream.status:
            upstream.set_status(status)
        upstream.headers.clear()
        upstream.headers.extend(headers)
        return upstream

    async def _run_script(
        self,
        context: RequestContext,
        script: RouteScript,
        make: Callable[[], Awaitable[Any]],
        convert: Callable[[Any], T],
    ) -> T | Response:
        """Run a script and convert its value. Raises `Refusal` for what fails in it."""
        span = begin_script(context.route.name, context.incoming.facts.span)
        try:
            with tracing.use(span):
                value = await self._run(make, context.route.limits.script)
            return convert(value)
        except HTTPError as error:
            span.set({"gateway.refused_status": error.code})
            return self._error_response(context, script, error)
        except Refusal:
            raise
        except Exception as error:
            fail_at(span, error, self._report(context, script, error))
            raise self._refusal(context, error) from error
        finally:
            span.end()

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
    ) -> str:
        """Log what a script did, with the plugin's own frames and without secrets; return the place."""
        place = place_of_error(raised or error)
        shown = f"{place[0]}:{place[1]}" if place else script.place
        if isinstance(error, TimedOut) and error.place:
            shown = error.place
        own = isinstance(error, GatewayError | TimedOut)
        message = str(error) if own else f"{type(error).__name__}: {error}"
        traceback = "" if own else f"\n{plugin_traceback(error).rstrip()}"
        fields = {"route": context.route.name, "place": shown, "outcome": self._mask(message)}
        log.error("script failed%s", self._mask(traceback), extra=event("script.failed", **fields))
        return shown


def _log_reference() -> str:
    """Return the words that connect the client's response with the log."""
    request_id = logs.bound_fields().get("request_id")
    return f"; the server log has details under {request_id}" if request_id else ""


async def _script_request(context: RequestContext, script: RouteScript) -> ScriptRequest:
    if script.reads_body:
        await unpack_request(context)
    return script_request(context)


async def _discard(response: GatewayResponse) -> None:
    """Close the connection of a response that is not sent."""
    if isinstance(response, ProxyResponse):
        await response.discard()
