"""The steps that run a route's scripts, before the upstream and after it.

One rule: a script gets copies and runs in a lane; its changes count once it has ended well. What it
leaves that has no meaning is our 500, with the place in the log only.
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
from gateway.plugins.scripting import HTTPError, InvalidResult, TimedOut
from gateway.plugins.scripting.trace import place_of_error, plugin_traceback
from gateway.telemetry import logs

log = logging.getLogger("gateway.routing")

LARGEST_ANSWER = 64 << 20
"""Bytes of an upstream's answer that a script may look at (as those of a `callout`)."""

Run = Callable[[Callable[[], Awaitable[Any]], float], Awaitable[Any]]
"""Runs a function in the lane of work, for so many seconds at the most."""

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
    """`response` as a script sees it: the upstream's answer; all of it may be changed."""

    code: int
    headers: CIMultiDict[str]
    body: Any


class FetchResponse(Protocol):
    """Asks the upstream and reads its answer to the end."""

    async def __call__(
        self, exchange: RequestContext, limit: int
    ) -> tuple[int, CIMultiDict[str], bytes]:
        """Return status, headers and body. Raises `Refusal`."""
        ...


def script_request(exchange: RequestContext) -> ScriptRequest:
    """Return `request` for the scripts of an exchange; it shares nothing with it."""
    return ScriptRequest(
        method=exchange.request.method,
        path=exchange.path,
        headers=CIMultiDict(exchange.headers),
        params={name: list(values) for name, values in exchange.params.items()},
        resources=dict(exchange.resources),
        body=exchange.body or b"",
        principal=None if exchange.principal is None else dict(exchange.principal),
        remote=exchange.remote,
    )


class ScriptSteps:
    """Both steps. `mask` takes secret values out of texts for the log."""

    def __init__(self, run: Run, mask: Mask, fetch: FetchResponse) -> None:
        self._run = run
        self._mask = mask
        self._fetch = fetch

    async def before(self, exchange: RequestContext, following: Next) -> GatewayResponse:
        """Run `request_script`: what it returns is the answer, None goes on."""
        process = exchange.route.request_process
        if process is None:
            return await following(exchange)
        request = script_request(exchange)

        def judge(value: Any) -> ScriptReply | CIMultiDict[str]:
            return checked_headers(request.headers) if value is None else reply_of(value)

        outcome = await self._outcome(exchange, process, lambda: process.function(request), judge)
        if isinstance(outcome, ScriptReply):
            return answer_of(outcome)
        exchange.headers = outcome
        return await following(exchange)

    async def after(self, exchange: RequestContext, following: Next) -> GatewayResponse:
        """Run `response_script` on the upstream's answer, or on an empty 204."""
        process = exchange.route.response_process
        if process is None:
            return await following(exchange)
        status, headers, body = 204, CIMultiDict[str](), b""
        if exchange.route.upstreams:
            status, headers, body = await self._fetch(exchange, LARGEST_ANSWER)
        request = script_request(exchange)
        response = ScriptResponse(status, CIMultiDict(headers), body)

        def judge(value: Any) -> ScriptReply:
            return changed(response) if value is None else reply_of(value)

        make = lambda: process.function(request, response)  # noqa: E731
        return answer_of(await self._outcome(exchange, process, make, judge))

    async def _outcome(
        self,
        exchange: RequestContext,
        process: Process,
        make: Callable[[], Awaitable[Any]],
        judge: Callable[[Any], Any],
    ) -> Any:
        """Run a script and judge its value. Raises Refusal for whatever goes wrong in it."""
        try:
            return judge(await self._run(make, exchange.route.limits.script))
        except HTTPError as error:
            return self._error_reply(exchange, process, error)
        except Refusal:
            raise
        except TimedOut as error:
            self._report(exchange, process, error)
            raise Refusal("gateway_timeout", f"the script of this path took too long{_id()}") from error
        except RecordsUnavailable as error:
            self._report(exchange, process, error)
            raise Refusal(
                "records_unavailable", f"what this path needs cannot be reached now{_id()}"
            ) from error
        except Exception as error:
            self._report(exchange, process, error)
            raise Refusal("internal", self._failure(exchange, error)) from error

    def _failure(self, exchange: RequestContext, error: Exception) -> str:
        """Say that a script failed; to a handler of this installation also why: its event tells."""
        text = f"the script of this path failed{_id()}"
        if exchange.principal != INTERNAL:
            return text
        return f"{text}: {self._mask(f'{type(error).__name__}: {error}')}"

    def _error_reply(self, exchange: RequestContext, process: Process, error: HTTPError) -> ScriptReply:
        try:
            return reply_of_error(error)
        except InvalidResult as junk:
            self._report(exchange, process, junk, error)
            raise Refusal("internal", f"the script of this path failed{_id()}") from junk

    def _report(
        self,
        exchange: RequestContext,
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
        facts = {"route": exchange.route.name, "place": shown, "outcome": self._mask(message)}
        log.error("script failed%s", self._mask(traceback), extra={"facts": facts})


def changed(response: ScriptResponse) -> ScriptReply:
    """Return the upstream's answer as a script left it. Raises `InvalidResult`."""
    return reply_of((response.code, response.body, response.headers))


def answer_of(reply: ScriptReply) -> Response:
    """Return a reply as HTTP; the length is counted anew."""
    headers = _without_length(reply.headers)
    return Response(status=reply.code, body=reply.body or None, headers=headers)


def _without_length(headers: Mapping[str, str]) -> CIMultiDict[str]:
    kept = CIMultiDict(headers)
    for name in (hdrs.CONTENT_LENGTH, hdrs.TRANSFER_ENCODING, hdrs.CONNECTION):
        kept.popall(name, None)
    return kept


def _id() -> str:
    """What connects the client's answer with the log."""
    known = logs.bound_fields().get("request_id")
    return f"; its log knows more under {known}" if known else ""
