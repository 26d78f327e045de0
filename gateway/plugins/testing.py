"""Runs the `tests:` of plugins: the parts that handlers and routes share, and those of handlers.

The script is the real one and runs in an executor. Callouts, records and files are stubs of the
test's own: nothing is sent and nothing is stored.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from gateway.domain import model
from gateway.plugins.default_events import default_event
from gateway.plugins.handler import Handler
from gateway.plugins.models import ADMITTING, AnswerModel, CalledModel, ExpectModel, HandlerTestModel
from gateway.plugins.route_models import RouteTestModel
from gateway.plugins.scripting.callout import Callout, CalloutResponse, HTTPError
from gateway.plugins.scripting.decision import Handle, InvalidResult, read_changes
from gateway.plugins.scripting.executor import ScriptExecutor
from gateway.plugins.scripting.namespace import PluginContext, ScriptContext, Services, run_script
from gateway.plugins.scripting.trace import place_of_error
from gateway.plugins.scripting.values import Configs, Event, Headers
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


class StubbedCallout(Callout):
    """Answers callouts from a list and records the calls."""

    def __init__(self, answers: Sequence[AnswerModel]) -> None:
        super().__init__(lambda: "")
        self._answers = iter(answers)
        self._calls: list[dict[str, Any]] = []
        self._exhausted = False

    async def __call__(
        self,
        endpoint: str | None = None,
        path: str = "/",
        method: str = "GET",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> CalloutResponse:
        """Return the next response. Raises as `callout` does; `AssertionError` when none is left."""
        call = {"endpoint": endpoint, "path": path, "method": method, "body": body}
        self._calls.append({**call, "headers": dict(headers or {})})
        answer = next(self._answers, None)
        if answer is None:
            self._exhausted = True
            raise AssertionError("a callout beyond the list of the test")
        content = body_bytes(answer.body)
        if answer.code >= 400:
            raise HTTPError(answer.code, content)
        return CalloutResponse(answer.code, Headers(answer.headers), content)

    def failures(self, expected: Sequence[CalledModel] | None) -> list[str]:
        """Return how the calls differ from those that a test expects."""
        failures = ["it made a callout beyond the list of the test"] if self._exhausted else []
        if expected is None:
            return failures
        if len(expected) != len(self._calls):
            failures.append(f"it made {len(self._calls)} callouts, expected {len(expected)}")
        for number, (wanted, call) in enumerate(zip(expected, self._calls, strict=False), start=1):
            failures += [
                f"{key} of callout {number} is {call[key]!r}, not as expected"
                for key in sorted(wanted.model_fields_set)
                if call[key] != getattr(wanted, key)
            ]
        return failures


class Stubs:
    """Everything around the script of one test: its configs, callouts, records and files."""

    def __init__(self, test: PluginTest) -> None:
        self._test = test
        self._callout = StubbedCallout(test.callout)
        self._services = Services()
        self._services.callout = self._callout

    def script_context(self, document: Document, name: str) -> ScriptContext:
        """Return the context of a script of the plugin `name`."""
        context = PluginContext(self._services, Configs(self._test.configs), {})
        return ScriptContext(name, document.folder, context)

    async def fill_records(self) -> None:
        """Put the items that the test begins with. Raises `ValueError` for an invalid item."""
        for collection, items in self._test.records.items():
            for key, item in items.items():
                await self._services.records(collection).put(key, item)

    async def failures(self) -> list[str]:
        """Return how callouts and records differ from what the test expects."""
        expect = self._test.expect
        return self._callout.failures(expect.callouts) + await self._wrong_records(expect.records or {})

    async def _wrong_records(self, expected: Mapping[str, Mapping[str, Any]]) -> list[str]:
        failures = []
        for collection, items in expected.items():
            for key, expected_item in items.items():
                item = await self._services.records(collection).get(key)
                if item is not None and "key" not in (expected_item or {}):
                    del item["key"]
                if item != expected_item:
                    failures.append(
                        f"item {key!r} of {collection!r} is {item!r}, expected {expected_item!r}"
                    )
        return failures


RunTest = Callable[[Test, Stubs], Awaitable[list[str]]]
"""Runs one test with its stubs and returns what is not as the test expects."""


async def run_tests(
    name: str, document: Document, tests: Sequence[Test], run_test: RunTest[Test]
) -> list[TestResult]:
    """Run all tests of the plugin `name`, one after the other."""
    results = []
    for index, test in enumerate(tests):
        stubs = Stubs(test)
        failures = [*await run_test(test, stubs), *await stubs.failures()]
        place = f"{document.file}:{document.line('tests', index)}"
        results.append(TestResult(name, test.name, place, tuple(failures)))
    return results


def body_bytes(body: Any) -> bytes:
    """Return the body that a test writes as text, or as a dict or list that is JSON."""
    if body is None:
        return b""
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def script_failure(error: BaseException) -> str:
    """Say in a line how a script failed, and where."""
    place = place_of_error(error)
    where = f" at {place[0]}:{place[1]}" if place else ""
    return f"it failed{where}: {type(error).__name__}: {error}"


async def run_handler_tests(handler: Handler, executor: ScriptExecutor) -> list[TestResult]:
    """Run all tests of a handler in `executor`; those of a webhook are not run here."""
    if handler.code is None:
        return []
    run_test = functools.partial(_run_test, handler, executor)
    return await run_tests(handler.name, handler.document, handler.tests, run_test)


async def _run_test(
    handler: Handler, executor: ScriptExecutor, test: HandlerTestModel, stubs: Stubs
) -> list[str]:
    event, handle = _event(handler, test), Handle()

    if handler.code is None:
        raise TypeError("a webhook has no script")
    code = handler.code

    async def run() -> None:
        await stubs.fill_records()
        names = run_script(code, stubs.script_context(handler.document, handler.name))
        await names[handler.name](event, handle)

    error: Exception | None = None
    try:
        await executor.call_script(run, min(handler.timeout, MAX_TEST_SECONDS))
    except Exception as raised:
        error = raised
    return _failures(handler, test.expect, event, handle, error)


def _event(handler: Handler, test: HandlerTestModel) -> Event:
    """Return the event of a test: the keys of every real one, replaced by those that the test gives."""
    event = default_event(handler) | test.event
    if handler.event == model.OBJECT_CREATED:
        event = _with_key_and_path(event, test.event)
    return Event(event).copy()  # a script may change it; the defaults belong to all tests


def _with_key_and_path(event: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Derive the path from the key, or the key from the path, if a test gives only one of them."""
    if "key" in given and "path" not in given:
        event["path"] = f"/{event['key']}"
    if "path" in given and "key" not in given:
        event["key"] = str(event["path"]).removeprefix("/")
    return event


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
    if handler.event in ADMITTING and not refused:
        failures += _wrong_changes(expect, event)
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


def _wrong_changes(expect: ExpectModel, event: Event) -> list[str]:
    try:
        changes = read_changes(event)
    except InvalidResult as error:
        return [str(error)]
    values = {"path": changes.path, "max_bytes": changes.max_bytes, "on_conflict": changes.on_conflict}
    return [
        f"{key} is {value!r}, expected {getattr(expect, key)!r}"
        for key, value in values.items()
        if key in expect.model_fields_set and value != getattr(expect, key)
    ]
