"""An object has come: who is told, what is removed, what was known before, what was lost."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gateway.domain.event_bodies import delivered_event
from gateway.domain.grant import Grant
from gateway.domain.model import OBJECT_CREATED, Delivery, HandlerSpec, Upload
from gateway.endpoints.notifications.event_builder import NotificationScope
from gateway.endpoints.notifications.parser import ObjectNotification, read
from gateway.endpoints.notifications.presigned_uploads import GRACE, PresignedUploads
from gateway.endpoints.notifications.processor import NotificationProcessor
from gateway.endpoints.notifications.reconcile import PresignedUploadReconciler
from gateway.errors import EventEngineUnavailable, Refusal
from gateway.events.journal import Journal
from gateway.records import Records
from gateway.settings.values import Bucket
from gateway.signing import ObjectMarker
from gateway.storage.local.storage import LocalStorage
from gateway.storage.local.tree import DirectoryTree
from gateway.storage.local.xattrs import encode_xattr, write_xattr
from gateway.storage.protocols import Stat
from gateway.storage.s3.parts import MARK, OWNER
from gateway.telemetry.metrics import LoopCounter
from tests.support.notifications.samples import amazon, ceph, records
from tests.support.records import claimed

MARKER = ObjectMarker([b"k" * 32])


class Scene:
    """A bucket that is a folder, a journal, and handlers `all` and `images`. `now` is the clock."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self.root, self.journal = folder / "bucket", journal
        self.root.mkdir()
        self.tree = DirectoryTree(self.root, [], self.root.stat().st_dev)
        self.shelf = LocalStorage(self.tree)
        self.now = self.root.stat().st_mtime
        self.initiated = PresignedUploads(Records().own("initiated"), lambda: self.now)
        self.failed: list[tuple[Upload, str, int]] = []
        self.stored: set[tuple[str, str]] = set()
        self.notices = LoopCounter("notices", "", ["outcome"], CollectorRegistry())
        self.ends = LoopCounter("ends", "", ["end"], CollectorRegistry())
        self.handlers = [
            HandlerSpec("all", OBJECT_CREATED, 10.0),
            HandlerSpec("images", OBJECT_CREATED, 10.0, prefix=("up/",), suffix=(".png",)),
        ]
        where = NotificationScope(Bucket("photos", "in"), frozenset({"other"}))
        self.arrivals = NotificationProcessor(
            where,
            self.shelf,
            self.initiated,
            genuine=MARKER.is_genuine,
            stored=self.has_stored,
            publish=journal.outbox.publish,
            audience=lambda: self.handlers,
            failed=lambda *what: self.failed.append(what),
            notices=self.notices,
            ends=self.ends,
        )
        self.reconcile = PresignedUploadReconciler(
            self.initiated, self.arrivals, self.shelf, self.ends, 120.0
        )

    async def object(
        self,
        key: str,
        content: bytes = b"hello",
        mime: str = "image/png",
        metadata: dict[str, str] | None = None,
    ) -> Stat:
        """Put an object into the bucket, past everybody."""
        place = self.root / key
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        with place.open("rb") as file:
            write_xattr(file.fileno(), encode_xattr(f"/{key}", mime, metadata or {}) or b"{}")
        return await self.shelf.stat(f"/{key}")

    async def has_stored(self, upload_id: str, path: str) -> bool:
        return (upload_id, path) in self.stored

    def told(self, handler: str = "all") -> list[Delivery]:
        return claimed(self.journal, handler, 100)

    def ended(self) -> dict[str, float]:
        return {
            sample.labels["end"]: sample.value for one in self.ends.collect() for sample in one.samples
        }


@pytest.fixture
def scene(tmp_path: Path, journal: Journal) -> Iterator[Scene]:
    made = Scene(tmp_path, journal)
    with contextlib.closing(made.tree):
        yield made


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal.db", full=False)
    opened.open()
    yield opened
    opened.close()


def notice(stat: Stat, **changes: Any) -> ObjectNotification:
    """What a store would tell of an object: no type, no metadata."""
    said = ObjectNotification(
        "photos", f"in{stat.path}", "ObjectCreated:Put", stat.bytes, stat.etag, None, "01"
    )
    return replace(said, **{"at": stat.modified, **changes})


