"""Runs the `tests:` of a handler: event in, expected path, status or callouts out.

One rule: a test meets the real script, in a lane, with everything outside replaced; nothing is sent
and nothing is stored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from gateway.domain import model
from gateway.domain.event_bodies import (
    delivered_event,
    downloading_event,
    object_created_body,
    tick_body,
    upload_failed_event,
    uploaded_body,
    uploading_event,
)
from gateway.domain.model import OBJECT_CREATED, Delivery, Download, Upload
from gateway.domain.schedules import Every
from gateway.plugins.handlers import Handler, surroundings
from gateway.plugins.models import ADMITTING, AnswerModel, CalledModel, CaseModel, ExpectModel
from gateway.plugins.scripting import (
    CalloutResponse,
    Configs,
    Event,
    Handle,
    Headers,
    HTTPError,
    ScriptExecutor,
    Services,
    read_changes,
    run_script,
)
from gateway.plugins.scripting.trace import place_of_error
from gateway.plugins.test_records import judge_records, keep

LONGEST_SECONDS: Final = 30.0
"""A test is given up after this, however long its handler may run."""

_UPLOAD: Final = Upload(
    id="00000000000000000000000000-0", path="/upload/file.bin", content_length=4, remote="192.0.2.1"
)
_DOWNLOAD: Final = Download(id="00000000000000000000000003-0", path=_UPLOAD.path, remote=_UPLOAD.remote)
_MIME: Final = "application/octet-stream"
_TICK: Final = 1767225600


@dataclass(frozen=True, slots=True)
class TestResult:
    """What came of one test: no `faults` means that it passed. `place` is its `file:line`."""

    handler: str
    test: str
    place: str
    faults: tuple[str, ...]


class StubbedCallout:
    """Answers callouts from a list and notes what was called."""

    def __init__(self, answers: list[AnswerModel]) -> None:
        self._answers = iter(answers)
        self.calls: list[dict[str, Any]] = []
        self.beyond = False

    async def __call__(
        self,
        endpoint: str | None = None,
        path: str = "/",
        method: str = "GET",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> CalloutResponse:
        """Return the next answer. Raises as `callout` does; `AssertionError` when none is left."""
        fields = dict(headers or {})
        called = {"endpoint": endpoint, "path": path, "method": method, "body": body, "headers": fields}
        self.calls.append(called)
        answer = next(self._answers, None)
        if answer is None:
            self.beyond = True
            raise AssertionError("a callout beyond the list of the test")
        text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        content = b"" if answer.body is None else text.encode()
        if answer.code >= 400:
            raise HTTPError(answer.code, content)
        return CalloutResponse(answer.code, Headers(answer.headers), content)


async def run_tests(handler: Handler, lane: ScriptExecutor) -> list[TestResult]:
    """Run all tests of a handler in `lane`, one after the other."""
    return [await _run_case(handler, index, case, lane) for index, case in enumerate(handler.tests)]


async def _run_case(handler: Handler, index: int, case: CaseModel, lane: ScriptExecutor) -> TestResult:
    event, handle, callout = _event(handler, case), Handle(), StubbedCallout(case.callout)

    services = Services()

    async def run() -> None:
        await keep(services.records, case.records)
        around = surroundings(handler.document, handler.name, Configs(case.configs), {}, services)
        names = run_script(handler.code, replace(around, callout=callout))
        await names[handler.name](event, handle)

    error: Exception | None = None
    try:
        await lane.call(run, min(handler.timeout, LONGEST_SECONDS))
    except Exception as raised:
        error = raised
    faults = _judge(handler, case.expect, event, handle, error)
    faults += judge_callouts(case.expect.callouts, callout)
    faults += await judge_records(case.expect.records, services.records)
    place = f"{handler.file}:{handler.document.line('tests', index)}"
    return TestResult(handler.name, case.name, place, tuple(faults))


def _event(handler: Handler, case: CaseModel) -> Event:
    """Return the event of a test: what every real one has, with the keys that the test gives."""
    event = _default_event(handler) | case.event
    if handler.event == OBJECT_CREATED:
        event = _consistent(event, case.event)
    return Event(event)


def _default_event(handler: Handler) -> dict[str, Any]:
    match handler.event:
        case model.UPLOADING:
            return uploading_event(_UPLOAD)
        case model.DOWNLOADING:
            return downloading_event(_DOWNLOAD)
        case model.UPLOAD_FAILED:
            return upload_failed_event(_UPLOAD, "incomplete_body", 2)
        case model.UPLOADED:
            body = uploaded_body(_UPLOAD, mime=_MIME, size=4, params={}, headers={})
            return _delivered(handler, "00000000000000000000000001-0", _UPLOAD.id, body)
        case model.OBJECT_CREATED:
            etag = "0123456789abcdef01234567"
            body = object_created_body(_UPLOAD, path=_UPLOAD.path, size=4, etag=etag, mime=_MIME)
            return _delivered(handler, "00000000000000000000000002-0", _UPLOAD.id, body)
        case _:
            body = tick_body(handler.name, Every(86400), _TICK)
            return _delivered(handler, f"tick.handler.{_TICK}", None, body)


def _delivered(
    handler: Handler, event_id: str, upload_id: str | None, body: dict[str, Any]
) -> dict[str, Any]:
    delivery = Delivery(None, event_id, upload_id, handler.event, handler.name, 1, body)
    return delivered_event(delivery, "127.0.0.1", 8080, Path("/srv"))


def _consistent(event: dict[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Let the path follow the key, or the key the path, where a test says only one of them."""
    if "key" in said and "path" not in said:
        event["path"] = f"/{event['key']}"
    if "path" in said and "key" not in said:
        event["key"] = str(event["path"]).removeprefix("/")
    return event


