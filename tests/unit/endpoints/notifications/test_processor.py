"""Objects become events: subscribers, violations, repetitions, lost notifications."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.event_bodies import delivered_event
from gateway.domain.grant import Grant
from gateway.domain.model import OBJECT_CREATED, Delivery, HandlerSpec, Upload
from gateway.endpoints.notifications.object_events import NotificationScope
from gateway.endpoints.notifications.parser import ObjectNotification, parse_message
from gateway.endpoints.notifications.presigned_uploads import UPLOAD_GRACE, PresignedUploads
from gateway.endpoints.notifications.processor import (
    NotificationProcessor,
    ObjectEventPublisher,
    UploadOwnership,
)
from gateway.endpoints.notifications.reconcile import PresignedUploadReconciler
from gateway.errors import EventEngineUnavailable, Refusal
from gateway.events.journal import Journal
from gateway.records.collection import Records
from gateway.settings.values import Bucket
from gateway.signing.keys import ObjectMarker
from gateway.storage.local.storage import LocalStorage
from gateway.storage.local.tree import DirectoryTree
from gateway.storage.local.xattrs import encode_xattr, write_xattr
from gateway.storage.protocols import Stat
from gateway.storage.s3.encoding import MARK_NAME, UPLOAD_ID_NAME
from gateway.telemetry.metrics import Metrics
from tests.support.notifications.samples import amazon, ceph, records
from tests.support.records import claim_deliveries

MARKER = ObjectMarker([b"k" * 32])


class Scene:
    """A bucket that is a folder, a journal, and handlers `all` and `images`. `now` is the clock."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self.root, self.journal = folder / "bucket", journal
        self.root.mkdir()
        self.tree = DirectoryTree(self.root, [], self.root.stat().st_dev)
        self.storage = LocalStorage(self.tree)
        self.now = self.root.stat().st_mtime
        self.uploads = PresignedUploads(Records().own("initiated"), lambda: self.now)
        self.failures: list[tuple[Upload, str, int]] = []
        self.stored: set[tuple[str, str]] = set()
        self.metrics = Metrics()
        self.handlers = [
            HandlerSpec("all", OBJECT_CREATED, 10.0),
            HandlerSpec("images", OBJECT_CREATED, 10.0, prefix=("up/",), suffix=(".png",)),
        ]
        self.processor = NotificationProcessor(
            NotificationScope(Bucket("photos", "in"), frozenset({"other"})),
            self.storage,
            self.uploads,
            UploadOwnership(MARKER, self),
            ObjectEventPublisher(journal.outbox, self),
            self.metrics,
        )
        self.reconciler = PresignedUploadReconciler(
            self.uploads, self.processor, self.storage, self.metrics, 120.0
        )

    async def object(
        self,
        key: str,
        content: bytes = b"hello",
        mime: str = "image/png",
        metadata: dict[str, str] | None = None,
    ) -> Stat:
        """Put an object into the bucket, without the gateway."""
        place = self.root / key
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        with place.open("rb") as file:
            write_xattr(file.fileno(), encode_xattr(f"/{key}", mime, metadata or {}) or b"{}")
        return await self.storage.stat(f"/{key}")

    async def has_recorded(self, upload_id: str, path: str) -> bool:
        return (upload_id, path) in self.stored

    def handler_specs(self, *events: str) -> list[HandlerSpec]:
        return self.handlers

    def notify_upload_failed(self, upload: Upload, reason: str, received: int) -> None:
        self.failures.append((upload, reason, received))

    def deliveries(self, handler: str = "all") -> list[Delivery]:
        return claim_deliveries(self.journal, handler, 100)

    def ended(self) -> dict[str, float]:
        return {
            sample.labels["end"]: sample.value
            for family in self.metrics.presigned_uploads.collect()
            for sample in family.samples
        }


@pytest.fixture
def scene(tmp_path: Path, journal: Journal) -> Iterator[Scene]:
    opened = Scene(tmp_path, journal)
    with contextlib.closing(opened.tree):
        yield opened


def notification(stat: Stat, **changes: Any) -> ObjectNotification:
    """The notification of an object: no type, no metadata."""
    plain = ObjectNotification(
        "photos", f"in{stat.path}", "ObjectCreated:Put", stat.bytes, stat.etag, None, "01"
    )
    return replace(plain, **{"at": stat.modified, **changes})