GRANT = Grant("PUT", "/up/a.png", 0, "image/png", max_length=10, metadata={"title": "ü"})


async def given(scene: Scene, **changes: Any) -> None:
    await scene.initiated.remember(replace(GRANT, expires=int(scene.now) + 900, **changes))


async def test_a_notice_becomes_an_event_with_what_the_store_knows_of_the_object(scene: Scene) -> None:
    stat = await scene.object("up/a.png", mime="image/x-own", metadata={"title": "Sunrise"})
    assert await scene.arrivals.take([notice(stat)]) == {"told": 1}
    (delivery,) = scene.told()
    event = delivered_event(delivery, "h", 1, None)
    assert (event["bucket"], event["key"], event["path"]) == ("photos", "up/a.png", "/up/a.png")
    assert (event["mime"], event["metadata"]) == ("image/x-own", {"title": "Sunrise"})
    assert (event["bytes"], event["etag"], event["sequencer"]) == (5, stat.etag, "01")
    assert (event["upload_id"], event["filepath"]) == (None, None)
    assert [one.event_id for one in scene.told("images")] == [delivery.event_id]


async def test_only_handlers_whose_filter_fits_the_key_within_the_storage_are_told(
    scene: Scene,
) -> None:
    await scene.arrivals.take([notice(await scene.object("up/a.txt"))])
    assert len(scene.told()) == 1
    assert scene.told("images") == []
    scene.handlers = scene.handlers[1:]
    assert await scene.arrivals.take([notice(await scene.object("b.png"))]) == {"unwanted": 1}


async def test_a_repetition_makes_no_second_event(scene: Scene) -> None:
    said = notice(await scene.object("up/a.png"))
    await scene.arrivals.take([said, replace(said, event_name="ObjectCreated:CompleteMultipartUpload")])
    await scene.arrivals.take([said])
    assert len(scene.told()) == 1


async def test_what_the_gateway_itself_stored_is_not_told_again(scene: Scene) -> None:
    stat = await scene.object("up/a.png", metadata={OWNER: "01ABC-0"})
    assert await scene.arrivals.take([notice(stat)]) == {"own": 1}
    assert scene.told() == []


async def test_a_store_that_tells_metadata_need_not_be_asked_who_stored_it(scene: Scene) -> None:
    early = ceph(key="in/up/a.png", metadata=[{"key": f"x-amz-meta-{OWNER}", "val": "01ABC-0"}])
    assert await scene.arrivals.take(read(records(early)).notices) == {"own": 1}


