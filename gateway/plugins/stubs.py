"""What surrounds the script of a test: its configs, callouts, records, files and clock.

Nothing is sent. What is stored is in memory, and files in a temporary directory.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from yarl import URL

from gateway.errors import Refusal
from gateway.plugins.scripting.callout import Callout, CalloutResponse, HTTPError
from gateway.plugins.scripting.decision import JSON
from gateway.plugins.scripting.fixed_clock import FixedClock
from gateway.plugins.scripting.namespace import PluginContext, ScriptContext, Services
from gateway.plugins.scripting.temporary_files import TemporaryFiles
from gateway.plugins.scripting.values import Configs, Headers
from gateway.plugins.testing_models import AnswerModel, CalledModel, ExpectedStores, StubsModel
from gateway.plugins.webhooks.sending import WebhookAnswer
from gateway.plugins.yaml_documents import Document


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
        answer, content = self._answer({**call, "headers": dict(headers or {})})
        if answer.code >= 400:
            raise HTTPError(answer.code, content)
        return CalloutResponse(answer.code, Headers(answer.headers), content)

    async def post(self, url: URL, payload: bytes, headers: Mapping[str, str]) -> WebhookAnswer:
        """Answer a webhook; the call has its message as `body`. Raises `AssertionError` as above."""
        call = {"endpoint": str(url.origin()), "path": url.path_qs, "method": "POST"}
        answer, content = self._answer({**call, "body": json.loads(payload), "headers": dict(headers)})
        given = {"Content-Type": JSON} if isinstance(answer.body, dict | list) else {}
        return WebhookAnswer(answer.code, Headers({**given, **answer.headers}), content)

    def _answer(self, call: dict[str, Any]) -> tuple[AnswerModel, bytes]:
        self._calls.append(call)
        answer = next(self._answers, None)
        if answer is None:
            self._exhausted = True
            raise AssertionError("a callout beyond the list of the test")
        return answer, body_bytes(answer.body)

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
    """What surrounds the script of one test. `configs` are those of a test that gives none."""

    def __init__(self, test: StubsModel, configs: Configs) -> None:
        self._test = test
        self._configs = configs.replaced(test.configs) if "configs" in test.model_fields_set else configs
        self._callout = StubbedCallout(test.callout)
        self.post = self._callout.post
        clock = None if test.now is None else FixedClock(test.now)
        self.files = TemporaryFiles(time.time if clock is None else clock.now)
        self._services = Services(files=self.files, clock=clock)
        self._services.callout = self._callout

    def script_context(self, document: Document, name: str) -> ScriptContext:
        """Return the context of a script of the plugin `name`."""
        context = PluginContext(self._services, self._configs, {})
        return ScriptContext(name, document.folder, context)

    async def fill(self) -> None:
        """Put the items and files that the test begins with. Raises `ValueError`, `Refusal`."""
        for collection, items in self._test.records.items():
            for key, item in items.items():
                await self._services.records(collection).put(key, item)
        for path, content in self._test.files.items():
            self.files.put(path, body_bytes(content))

    async def failures(self, expect: ExpectedStores) -> list[str]:
        """Return how callouts, records and files differ from what the test expects."""
        return [
            *self._callout.failures(expect.callouts),
            *await self._wrong_records(expect.records or {}),
            *self._wrong_files(expect.files or {}),
        ]

    def close(self) -> None:
        """Remove the files."""
        self.files.close()

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

    def _wrong_files(self, expected: Mapping[str, Any]) -> Iterator[str]:
        for path, wanted in expected.items():
            try:
                content = self.files.content(path)
            except Refusal as refusal:
                yield f"file {path}: {refusal.message}"
                continue
            if (wanted is None) != (content is None):
                yield f"file {path} is {'missing' if content is None else 'there, expected none'}"
            elif content is not None and wanted is not True and not is_body(wanted, content):
                yield f"file {path} is {content[:1000]!r}, expected {wanted!r}"


def is_body(expected: Any, body: bytes) -> bool:
    """Tell whether a body is the text of a test, or JSON of the value of a test."""
    if expected is None or isinstance(expected, str):
        return body == body_bytes(expected)
    try:
        return bool(json.loads(body) == expected)
    except ValueError:
        return False


def body_bytes(body: Any) -> bytes:
    """Return the body that a test writes as text, or as a value that is JSON."""
    if body is None:
        return b""
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()