GRANT = Grant("PUT", "/up/a.png", 0, "image/png", max_length=10, metadata={"title": "ü"})


async def presign(scene: Scene, **changes: Any) -> None:
    await scene.uploads.record_grant(replace(GRANT, expires=int(scene.now) + 900, **changes))


async def test_a_notification_becomes_an_event_with_what_the_store_knows_of_the_object(
    scene: Scene,
) -> None:
    stat = await scene.object("up/a.png", mime="image/x-own", metadata={"title": "Sunrise"})
    assert await scene.processor.process([notification(stat)]) == {"told": 1}
    (delivery,) = scene.deliveries()
    event = delivered_event(delivery, "h", 1, None)
    assert (event["bucket"], event["key"], event["path"]) == ("photos", "up/a.png", "/up/a.png")
    assert (event["mime"], event["metadata"]) == ("image/x-own", {"title": "Sunrise"})
    assert (event["bytes"], event["etag"], event["sequencer"]) == (5, stat.etag, "01")
    assert (event["upload_id"], event["filepath"]) == (None, None)
    assert [item.event_id for item in scene.deliveries("images")] == [delivery.event_id]


async def test_only_handlers_whose_filter_fits_the_key_within_the_storage_get_the_event(
    scene: Scene,
) -> None:
    await scene.processor.process([notification(await scene.object("up/a.txt"))])
    assert len(scene.deliveries()) == 1
    assert scene.deliveries("images") == []
    scene.handlers = scene.handlers[1:]
    assert await scene.processor.process([notification(await scene.object("b.png"))]) == {"unwanted": 1}


async def test_a_repetition_makes_no_second_event(scene: Scene) -> None:
    sent = notification(await scene.object("up/a.png"))
    await scene.processor.process(
        [sent, replace(sent, event_name="ObjectCreated:CompleteMultipartUpload")]
    )
    await scene.processor.process([sent])
    assert len(scene.deliveries()) == 1


async def test_what_the_gateway_itself_stored_has_no_second_event(scene: Scene) -> None:
    stat = await scene.object("up/a.png", metadata={UPLOAD_ID_NAME: "01ABC-0"})
    assert await scene.processor.process([notification(stat)]) == {"own": 1}
    assert scene.deliveries() == []


async def test_a_store_that_sends_metadata_is_not_queried_for_the_owner(scene: Scene) -> None:
    early = ceph(key="in/up/a.png", metadata=[{"key": f"x-amz-meta-{UPLOAD_ID_NAME}", "val": "01ABC-0"}])
    assert await scene.processor.process(parse_message(records(early)).notifications) == {"own": 1}


