"""Runs the `tests:` of a route: a request in; a response, callouts, records and headers out.

The request passes the real steps of the route; the upstream and what scripts call are stubs.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote, urlencode

from aiohttp import hdrs, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from gateway.auth.authenticator import Auth
from gateway.auth.principals import JWT
from gateway.auth.request import Caller, IncomingRequest
from gateway.domain.path_template import RouteTemplate
from gateway.domain.template_segments import fill_variables
from gateway.endpoints.routing.conditions import are_met, example_host
from gateway.endpoints.routing.loading.plugin import AnyRoutePlugin
from gateway.endpoints.routing.loading.route_builder import REQUEST, RESPONSE
from gateway.endpoints.routing.loading.stubbed_upstream import StubbedUpstream
from gateway.endpoints.routing.model import Next, RequestContext, Route, RouteScript
from gateway.endpoints.routing.scripts.compiler import make_script
from gateway.endpoints.routing.scripts.steps import ScriptSteps
from gateway.endpoints.routing.steps.in_flight import RouteCounters
from gateway.endpoints.routing.steps.route_steps import RouteSteps
from gateway.endpoints.routing.table import MethodNotAllowed, NoRoute
from gateway.endpoints.routing.websocket.websockets import check_request
from gateway.endpoints.routing.websocket_handshake import is_websocket
from gateway.errors import Refusal
from gateway.http.cors import preflight_method
from gateway.http.responses import GatewayResponse, Response, refusal_response
from gateway.plugins.route_models import RouteExpectModel, RouteRequestModel, RouteTestModel, SentModel
from gateway.plugins.scripting.executor import ScriptExecutor
from gateway.plugins.scripting.values import Configs
from gateway.plugins.stubs import Stubs, body_bytes, is_body
from gateway.plugins.testing import MAX_TEST_SECONDS, TestResult, run_tests, script_failure
from gateway.settings import Settings

REQUEST_ID: Final = "0" * 16
"""The id of the requests of tests."""

NOT_AUTHORIZED: Final = (
    "this test names no caller, so authorization was skipped: add to its request `principal: null` for"
    " an unknown caller, or a caller such as `principal: {name: ada}`"
)
"""Added to the failures of a test that seems to expect a refusal by authorization."""

_SCRIPT_FAILURES: Final = frozenset({"internal", "gateway_timeout", "records_unavailable"})
"""Codes of refusals that a failing script causes; the exception is their cause."""


async def run_route_tests(
    plugin: AnyRoutePlugin, configs: Configs, executor: ScriptExecutor
) -> list[TestResult]:
    """Run all tests of a route in `executor`; `configs` are those of the folders."""
    run_test = functools.partial(_run_test, plugin, executor)
    return await run_tests(plugin.route.name, plugin.document, plugin.tests, configs, run_test)


async def _run_test(
    plugin: AnyRoutePlugin, executor: ScriptExecutor, test: RouteTestModel, stubs: Stubs
) -> list[str]:
    failures = await _find_failures(plugin, executor, test, stubs)
    if failures and _is_about_authorization(plugin.route, test):
        failures.append(NOT_AUTHORIZED)
    return failures


async def _find_failures(
    plugin: AnyRoutePlugin, executor: ScriptExecutor, test: RouteTestModel, stubs: Stubs
) -> list[str]:
    try:
        await stubs.fill()
        served = plugin.route_of(test)
    except (ValueError, Refusal) as error:
        return [f"it cannot begin: {error}"]
    sent_headers: Mapping[str, str] = {}
    upstream = StubbedUpstream(test.upstream)
    reason = ""
    try:
        route, counters = _route(plugin, served, test, stubs), RouteCounters()
        for _ in range(test.request.repeat):
            context = _context(route, test.request)
            sent_headers = context.headers
            response, reason = await _respond(context, upstream, executor, counters)
            sent_headers = context.headers  # a script may have replaced them
    except _ScriptFailed as failed:
        return [script_failure(failed.error)]
    failures = _failures(test.expect, response, reason)
    failures += [
        f"the response violates its schema: {fault.pointer or 'the body'} {fault.message}"
        for fault in context.response_faults
    ]
    failures += _wrong_headers("header", test.expect.headers, sent_headers)
    failures += _wrong_headers("response header", test.expect.response_headers, response.headers)
    return [*failures, *_sent_failures(test.expect.sent, upstream)]


class _ScriptFailed(Exception):
    """A script of the route failed with `error`."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _is_about_authorization(route: Route, test: RouteTestModel) -> bool:
    """Tell whether a test expects 403 and names no caller, on a route that authorizes."""
    return test.expect.status == 403 and not _is_authorized(test) and route.auth != "none"


def _is_authorized(test: RouteTestModel) -> bool:
    """Tell whether a test names its caller, or expects 401: then an unknown one calls."""
    return "principal" in test.request.model_fields_set or test.expect.status == 401


