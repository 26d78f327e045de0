"""What the commit tells of an object: to whom, with which keys, in the transaction of its upload."""

from __future__ import annotations

import pytest

from gateway.commit.records import Subscribers
from gateway.domain.event_bodies import delivered_event
from gateway.domain.model import OBJECT_CREATED, UPLOADED, HandlerSpec
from gateway.events.protocols import Selection
from tests.support.committer import CommitterHarness
from tests.support.records import claim_deliveries


def watcher(name: str, *, prefix: tuple[str, ...] = (), suffix: tuple[str, ...] = ()) -> HandlerSpec:
    return HandlerSpec(name, OBJECT_CREATED, 10.0, prefix=prefix, suffix=suffix)


async def test_one_upload_tells_those_of_uploads_and_those_of_objects(harness: CommitterHarness) -> None:
    harness.watchers = [watcher("w"), watcher("not", prefix=("elsewhere/",))]
    stored = await harness.commit("/upload/a.bin", b"abc")
    page = await harness.journal.ledger.page(Selection(), None, 10)
    assert {(row.event, row.handler) for row in page.rows} == {(UPLOADED, "h"), (OBJECT_CREATED, "w")}
    assert await harness.claimable() == ["/upload/a.bin"]  # released by now
    (created,) = claim_deliveries(harness.journal, "w")
    assert created.upload_id == stored.upload_id
    event = delivered_event(created, "127.0.0.1", 1, harness.root)
    assert (event["key"], event["path"], event["bytes"]) == ("upload/a.bin", "/upload/a.bin", 3)
    assert event["filepath"] == str(harness.root / "upload/a.bin")


async def test_the_key_follows_a_name_that_was_chosen(harness: CommitterHarness) -> None:
    harness.watchers = [watcher("w", suffix=(".bin",))]
    await harness.commit("/upload/a.bin", b"abc")
    await harness.commit("/upload/a.bin", b"abcd", on_conflict="rename")
    assert len(await harness.claimable()) == 2
    events = [
        delivered_event(one, "127.0.0.1", 1, None) for one in claim_deliveries(harness.journal, "w", 10)
    ]
    assert [event["key"] for event in events] == ["upload/a.bin", "upload/a-1.bin"]
    assert [event["filepath"] for event in events] == [None, None]


@pytest.mark.parametrize(
    ("prefix", "suffix", "key", "told"),
    [
        ((), (), "a", True),
        (("a/",), (), "a/b", True),
        (("a/", "c/"), (), "c/b", True),
        (("a/",), (), "ab", False),
        ((), (".jpg", ".png"), "x.png", True),
        ((), (".jpg",), "x.JPG", False),
        (("up/",), (".jpg",), "up/x.gif", False),
        (("up/",), (".jpg",), "x.jpg", False),
    ],
)
def test_a_filter_lets_through_what_fits_both_ends(
    prefix: tuple[str, ...], suffix: tuple[str, ...], key: str, told: bool
) -> None:
    audience = Subscribers(created=(watcher("w", prefix=prefix, suffix=suffix),))
    assert audience.of_object(key) == (("w",) if told else ())