def _judge(
    handler: Handler, expect: ExpectModel, event: Event, handle: Handle, error: Exception | None
) -> list[str]:
    refused = handle.verdict is not None and handle.verdict.refuses
    if handle.invalid is None and error is not None and not refused:
        return [] if expect.raises else [failure(error)]
    if handle.invalid is not None:
        return [] if expect.raises else [str(handle.invalid)]
    if expect.raises:
        return ["it was expected to fail and did not"]
    faults = _judge_verdict(expect, handle)
    if handler.event in ADMITTING and not refused:
        faults += _judge_changes(expect, event)
    return faults


def _judge_verdict(expect: ExpectModel, handle: Handle) -> list[str]:
    code = handle.verdict.code if handle.verdict else 200
    output = handle.verdict.output if handle.verdict else None
    faults = []
    if expect.status is None and code >= 400:
        faults.append(f"it refused with {code}")
    if expect.status not in (None, code):
        faults.append(f"status is {code}, expected {expect.status}")
    if "output" in expect.model_fields_set and output != expect.output:
        faults.append(f"output is {output!r}, expected {expect.output!r}")
    return faults


def _judge_changes(expect: ExpectModel, event: Event) -> list[str]:
    try:
        changes = read_changes(event)
    except Exception as junk:
        return [str(junk)]
    got = {"path": changes.path, "max_bytes": changes.max_bytes, "on_conflict": changes.on_conflict}
    return [
        f"{key} is {value!r}, expected {getattr(expect, key)!r}"
        for key, value in got.items()
        if key in expect.model_fields_set and value != getattr(expect, key)
    ]


def judge_callouts(expected: list[CalledModel] | None, callout: StubbedCallout) -> list[str]:
    """Return how the callouts that were made differ from those that a test expects."""
    faults = ["it made a callout beyond the list of the test"] if callout.beyond else []
    if expected is None:
        return faults
    if len(expected) != len(callout.calls):
        faults.append(f"it made {len(callout.calls)} callouts, expected {len(expected)}")
    for number, (wanted, called) in enumerate(zip(expected, callout.calls, strict=False), start=1):
        faults += [
            f"{key} of callout {number} is {called[key]!r}, not as expected"
            for key in sorted(wanted.model_fields_set)
            if called[key] != getattr(wanted, key)
        ]
    return faults


def failure(error: Exception) -> str:
    """Say in a line how a script failed, and where."""
    place = place_of_error(error)
    where = f" at {place[0]}:{place[1]}" if place else ""
    return f"it failed{where}: {type(error).__name__}: {error}"
