"""What the event of an object says of its metadata: what was signed, whatever the store has."""

from __future__ import annotations

import pytest

from gateway.endpoints.notifications.object_events import NotifiedObject, object_created_event
from gateway.endpoints.notifications.parser import parse_message
from gateway.endpoints.notifications.presigned_uploads import PresignedUpload
from gateway.storage.protocols import Stat
from tests.support.notifications.samples import ceph, records

Metadata = dict[str, str]
ADA: Metadata = {"owner": "ada", "title": "A"}


def told(stored: Metadata, *signed: Metadata) -> Metadata:
    """The metadata in the event of an object that has `stored`, where URLs with `signed` were given."""
    [notification] = parse_message(records(ceph())).notifications
    stat = Stat("/a.png", 8, 7.0, "e", "image/png", stored)
    urls = [
        PresignedUpload(str(n), "/a.png", 1.0, 9.0, 2.0, metadata=one) for n, one in enumerate(signed)
    ]
    found: Metadata = object_created_event(
        NotifiedObject(notification, "a.png", True, stat, urls), ("h",)
    ).body["metadata"]
    return found


@pytest.mark.parametrize(
    "stored",
    [ADA, {}, {**ADA, "owner": "bob"}, {**ADA, "surplus": "x"}, {"owner": "bob"}],
    ids=["kept", "lost", "changed", "more", "only what was not signed"],
)
def test_what_the_url_said_counts_whatever_the_store_took_from_the_client(stored: Metadata) -> None:
    assert told(stored, ADA) == ADA


def test_of_several_urls_it_is_the_one_whose_metadata_the_object_has() -> None:
    bob = {"owner": "bob"}
    assert told(bob, ADA, bob, {}) == bob
    assert told(ADA, {}, bob, ADA) == ADA
    assert told({}, ADA, bob) == ADA


def test_an_object_that_came_by_no_url_has_what_is_stored_with_it() -> None:
    assert told(ADA) == ADA