async def _respond(
    context: RequestContext,
    upstream: StubbedUpstream,
    executor: ScriptExecutor,
    counters: RouteCounters,
) -> tuple[GatewayResponse, str]:
    """Return the response, and why it is a refusal. Raises `_ScriptFailed`."""

    async def run_script(
        function: Callable[[], Awaitable[Any]],
        timeout: float,  # noqa: ASYNC109
    ) -> Any:
        return await executor.call_script(function, min(timeout, MAX_TEST_SECONDS))

    try:
        if not are_met(context.route.conditions, context.incoming):
            raise NoRoute
        method = preflight_method(context.request) or context.request.method
        if not context.route.allows(method):
            raise MethodNotAllowed(context.route.methods)
        scripts = ScriptSteps(run_script, str, upstream.fetch_whole)
        steps = RouteSteps(_auth(context), scripts, _checking_handshakes(upstream), None, None, counters)
        return await steps.respond(context), ""
    except Refusal as refusal:
        if refusal.code in _SCRIPT_FAILURES and refusal.__cause__ is not None:
            raise _ScriptFailed(refusal.__cause__) from None
        return refusal_response(refusal), f" ({refusal.code}: {refusal.message})"


def _checking_handshakes(upstream: Next) -> Next:
    """Return `upstream` behind the checks of WebSocket handshakes."""

    async def ask(context: RequestContext) -> GatewayResponse:
        if is_websocket(context.incoming.headers):
            check_request(context, None)
        return await upstream(context)

    return ask


def _route(plugin: AnyRoutePlugin, served: Route, test: RouteTestModel, stubs: Stubs) -> Route:
    """Return the route with the stubs behind its scripts, open to all if the test names no caller."""
    context = stubs.script_context(plugin.document, plugin.route.name)

    def script(key: str) -> RouteScript | None:
        code = plugin.codes.get(key)
        return make_script(code, context, plugin.document, key) if code is not None else None

    route = replace(served, request_script=script(REQUEST), response_script=script(RESPONSE))
    if _is_authorized(test):
        return route
    return replace(route, auth="none", scopes=(), groups=())


def _auth(context: RequestContext) -> Auth:
    """Return an authorization that requires a token, or accepts the JSON Web Token of the caller."""
    caller = context.incoming.caller
    principal = caller.principal if caller else None
    mode = JWT if principal is not None and principal["kind"] == JWT else "token"
    return Auth(Settings(auth=mode), ())


def _context(route: Route, model: RouteRequestModel) -> RequestContext:
    headers = CIMultiDict(model.headers)
    if isinstance(model.body, dict | list):
        headers.setdefault("Content-Type", "application/json")
    if model.host is not None or route.conditions.hosts:
        headers.setdefault(hdrs.HOST, model.host or example_host(route.conditions))
    path = model.path or fill_variables(route.path, lambda name: model.resources.get(name, name))
    resources = model.resources or RouteTemplate.parse(route.path).values_of(path)
    incoming = IncomingRequest(_request(model, path, headers))
    incoming.caller = Caller(_principal(route, model))
    incoming.facts.request_id = REQUEST_ID
    return RequestContext(
        incoming=incoming,
        route=route,
        operation=route.operation(model.method),
        resources=dict(resources),
        raw_resources={name: quote(value) for name, value in resources.items()},
        params={name: list(values) for name, values in model.params.items()},
        headers=CIMultiDict(headers),
        remote=model.remote,
        path=path,
    )


def _request(model: RouteRequestModel, path: str, headers: CIMultiDict[str]) -> web.Request:
    query = urlencode(model.params, doseq=True)
    target = quote(path) + (f"?{query}" if query else "")
    sent, payload = CIMultiDict(headers), EMPTY_PAYLOAD
    if model.body is not None:
        content = body_bytes(model.body)
        sent["Content-Length"] = str(len(content))
        payload = _payload(content)
    return make_mocked_request(model.method, target, sent, payload=payload)


def _payload(content: bytes) -> StreamReader:
    loop = asyncio.get_running_loop()
    reader = StreamReader(BaseProtocol(loop), max(len(content), 1), loop=loop)
    reader.feed_data(content)
    reader.feed_eof()
    return reader


def _principal(route: Route, model: RouteRequestModel) -> dict[str, Any] | None:
    """Return the principal of a test; the kind that a test may leave out is the one the route needs."""
    if model.principal is None:
        return None
    kind = JWT if route.auth == JWT or route.scopes or route.groups else "token"
    return {"kind": kind, **model.principal}


def _failures(expect: RouteExpectModel, response: GatewayResponse, reason: str) -> list[str]:
    failures = []
    status = response.status
    body = response.body if isinstance(response, Response) and isinstance(response.body, bytes) else b""
    if expect.status is None and status >= 400:
        failures.append(f"it answered {status}{reason}")
    if expect.status not in (None, status):
        failures.append(f"status is {status}{reason}, expected {expect.status}")
    if "output" in expect.model_fields_set and not is_body(expect.output, body):
        failures.append(f"output is {body[:1000]!r}, expected {expect.output!r}")
    return failures


def _wrong_headers(
    what: str, expected: Mapping[str, str | None] | None, headers: Mapping[str, str]
) -> Iterator[str]:
    for name, value in (expected or {}).items():
        if headers.get(name) != value:
            yield f"{what} {name} is {headers.get(name)!r}, expected {value!r}"


def _sent_failures(expected: SentModel | None, upstream: StubbedUpstream) -> Iterator[str]:
    if expected is None:
        return
    if upstream.sent is None:
        yield "nothing was sent to the upstream"
        return
    for name in ("method", "target"):
        wanted, sent = getattr(expected, name), getattr(upstream.sent, name)
        if wanted not in (None, sent):
            yield f"{name} sent is {sent!r}, expected {wanted!r}"
    if "body" in expected.model_fields_set and not is_body(expected.body, upstream.body):
        yield f"body sent is {upstream.body[:1000]!r}, expected {expected.body!r}"
