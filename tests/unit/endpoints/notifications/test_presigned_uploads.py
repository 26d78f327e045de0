"""Presigned uploads: recorded, checked with growing delays, removed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gateway.domain.grant import Grant
from gateway.endpoints.notifications.presigned_uploads import (
    FIRST_CHECK_DELAY,
    MAX_CLOCK_SKEW,
    UPLOAD_GRACE,
    PresignedUploads,
)
from gateway.records.collection import Records
from gateway.storage.protocols import Stat


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def uploads(clock: Clock) -> PresignedUploads:
    return PresignedUploads(Records().own("initiated"), clock)


GRANT = Grant("PUT", "/a/b.bin", 1_000_900, "image/png", max_length=10, metadata={"title": "ü"})


async def test_a_url_is_recorded_with_all_that_it_allows(uploads: PresignedUploads) -> None:
    await uploads.record_grant(GRANT)
    await uploads.record_grant(replace(GRANT, path="/a/b.bin2"))
    (upload,) = await uploads.for_path("/a/b.bin")
    assert (upload.path, upload.expires, upload.max_length) == ("/a/b.bin", 1_000_900.0, 10)
    assert (upload.content_type, upload.metadata) == ("image/png", {"title": "ü"})


async def test_records_of_earlier_versions_are_read(clock: Clock) -> None:
    collection = Records().own("initiated")
    uploads = PresignedUploads(collection, clock)
    await uploads.record_grant(GRANT)
    (recorded,) = await uploads.for_path("/a/b.bin")
    written = {
        "key": recorded.key,
        "path": "/a/b.bin",
        "created": 1_000_000.0,
        "expires": 1_000_900.0,
        "due": 1_000_060.0,
        "content_type": "image/png",
        "max_length": 10,
        "metadata": {"owner": "ann"},
        "told": "etag",
        "lost": 1_000_030.0,
    }
    await collection.put(recorded.key, written)
    (stored,) = await uploads.for_path("/a/b.bin")
    assert (stored.notified, stored.lost) == ("etag", 1_000_030.0)
    assert json.dumps(stored.item()) == json.dumps(written)
    assert await uploads.remove_upload(stored)
    assert await uploads.for_path("/a/b.bin") == []


async def test_the_latest_url_of_a_path_comes_first(uploads: PresignedUploads, clock: Clock) -> None:
    await uploads.record_grant(GRANT)
    clock.now += 5
    await uploads.record_grant(replace(GRANT, content_type="text/plain"))
    assert [upload.content_type for upload in await uploads.for_path("/a/b.bin")] == [
        "text/plain",
        "image/png",
    ]


async def test_checks_have_growing_delays_and_the_last_one_is_at_the_end(
    uploads: PresignedUploads, clock: Clock
) -> None:
    await uploads.record_grant(GRANT)
    assert await uploads.due_for_check(10) == []
    checks = []
    while clock.now < 1_000_900 + UPLOAD_GRACE:
        clock.now += 1
        for upload in await uploads.due_for_check(10):
            checks.append(clock.now - upload.created)
            assert await uploads.replace_upload(upload, upload.rescheduled(clock.now))
    assert checks[:3] == pytest.approx([120, 240, 480], abs=5)
    assert len(checks) < 10
    (last,) = await uploads.for_path("/a/b.bin")
    assert last.due >= last.last_check


async def test_only_one_of_two_concurrent_checks_gets_an_upload(
    uploads: PresignedUploads, clock: Clock
) -> None:
    await uploads.record_grant(GRANT)
    clock.now += FIRST_CHECK_DELAY + 1
    (upload,) = await uploads.due_for_check(10)
    assert await uploads.replace_upload(upload, upload.rescheduled(clock.now))
    assert not await uploads.replace_upload(upload, upload.rescheduled(clock.now + 1))


async def test_an_upload_whose_event_was_published_is_checked_once_more_at_its_end(
    uploads: PresignedUploads, clock: Clock
) -> None:
    await uploads.record_grant(GRANT)
    (upload,) = await uploads.for_path(GRANT.path)
    assert replace(upload, notified="abc").rescheduled(clock.now).due == 1_000_900 + UPLOAD_GRACE


async def test_removing_an_upload_leaves_nothing(uploads: PresignedUploads) -> None:
    await uploads.record_grant(GRANT)
    (upload,) = await uploads.for_path(GRANT.path)
    assert await uploads.remove_upload(upload)
    assert not await uploads.remove_upload(upload)
    assert await uploads.for_path(GRANT.path) == []


@pytest.mark.parametrize(
    ("limits", "size", "mime", "violation"),
    [
        ({"max_length": 10}, 10, None, None),
        ({"max_length": 10}, 11, None, "too_large"),
        ({"length": 10}, 11, None, "too_large"),
        ({"length": 10}, 9, None, "incomplete_body"),
        ({"content_type": "image/png"}, 9, "image/png", None),
        ({"content_type": "image/png"}, 9, "text/html", "unsupported_media_type"),
        ({"content_type": "image/png"}, 9, None, None),
        ({}, 1 << 40, "x/y", None),
    ],
)
async def test_an_object_is_compared_with_what_its_url_allowed(
    uploads: PresignedUploads,
    limits: dict[str, object],
    size: int,
    mime: str | None,
    violation: str | None,
) -> None:
    await uploads.record_grant(Grant("PUT", "/x", 1_000_900, **limits))  # type: ignore[arg-type]  # of a table
    (upload,) = await uploads.for_path("/x")
    assert upload.violation(size, mime) == violation


async def test_an_object_that_was_there_before_is_not_its_own(
    uploads: PresignedUploads, clock: Clock
) -> None:
    await uploads.record_grant(GRANT)
    (upload,) = await uploads.for_path(GRANT.path)
    assert upload.may_have_created(Stat("/a/b.bin", 1, clock.now + 1, "e"))
    assert not upload.may_have_created(Stat("/a/b.bin", 1, clock.now - MAX_CLOCK_SKEW - 1, "e"))
