"""Runs the `tests:` of a routing plugin: request in, expected answer out.

One rule: a test meets the real schemas and the real scripts, in a lane; callouts and the upstream
are stubs, nothing is sent.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from multidict import CIMultiDict

from gateway.domain.path_template import fill_variables
from gateway.endpoints.routing.plugin import REQUEST, RESPONSE, RoutePlugin
from gateway.endpoints.routing.script_compiler import FUNCTION
from gateway.endpoints.routing.script_results import (
    ScriptReply,
    checked_headers,
    reply_of,
    reply_of_error,
)
from gateway.endpoints.routing.script_steps import ScriptRequest, ScriptResponse, changed
from gateway.endpoints.routing.validate import body_faults, header_faults, refusal_of
from gateway.errors import Refusal
from gateway.http.responses import refusal_response
from gateway.plugins.handlers import surroundings
from gateway.plugins.models import AnswerModel
from gateway.plugins.route_models import RouteCaseModel, RouteExpectModel, RouteRequestModel
from gateway.plugins.scripting import (
    Configs,
    HTTPError,
    ScriptContext,
    ScriptExecutor,
    Services,
    run_script,
)
from gateway.plugins.test_records import judge_records, keep
from gateway.plugins.testing import LONGEST_SECONDS, StubbedCallout, TestResult, failure, judge_callouts


async def run_tests(plugin: RoutePlugin, lane: ScriptExecutor) -> list[TestResult]:
    """Run all tests of a routing plugin in `lane`, one after the other."""
    outcomes = []
    for index, case in enumerate(plugin.tests):
        faults = await _run_case(plugin, case, lane)
        place = f"{plugin.document.file}:{plugin.document.line('tests', index)}"
        outcomes.append(TestResult(plugin.route.name, case.name, place, tuple(faults)))
    return outcomes


async def _run_case(plugin: RoutePlugin, case: RouteCaseModel, lane: ScriptExecutor) -> list[str]:
    request, callout = _request(plugin, case.request), StubbedCallout(case.callout)
    route, configs = plugin.route, Configs(case.configs)
    services = Services()
    around = surroundings(plugin.document, route.name, configs, {}, services)
    asked = _Case(plugin, case, request, replace(around, callout=callout))
    limit = min(route.limits.script * 2, LONGEST_SECONDS)
    try:
        await keep(services.records, case.records)
        reply = asked.refused()
        if reply is None:
            reply = await lane.call(asked.run, limit)
    except Exception as error:
        return [failure(error), *judge_callouts(case.expect.callouts, callout)]
    return [
        *_judge(case.expect, reply, request),
        *judge_callouts(case.expect.callouts, callout),
        *await judge_records(case.expect.records, services.records),
    ]


class _Case:
    """One test on its way through the steps."""

    def __init__(
        self, plugin: RoutePlugin, case: RouteCaseModel, request: ScriptRequest, around: ScriptContext
    ) -> None:
        self._plugin = plugin
        self._case = case
        self._request = request
        self._around = around

    def refused(self) -> ScriptReply | None:
        """Return the refusal of a request that the route would not let in, or None."""
        route, method = self._plugin.route, self._request.method
        if not route.takes(method):
            return _reply_of_refusal(Refusal("method_not_allowed", "this path does not take it"))
        operation = route.operation(method)
        for name, value in (operation.defaults if operation else {}).items():
            self._request.headers.setdefault(name, value)
        faults = header_faults(operation, self._request.headers)
        faults += body_faults(operation, self._request.body)
        return _reply_of_refusal(refusal_of(faults)) if faults else None

    async def run(self) -> ScriptReply:
        """Run both scripts around the stubbed upstream, as the steps do."""
        try:
            return await self._request_script() or await self._response_script()
        except HTTPError as error:
            return reply_of_error(error)

    async def _request_script(self) -> ScriptReply | None:
        if REQUEST not in self._plugin.codes:
            return None
        value = await self._function(REQUEST)(self._request)
        if value is None:
            checked_headers(self._request.headers)
            return None
        return reply_of(value)

    async def _response_script(self) -> ScriptReply:
        upstream = _upstream(self._plugin, self._case.upstream)
        if RESPONSE not in self._plugin.codes:
            return upstream
        response = ScriptResponse(upstream.code, upstream.headers, upstream.body)
        value = await self._function(RESPONSE)(self._request, response)
        return changed(response) if value is None else reply_of(value)

    def _function(self, key: str) -> Any:
        return run_script(self._plugin.codes[key], self._around)[FUNCTION]


def _request(plugin: RoutePlugin, model: RouteRequestModel) -> ScriptRequest:
    headers = CIMultiDict(model.headers)
    if isinstance(model.body, dict | list):
        headers.setdefault("Content-Type", "application/json")
    return ScriptRequest(
        method=model.method,
        path=model.path or _path(plugin.route.path, model.resources),
        headers=headers,
        params={name: list(values) for name, values in model.params.items()},
        resources=dict(model.resources),
        body=_bytes(model.body),
        principal=model.principal,
        remote="192.0.2.1",
    )


def _path(template: str, resources: dict[str, str]) -> str:
    return fill_variables(template, lambda name: resources.get(name, name))


def _bytes(body: Any) -> bytes:
    if body is None:
        return b""
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def _upstream(plugin: RoutePlugin, answer: AnswerModel) -> ScriptReply:
    if not plugin.route.upstreams:
        return ScriptReply(204)
    return ScriptReply(answer.code, _bytes(answer.body), CIMultiDict(answer.headers))


def _reply_of_refusal(refusal: Refusal) -> ScriptReply:
    answer = refusal_response(refusal)
    return ScriptReply(answer.status, (answer.text or "").encode())


def _judge(expect: RouteExpectModel, reply: ScriptReply, request: ScriptRequest) -> list[str]:
    faults = []
    if expect.status is None and reply.code >= 400:
        faults.append(f"it answered {reply.code}")
    if expect.status not in (None, reply.code):
        faults.append(f"status is {reply.code}, expected {expect.status}")
    if "output" in expect.model_fields_set and not _same(expect.output, reply.body):
        faults.append(f"output is {reply.body[:1000]!r}, expected {expect.output!r}")
    for name, value in (expect.headers or {}).items():
        if request.headers.get(name) != value:
            faults.append(f"header {name} is {request.headers.get(name)!r}, expected {value!r}")
    return faults


def _same(expected: Any, body: bytes) -> bool:
    if expected is None or isinstance(expected, str):
        return body == _bytes(expected)
    try:
        return bool(json.loads(body) == expected)
    except ValueError:
        return False
