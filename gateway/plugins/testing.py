"""Runs the `tests:` of plugins: the parts that handlers and routes share, and those of handlers.

The script is the real one and runs in an executor. What surrounds it are stubs of the test's own.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from gateway.domain.model import RECEIVED
from gateway.errors import ConfigError, Refusal
from gateway.plugins.default_events import event_of_test
from gateway.plugins.handler import Function, Handler
from gateway.plugins.models import DECIDING
from gateway.plugins.route_models import RouteTestModel
from gateway.plugins.scripting.decision import Handle, InvalidResult, read_changes, read_received
from gateway.plugins.scripting.executor import ScriptExecutor
from gateway.plugins.scripting.namespace import run_script
from gateway.plugins.scripting.trace import place_of_error
from gateway.plugins.scripting.values import Configs, Event
from gateway.plugins.stubs import Stubs
from gateway.plugins.testing_models import ExpectModel, HandlerTestModel
from gateway.plugins.webhooks.kind import WebhookCall
from gateway.plugins.yaml_documents import Document

PluginTest = HandlerTestModel | RouteTestModel
Test = TypeVar("Test", bound=PluginTest)

MAX_TEST_SECONDS: Final = 30.0
"""Seconds after which a script of a test is stopped, however long it may run in the server."""


@dataclass(frozen=True, slots=True)
class TestResult:
    """The result of one test: without `failures` it passed. `place` is its `file:line`."""

    plugin: str
    test: str
    place: str
    failures: tuple[str, ...]


RunTest = Callable[[Test, Stubs], Awaitable[list[str]]]
"""Runs one test with its stubs and returns what is not as the test expects."""


async def run_tests(
    name: str, document: Document, tests: Sequence[Test], configs: Configs, run_test: RunTest[Test]
) -> list[TestResult]:
    """Run all tests of the plugin `name`, one after the other; `configs` are those of the folders."""
    results = []
    for index, test in enumerate(tests):
        stubs = Stubs(test, configs)
        try:
            failures = [*await run_test(test, stubs), *await stubs.failures(test.expect)]
        finally:
            stubs.close()
        place = f"{document.file}:{document.line('tests', index)}"
        results.append(TestResult(name, test.name, place, tuple(failures)))
    return results


def script_failure(error: BaseException) -> str:
    """Say in a line how a script failed, and where."""
    place = place_of_error(error)
    where = f" at {place[0]}:{place[1]}" if place else ""
    return f"it failed{where}: {type(error).__name__}: {error}"


async def run_handler_tests(
    handler: Handler, configs: Configs, executor: ScriptExecutor
) -> list[TestResult]:
    """Run all tests of a handler in `executor`; `configs` are those of the folders."""
    run_test = functools.partial(_run_test, handler, executor)
    return await run_tests(handler.name, handler.document, handler.tests, configs, run_test)


async def _run_test(
    handler: Handler, executor: ScriptExecutor, test: HandlerTestModel, stubs: Stubs
) -> list[str]:
    try:
        await stubs.fill()
        event, handle = event_of_test(handler, test, stubs.files), Handle()
    except (ConfigError, Refusal, ValueError) as error:
        return [f"it cannot begin: {error}"]

    async def run() -> None:
        await _stubbed_function(handler, stubs)(event, handle)

    failed: Exception | None = None
    try:
        await executor.call_script(run, min(handler.timeout, MAX_TEST_SECONDS))
    except Exception as raised:
        failed = raised
    return _failures(handler, test.expect, event, handle, failed)


def _stubbed_function(handler: Handler, stubs: Stubs) -> Function:
    """Return the function of a handler with stubs around it; a script runs anew, up to it."""
    if isinstance(handler.function, WebhookCall):
        return replace(handler.function, post=stubs.post)
    if handler.code is None:
        raise TypeError("there is neither a script nor a webhook")
    names = run_script(handler.code, stubs.script_context(handler.document, handler.name))
    function: Function = names[handler.name]
    return function


def _failures(
    handler: Handler, expect: ExpectModel, event: Event, handle: Handle, error: Exception | None
) -> list[str]:
    refused = handle.refusal is not None
    if handle.invalid is not None:
        return [] if expect.raises else [str(handle.invalid)]
    if error is not None and not refused:
        return [] if expect.raises else [script_failure(error)]
    if expect.raises:
        return ["it was expected to fail and did not"]
    failures = _wrong_verdict(expect, handle)
    if "result" in expect.model_fields_set and handle.latest_result != expect.result:
        failures.append(f"result is {handle.latest_result!r}, expected {expect.result!r}")
    if handler.event in DECIDING and not refused:
        failures += _wrong_changes(expect, event, handler.event)
    return failures


def _wrong_verdict(expect: ExpectModel, handle: Handle) -> list[str]:
    code = handle.verdict.code if handle.verdict else 200
    output = handle.verdict.output if handle.verdict else None
    failures = []
    if expect.status is None and code >= 400:
        failures.append(f"it refused with {code}")
    if expect.status not in (None, code):
        failures.append(f"status is {code}, expected {expect.status}")
    if "output" in expect.model_fields_set and output != expect.output:
        failures.append(f"output is {output!r}, expected {expect.output!r}")
    return failures


def _wrong_changes(expect: ExpectModel, event: Event, name: str) -> list[str]:
    try:
        changes = read_received(event) if name == RECEIVED else read_changes(event)
    except InvalidResult as error:
        return [str(error)]
    return [
        f"{key} is {value!r}, expected {getattr(expect, key)!r}"
        for key, value in changes._asdict().items()
        if key in expect.model_fields_set and value != getattr(expect, key)
    ]
