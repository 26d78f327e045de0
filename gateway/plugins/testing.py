"""Runs the `tests:` of plugins, of handlers and routes alike.

The script is the real one and runs in an executor. Callouts, records and files are stubs of the
test's own: nothing is sent and nothing is stored.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from gateway.plugins.models import AnswerModel, CalledModel, HandlerTestModel
from gateway.plugins.route_models import RouteTestModel
from gateway.plugins.scripting import (
    CalloutResponse,
    Configs,
    Headers,
    HTTPError,
    PluginContext,
    ScriptContext,
    Services,
)
from gateway.plugins.scripting.trace import place_of_error
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


class StubbedCallout:
    """Answers callouts from a list and records the calls."""

    def __init__(self, answers: Sequence[AnswerModel]) -> None:
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
        self._calls.append(
            {
                "endpoint": endpoint,
                "path": path,
                "method": method,
                "body": body,
                "headers": dict(headers or {}),
            }
        )
        answer = next(self._answers, None)
        if answer is None:
            self._exhausted = True
            raise AssertionError("a callout beyond the list of the test")
        content = body_bytes(answer.body)
        if answer.code >= 400:
            raise HTTPError(answer.code, content)
        return CalloutResponse(answer.code, Headers(answer.headers), content)

    async def close(self) -> None:
        """Nothing is open."""

    def failures(self, expected: Sequence[CalledModel] | None) -> list[str]:
        """Return how the calls differ from those that a test expects."""
        failures = ["it made a callout beyond the list of the test"] if self._exhausted else []
        if expected is None:
            return failures
        if len(expected) != len(self._calls):
            failures.append(f"it made {len(self._calls)} callouts, expected {len(expected)}")
        for number, (model, call) in enumerate(zip(expected, self._calls, strict=False), start=1):
            failures += [
                f"{key} of callout {number} is {call[key]!r}, not as expected"
                for key in sorted(model.model_fields_set)
                if call[key] != getattr(model, key)
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
