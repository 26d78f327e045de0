"""How an upload ended: which page, counter, log line and event each exception leads to."""

from __future__ import annotations

import asyncio
import logging
from typing import cast

import pytest

from gateway.auth.signed_urls import StoredUrls
from gateway.domain.held import Held
from gateway.domain.model import Stored, Upload
from gateway.domain.path_template import UploadPathTemplate
from gateway.endpoints.inflight import Inflight
from gateway.endpoints.uploads.outcomes import UploadOutcomes
from gateway.errors import ClientDisconnected, Refusal, Terminated, UnknownOutcome
from gateway.plugins.hooks import Hooks
from gateway.telemetry.metrics import Metrics

UPLOAD = Upload("01ABC-0", "/x")
URLS = StoredUrls(UploadPathTemplate.parse("/upload/{filepath}"), "http://gateway.example")


class FailedUploads:
    """The hooks, as far as an outcome needs them."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def notify_upload_failed(self, upload: Upload, reason: str, received: int) -> None:
        assert (upload, received) == (UPLOAD, 7)
        self.reasons.append(reason)


class Recorded:
    def __init__(self) -> None:
        self.inflight, self.metrics, self.hooks = Inflight(), Metrics(), FailedUploads()
        self.outcomes = UploadOutcomes(self.inflight, self.metrics, cast(Hooks, self.hooks), URLS)

    def begin(self, state: str) -> None:
        progress = self.inflight.begin_upload(UPLOAD)
        progress.state, progress.received = state, 7

    def counted(self) -> set[str]:
        return {values[0] for values in self.metrics.uploads._counts}

    @property
    def page(self) -> tuple[str, str] | None:
        described = self.inflight.describe(UPLOAD.id)
        return None if described is None else (described["state"], described["error"])


REFUSED = Refusal("too_large", "")


@pytest.mark.parametrize(
    ("state", "error", "reason", "counted", "event"),
    [
        ("admitting", REFUSED, "too_large", "too_large", False),
        ("admitting", asyncio.CancelledError(), "stopping", None, False),
        ("receiving", REFUSED, "too_large", "too_large", True),
        ("receiving", ClientDisconnected(""), "connection_lost", "broken", True),
        ("receiving", asyncio.CancelledError(), "stopping", None, True),
        ("receiving", ValueError(), "internal", None, True),
        ("deciding", Refusal("hook_failed", ""), "hook_failed", "hook_failed", True),
        ("deciding", ClientDisconnected(""), "connection_lost", "broken", True),
        ("committing", REFUSED, "too_large", "too_large", True),
        ("committing", UnknownOutcome(""), "internal", "broken", False),
        ("committing", asyncio.CancelledError(), "stopping", None, False),
    ],
)
def test_a_failure_is_recorded_by_its_step_and_its_cause(
    state: str,
    error: BaseException,
    reason: str,
    counted: str | None,
    event: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorded = Recorded()
    recorded.begin(state)
    with caplog.at_level(logging.WARNING, "gateway.uploads"):
        recorded.outcomes.upload_failed(UPLOAD.id, error, withheld=100)
    assert (len(recorded.inflight), recorded.page) == (0, ("failed", reason))
    assert recorded.counted() == ({counted} if counted else set())
    assert recorded.hooks.reasons == ([reason] if event else [])
    assert len(caplog.records) == event


@pytest.mark.parametrize(("state", "withheld"), [("admitting", 100), ("receiving", 0), (None, 100)])
def test_bytes_count_as_withheld_where_the_client_was_refused_before_100_continue(
    state: str | None, withheld: int
) -> None:
    recorded, refusal = Recorded(), Refusal("forbidden", "")
    if state is not None:  # None: refused before it was counted in
        recorded.begin(state)
    recorded.outcomes.upload_failed(UPLOAD.id, refusal, withheld=100)
    assert recorded.metrics.unsent_bytes._value.get() == withheld
    assert refusal.upload_id == UPLOAD.id


def test_a_file_that_a_handler_rejected_is_counted_and_shown_as_such() -> None:
    recorded, refusal = Recorded(), Terminated(422, b"no", "text/plain")
    refusal.rejected_by = "judge"
    recorded.begin("deciding")
    recorded.outcomes.upload_failed(UPLOAD.id, refusal, withheld=0)
    assert recorded.page == ("rejected", "rejected")
    assert (recorded.counted(), recorded.hooks.reasons) == ({"rejected"}, ["rejected"])


def test_a_held_upload_is_counted_as_such() -> None:
    recorded = Recorded()
    recorded.begin("committing")
    recorded.outcomes.upload_stored(Held(UPLOAD.id, "/x", 7, "text/plain", {}))
    assert (len(recorded.inflight), recorded.counted()) == (0, {"held"})


def test_a_stored_upload_is_counted_and_no_longer_in_flight() -> None:
    recorded = Recorded()
    recorded.begin("committing")
    recorded.outcomes.upload_stored(Stored(UPLOAD.id, "/x", 7, "text/plain", False, {}))
    assert (len(recorded.inflight), recorded.page) == (0, None)
    assert recorded.counted() == {"stored"}
    assert recorded.metrics.received_bytes._counts == {(): 7.0}