async def test_other_buckets_need_a_name_and_other_prefixes_are_ignored(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    other = ObjectNotification("other", "x//../y", "ObjectCreated:Copy", 1, "e")
    strange, outside = replace(other, bucket="strange"), replace(other, bucket="photos", key="inside")
    taken = await scene.processor.process([other, strange, strange, outside])
    assert taken == {"told": 1, "strange": 2, "outside": 1}
    (delivery,) = scene.deliveries()
    assert (delivery.body["key"], delivery.body["path"]) == ("x//../y", None)
    assert caplog.text.count("--object-buckets") == 1


async def test_an_object_that_is_gone_or_replaced_has_the_event_of_its_notification(
    scene: Scene,
) -> None:
    stat = await scene.object("up/a.png", metadata={"title": "old"})
    sent = notification(stat, metadata={"title": "of the notification"}, mime="image/jpeg")
    await scene.object("up/a.png", b"another", metadata={"title": "new"})
    await scene.processor.process([sent])
    (delivery,) = scene.deliveries()
    assert delivery.body["metadata"] == {"title": "of the notification"}
    assert (delivery.body["mime"], delivery.body["bytes"]) == ("image/jpeg", 5)


async def test_a_key_that_is_no_path_has_an_event_without_one(scene: Scene) -> None:
    notifications = parse_message(records(ceph(key="in/up//a.png"))).notifications
    await scene.processor.process(notifications)
    (delivery,) = scene.deliveries()
    assert (delivery.body["key"], delivery.body["path"]) == ("up//a.png", None)


async def test_while_the_journal_or_the_storage_is_unavailable_nothing_is_processed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = notification(await scene.object("up/a.png"))

    async def unavailable(*_: Any) -> Any:
        raise Refusal("storage_unavailable", "away")

    with monkeypatch.context() as patched:
        patched.setattr(scene.storage, "stat", unavailable)
        with pytest.raises(Refusal):
            await scene.processor.process([sent])
    scene.journal.close()
    with pytest.raises(EventEngineUnavailable):
        await scene.processor.process([sent])


# -- presigned uploads


async def test_the_event_has_the_metadata_of_the_url_if_the_store_kept_none(scene: Scene) -> None:
    await presign(scene)
    await scene.processor.process([notification(await scene.object("up/a.png"))])
    (delivery,) = scene.deliveries()
    assert delivery.body["metadata"] == {"title": "ü"}
    assert scene.ended() == {"finished": 1}


@pytest.mark.parametrize(
    ("content", "mime", "reason"),
    [(b"x" * 11, "image/png", "too_large"), (b"x", "text/html", "unsupported_media_type")],
)
@pytest.mark.parametrize("notified", [True, False])
async def test_an_object_that_no_url_allowed_is_removed_and_is_a_failed_upload(
    scene: Scene, content: bytes, mime: str, reason: str, notified: bool
) -> None:
    await presign(scene)
    stat = await scene.object("up/a.png", content, mime)
    if notified:
        assert await scene.processor.process([notification(stat)]) == {"removed": 1}
    else:
        scene.now += 121
        await scene.reconciler.check_due()
    assert not (scene.root / "up/a.png").exists()
    ((upload, code, size),) = scene.failures
    assert (upload.path, code, size) == ("/up/a.png", reason, len(content))
    assert scene.deliveries() == []
    assert scene.ended() == {"removed": 1}


async def test_an_object_that_one_of_several_urls_allowed_stays(scene: Scene) -> None:
    await presign(scene, max_length=3)
    await presign(scene)
    assert await scene.processor.process([notification(await scene.object("up/a.png"))]) == {"told": 1}


async def test_what_the_gateway_stored_is_never_removed(scene: Scene) -> None:
    await presign(scene)
    scene.stored.add(("01ABC-0", "/up/a.png"))
    stat = await scene.object("up/a.png", b"x" * 100, metadata={UPLOAD_ID_NAME: "01ABC-0"})
    assert await scene.processor.process([notification(stat)]) == {"own": 1}
    scene.now += 121
    await scene.reconciler.check_due()
    assert (scene.root / "up/a.png").exists()
    assert scene.deliveries() == []


@pytest.mark.parametrize("size", [5, 100], ids=["as the URL allows", "larger"])
@pytest.mark.parametrize("title", [{}, GRANT.metadata], ids=["no title", "the title of the URL"])
async def test_what_another_gateway_stored_is_never_removed_and_has_no_second_event(
    scene: Scene, size: int, title: dict[str, str]
) -> None:
    for metadata in ({}, GRANT.metadata):
        await presign(scene, metadata=metadata)
    mark = {UPLOAD_ID_NAME: "01ABC-1", MARK_NAME: MARKER.mark("01ABC-1", "/up/a.png"), **title}
    stat = await scene.object("up/a.png", b"x" * size, metadata=mark)
    assert await scene.processor.process([notification(stat)]) == {"own": 1}
    scene.now += 121
    await scene.reconciler.check_due()
    assert (scene.root / "up/a.png").exists()
    assert (scene.deliveries(), scene.failures) == ([], [])


async def test_the_mark_of_another_object_is_good_for_nothing(scene: Scene) -> None:
    await presign(scene, metadata={})
    mark = {UPLOAD_ID_NAME: "01ABC-1", MARK_NAME: MARKER.mark("01ABC-1", "/up/b.png")}
    stat = await scene.object("up/a.png", b"x" * 100, metadata=mark)
    assert await scene.processor.process([notification(stat)]) == {"removed": 1}


async def test_events_do_not_show_the_marks_of_a_gateway(scene: Scene) -> None:
    marked = {UPLOAD_ID_NAME: "01ABC-0", MARK_NAME: "m", "title": "Sunrise"}
    await scene.processor.process(
        [ObjectNotification("other", "x", "ObjectCreated:Put", 1, "e", metadata=marked)]
    )
    (delivery,) = scene.deliveries()
    assert delivery.body["metadata"] == {"title": "Sunrise"}


async def test_a_client_cannot_claim_that_the_gateway_stored_its_object(
    scene: Scene,
) -> None:
    await presign(scene)
    scene.stored.add(("01ABC-0", "/up/another.png"))  # a mark may be read off another object
    stat = await scene.object(
        "up/a.png", b"x" * 100, metadata={UPLOAD_ID_NAME: "01ABC-0", **GRANT.metadata}
    )
    assert await scene.processor.process([notification(stat)]) == {"removed": 1}
    stat = await scene.object(
        "up/a.png", b"small", metadata={UPLOAD_ID_NAME: "01ABC-0", **GRANT.metadata}
    )
    assert await scene.processor.process([notification(stat)]) == {"told": 1}


async def test_an_object_whose_notification_was_lost_has_its_event_after_a_while(scene: Scene) -> None:
    await presign(scene)
    stat = await scene.object("up/a.png")
    assert await scene.reconciler.check_due() == 0
    scene.now += 121
    assert await scene.reconciler.check_due() == 1
    (delivery,) = scene.deliveries()
    assert delivery.body["etag"] == stat.etag
    assert scene.ended() == {"reconciled": 1}
    # Its notification comes after all, as late as it likes while the URL is known.
    assert await scene.processor.process([notification(stat)]) == {"duplicate": 1}
    # The URL is used again: another object, the same bytes.
    again = await scene.object("up/a.png")
    assert await scene.processor.process(
        [notification(again, at=again.modified + 60, sequencer="02")]
    ) == {"told": 1}


async def test_a_check_publishes_nothing_twice(scene: Scene) -> None:
    await presign(scene)
    await scene.processor.process([notification(await scene.object("up/a.png"))])
    scene.now += 900 + UPLOAD_GRACE
    assert await scene.reconciler.check_due() == 1
    assert len(scene.deliveries()) == 1
    assert await scene.uploads.for_path("/up/a.png") == []
    assert scene.ended() == {"finished": 1}


async def test_an_upload_that_never_comes_is_removed_and_counted(scene: Scene) -> None:
    await presign(scene)
    while await scene.uploads.for_path("/up/a.png"):
        scene.now += 300
        await scene.reconciler.check_due()
        assert scene.now < scene.root.stat().st_mtime + 2 * UPLOAD_GRACE
    assert scene.ended() == {"expired": 1}
    assert scene.deliveries() == []


async def test_an_older_object_of_the_same_name_is_not_the_new_one(scene: Scene) -> None:
    await scene.object("up/a.png", b"x" * 100)
    os.utime(scene.root / "up/a.png", (scene.now - 3600, scene.now - 3600))
    await presign(scene)
    scene.now += 121
    await scene.reconciler.check_due()
    assert (scene.root / "up/a.png").exists()
    assert scene.deliveries() == []


async def test_an_unavailable_storage_is_queried_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await presign(scene)
    await scene.object("up/a.png")

    async def unavailable(*_: Any) -> Any:
        raise Refusal("storage_unavailable", "away")

    scene.now += 121
    with monkeypatch.context() as patched:
        patched.setattr(scene.storage, "stat", unavailable)
        with pytest.raises(Refusal):
            await scene.reconciler.check_due()
    scene.now += 241
    await scene.reconciler.check_due()
    assert len(scene.deliveries()) == 1


async def test_amazons_notifications_match_our_storage(scene: Scene) -> None:
    stat = await scene.object("up/hé llo+1.txt")
    notifications = parse_message(
        records(amazon(key="in/up/h%C3%A9+llo%2B1.txt", eTag=f'"{stat.etag}"', size=5))
    ).notifications
    await scene.processor.process(notifications)
    (delivery,) = scene.deliveries()
    assert (delivery.body["path"], delivery.body["mime"]) == ("/up/hé llo+1.txt", "image/png")


async def test_a_forged_mark_of_the_gateway_does_not_save_what_a_url_did_not_allow(scene: Scene) -> None:
    await presign(scene)
    forged = {UPLOAD_ID_NAME: "01ABC-0", "title": "ü"}
    stat = await scene.object("up/a.png", b"x" * 100, metadata=forged)
    assert await scene.processor.process([notification(stat)]) == {"removed": 1}
    stat = await scene.object("up/a.png", b"x", metadata=forged)
    assert await scene.processor.process([notification(stat)]) == {"told": 1}
    assert len(scene.deliveries()) == 1
