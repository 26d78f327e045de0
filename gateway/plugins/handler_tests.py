"""Runs the `tests:` of a handler: an event in; a path, a status, callouts or records out."""

from __future__ import annotations

from collections.abc import Mapping
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
from gateway.plugins.handlers import Handler
from gateway.plugins.models import ADMITTING, ExpectModel, HandlerTestModel
from gateway.plugins.scripting import (
    Event,
    Handle,
    InvalidResult,
    ScriptExecutor,
    read_changes,
    run_script,
)
from gateway.plugins.testing import MAX_TEST_SECONDS, Stubs, TestResult, run_tests, script_failure

_UPLOAD: Final = Upload(
    id="00000000000000000000000000-0", path="/upload/file.bin", content_length=4, remote="192.0.2.1"
)
_DOWNLOAD: Final = Download(id="00000000000000000000000003-0", path=_UPLOAD.path, remote=_UPLOAD.remote)
_MIME: Final = "application/octet-stream"
_TICK: Final = 1767225600


async def run_handler_tests(handler: Handler, executor: ScriptExecutor) -> list[TestResult]:
    """Run all tests of a handler in `executor`."""

    async def run_test(test: HandlerTestModel, stubs: Stubs) -> list[str]:
        return await _run_test(handler, test, stubs, executor)

    return await run_tests(handler.name, handler.document, handler.tests, run_test)


async def _run_test(
    handler: Handler, test: HandlerTestModel, stubs: Stubs, executor: ScriptExecutor
) -> list[str]:
    event, handle = _event(handler, test), Handle()

    async def run() -> None:
        await stubs.fill_records()
        names = run_script(handler.code, stubs.script_context(handler.document, handler.name))
        await names[handler.name](event, handle)

    error: Exception | None = None
    try:
        await executor.call_script(run, min(handler.timeout, MAX_TEST_SECONDS))
    except Exception as raised:
        error = raised
    return _failures(handler, test.expect, event, handle, error)


def _event(handler: Handler, test: HandlerTestModel) -> Event:
    """Return the event of a test: the keys of every real one, replaced by those that the test gives."""
    event = _default_event(handler) | test.event
    if handler.event == OBJECT_CREATED:
        event = _with_key_and_path(event, test.event)
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
    refused = handle.verdict is not None and handle.verdict.refuses
    if handle.invalid is None and error is not None and not refused:
        return [] if expect.raises else [script_failure(error)]
    if handle.invalid is not None:
        return [] if expect.raises else [str(handle.invalid)]
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