async def test_other_buckets_need_a_name_and_other_prefixes_are_ignored(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    other = ObjectNotification("other", "x//../y", "ObjectCreated:Copy", 1, "e")
    strange, outside = replace(other, bucket="strange"), replace(other, bucket="photos", key="inside")
    taken = await scene.arrivals.take([other, strange, strange, outside])
    assert taken == {"told": 1, "strange": 2, "outside": 1}
    (delivery,) = scene.told()
    assert (delivery.body["key"], delivery.body["path"]) == ("x//../y", None)
    assert caplog.text.count("--object-buckets") == 1


async def test_an_object_that_is_gone_or_replaced_is_told_as_its_notice_says(scene: Scene) -> None:
    stat = await scene.object("up/a.png", metadata={"title": "old"})
    said = notice(stat, metadata={"title": "of the notice"}, mime="image/jpeg")
    await scene.object("up/a.png", b"another", metadata={"title": "new"})
    await scene.arrivals.take([said])
    (delivery,) = scene.told()
    assert delivery.body["metadata"] == {"title": "of the notice"}
    assert (delivery.body["mime"], delivery.body["bytes"]) == ("image/jpeg", 5)


async def test_a_key_that_is_no_path_is_told_without_one(scene: Scene) -> None:
    found = read(records(ceph(key="in/up//a.png"))).notices
    await scene.arrivals.take(found)
    (delivery,) = scene.told()
    assert (delivery.body["key"], delivery.body["path"]) == ("up//a.png", None)


async def test_where_the_journal_or_the_storage_is_away_nothing_is_taken(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = notice(await scene.object("up/a.png"))

    async def away(*_: Any) -> Any:
        raise Refusal("storage_unavailable", "away")

    with monkeypatch.context() as patched:
        patched.setattr(scene.shelf, "stat", away)
        with pytest.raises(Refusal):
            await scene.arrivals.take([said])
    scene.journal.close()
    with pytest.raises(EventEngineUnavailable):
        await scene.arrivals.take([said])


# -- objects that were to come


async def test_the_event_has_the_metadata_of_the_url_where_the_store_kept_none(scene: Scene) -> None:
    await given(scene)
    await scene.arrivals.take([notice(await scene.object("up/a.png"))])
    (delivery,) = scene.told()
    assert delivery.body["metadata"] == {"title": "ü"}
    assert scene.ended() == {"finished": 1}


@pytest.mark.parametrize(
    ("content", "mime", "reason"),
    [(b"x" * 11, "image/png", "too_large"), (b"x", "text/html", "unsupported_media_type")],
)
@pytest.mark.parametrize("notified", [True, False])
async def test_an_object_that_no_url_allowed_is_removed_and_told_as_failed(
    scene: Scene, content: bytes, mime: str, reason: str, notified: bool
) -> None:
    await given(scene)
    stat = await scene.object("up/a.png", content, mime)
    if notified:
        assert await scene.arrivals.take([notice(stat)]) == {"removed": 1}
    else:
        scene.now += 121
        await scene.reconcile.look()
    assert not (scene.root / "up/a.png").exists()
    ((upload, told, size),) = scene.failed
    assert (upload.path, told, size) == ("/up/a.png", reason, len(content))
    assert scene.told() == []
    assert scene.ended() == {"removed": 1}


async def test_an_object_that_one_of_several_urls_allowed_stays(scene: Scene) -> None:
    await given(scene, max_length=3)
    await given(scene)
    assert await scene.arrivals.take([notice(await scene.object("up/a.png"))]) == {"told": 1}


async def test_what_the_gateway_stored_is_never_removed(scene: Scene) -> None:
    await given(scene)
    scene.stored.add(("01ABC-0", "/up/a.png"))
    stat = await scene.object("up/a.png", b"x" * 100, metadata={OWNER: "01ABC-0"})
    assert await scene.arrivals.take([notice(stat)]) == {"own": 1}
    scene.now += 121
    await scene.reconcile.look()
    assert (scene.root / "up/a.png").exists()
    assert scene.told() == []


@pytest.mark.parametrize("size", [5, 100], ids=["as the URL allows", "larger"])
@pytest.mark.parametrize("title", [{}, GRANT.metadata], ids=["no title", "the title of the URL"])
async def test_what_another_gateway_stored_is_never_removed_and_never_told_again(
    scene: Scene, size: int, title: dict[str, str]
) -> None:
    for metadata in ({}, GRANT.metadata):
        await given(scene, metadata=metadata)
    mark = {OWNER: "01ABC-1", MARK: MARKER.mark("01ABC-1", "/up/a.png"), **title}
    stat = await scene.object("up/a.png", b"x" * size, metadata=mark)
    assert await scene.arrivals.take([notice(stat)]) == {"own": 1}
    scene.now += 121
    await scene.reconcile.look()
    assert (scene.root / "up/a.png").exists()
    assert (scene.told(), scene.failed) == ([], [])


async def test_the_mark_of_another_object_is_good_for_nothing(scene: Scene) -> None:
    await given(scene, metadata={})
    mark = {OWNER: "01ABC-1", MARK: MARKER.mark("01ABC-1", "/up/b.png")}
    stat = await scene.object("up/a.png", b"x" * 100, metadata=mark)
    assert await scene.arrivals.take([notice(stat)]) == {"removed": 1}


async def test_handlers_are_not_told_by_what_a_gateway_knows_its_own(scene: Scene) -> None:
    marked = {OWNER: "01ABC-0", MARK: "m", "title": "Sunrise"}
    await scene.arrivals.take(
        [ObjectNotification("other", "x", "ObjectCreated:Put", 1, "e", metadata=marked)]
    )
    (delivery,) = scene.told()
    assert delivery.body["metadata"] == {"title": "Sunrise"}


async def test_a_client_who_says_that_the_gateway_stored_its_object_is_not_believed(
    scene: Scene,
) -> None:
    await given(scene)
    scene.stored.add(("01ABC-0", "/up/another.png"))  # a mark may be read off another object
    stat = await scene.object("up/a.png", b"x" * 100, metadata={OWNER: "01ABC-0", **GRANT.metadata})
    assert await scene.arrivals.take([notice(stat)]) == {"removed": 1}
    stat = await scene.object("up/a.png", b"small", metadata={OWNER: "01ABC-0", **GRANT.metadata})
    assert await scene.arrivals.take([notice(stat)]) == {"told": 1}


async def test_an_object_whose_notification_was_lost_is_told_after_a_while(scene: Scene) -> None:
    await given(scene)
    stat = await scene.object("up/a.png")
    assert await scene.reconcile.look() == 0
    scene.now += 121
    assert await scene.reconcile.look() == 1
    (delivery,) = scene.told()
    assert delivery.body["etag"] == stat.etag
    assert scene.ended() == {"reconciled": 1}
    # Its notification comes after all, as late as it likes while the URL is known.
    assert await scene.arrivals.take([notice(stat)]) == {"duplicate": 1}
    # Somebody uses the URL again: another object, the same bytes.
    again = await scene.object("up/a.png")
    assert await scene.arrivals.take([notice(again, at=again.modified + 60, sequencer="02")]) == {
        "told": 1
    }


async def test_a_look_tells_nothing_twice(scene: Scene) -> None:
    await given(scene)
    await scene.arrivals.take([notice(await scene.object("up/a.png"))])
    scene.now += 900 + GRACE
    assert await scene.reconcile.look() == 1
    assert len(scene.told()) == 1
    assert await scene.initiated.of("/up/a.png") == []
    assert scene.ended() == {"finished": 1}


async def test_what_never_comes_is_forgotten_and_counted(scene: Scene) -> None:
    await given(scene)
    while await scene.initiated.of("/up/a.png"):
        scene.now += 300
        await scene.reconcile.look()
        assert scene.now < scene.root.stat().st_mtime + 2 * GRACE
    assert scene.ended() == {"expired": 1}
    assert scene.told() == []


async def test_an_older_object_of_the_same_name_is_not_taken_for_the_new_one(scene: Scene) -> None:
    await scene.object("up/a.png", b"x" * 100)
    os.utime(scene.root / "up/a.png", (scene.now - 3600, scene.now - 3600))
    await given(scene)
    scene.now += 121
    await scene.reconcile.look()
    assert (scene.root / "up/a.png").exists()
    assert scene.told() == []


async def test_a_storage_that_is_away_is_asked_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await given(scene)
    await scene.object("up/a.png")

    async def away(*_: Any) -> Any:
        raise Refusal("storage_unavailable", "away")

    scene.now += 121
    with monkeypatch.context() as patched:
        patched.setattr(scene.shelf, "stat", away)
        with pytest.raises(Refusal):
            await scene.reconcile.look()
    scene.now += 241
    await scene.reconcile.look()
    assert len(scene.told()) == 1


async def test_amazons_notices_fit_our_storage(scene: Scene) -> None:
    stat = await scene.object("up/hé llo+1.txt")
    found = read(records(amazon(key="in/up/h%C3%A9+llo%2B1.txt", eTag=f'"{stat.etag}"', size=5))).notices
    await scene.arrivals.take(found)
    (delivery,) = scene.told()
    assert (delivery.body["path"], delivery.body["mime"]) == ("/up/hé llo+1.txt", "image/png")


async def test_a_forged_mark_of_the_gateway_does_not_save_what_a_url_did_not_allow(scene: Scene) -> None:
    await given(scene)
    forged = {OWNER: "01ABC-0", "title": "ü"}
    stat = await scene.object("up/a.png", b"x" * 100, metadata=forged)
    assert await scene.arrivals.take([notice(stat)]) == {"removed": 1}
    stat = await scene.object("up/a.png", b"x", metadata=forged)
    assert await scene.arrivals.take([notice(stat)]) == {"told": 1}
    assert len(scene.told()) == 1
