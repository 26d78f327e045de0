"""The keys of events: what the journal keeps, and what a delivery adds."""

from __future__ import annotations

from pathlib import Path

from gateway.domain.event_bodies import (
    delivered_event,
    downloading_event,
    object_created_body,
    tick_body,
    upload_failed_event,
    uploaded_body,
    uploading_event,
)
from gateway.domain.model import EVENT_VERSION, UPLOADED, Delivery, Download, Upload
from gateway.domain.schedules import Every

UPLOAD = Upload("u", "/up/a", params={"q": ["1"]}, headers={"Host": "h"}, principal={"roles": ["r"]})


def delivery(body: dict[str, object], upload_id: str | None = "u") -> Delivery:
    return Delivery(0, "e", upload_id, UPLOADED, "h", 3, body)


def test_an_event_of_a_request_shares_nothing_that_can_change_with_the_upload() -> None:
    event = uploading_event(UPLOAD)
    event["params"]["q"].append("2")
    event["headers"]["Host"] = "x"
    event["principal"]["roles"].append("s")
    event["resources"]["name"] = "v"
    assert uploading_event(UPLOAD)["params"] == {"q": ["1"]} == UPLOAD.params
    assert UPLOAD.headers == {"Host": "h"}
    assert UPLOAD.principal == {"roles": ["r"]}
    assert UPLOAD.resources == {}


def test_the_files_of_an_archive_are_copied() -> None:
    download = Download("d", "/up/", files=["a"])
    downloading_event(download)["files"].append("b")
    assert download.files == ["a"]


def test_a_failed_upload_has_its_own_id_a_reason_and_the_bytes_that_came() -> None:
    event = upload_failed_event(UPLOAD, "incomplete_body", 2)
    assert (event["id"], event["reason"], event["bytes"]) == ("u.failed", "incomplete_body", 2)
    assert set(event) - set(uploading_event(UPLOAD)) == {"reason", "bytes"}


def test_a_delivery_adds_what_only_it_knows() -> None:
    body = uploaded_body(UPLOAD, mime="text/plain", size=4, digests={}, params={}, headers={})
    event = delivered_event(delivery(body), "10.0.0.1", 8080, Path("/srv"))
    assert event == body | {
        "address": "10.0.0.1",
        "port": 8080,
        "id": "e",
        "event_version": EVENT_VERSION,
        "attempt": 3,
        "upload_id": "u",
        "filepath": "/srv/up/a",
    }


def test_an_object_has_no_file_path() -> None:
    body = object_created_body(
        UPLOAD, path="/up/a", size=4, etag="x", mime="text/plain", digests={}, bucket="b"
    )
    assert delivered_event(delivery(body), "h", 1, None)["filepath"] is None
    assert delivered_event(delivery(body, None), "h", 1, Path("/srv"))["filepath"] is None


def test_the_key_of_a_stored_object_follows_its_final_path() -> None:
    body = object_created_body(UPLOAD, path="/up/a", size=4, etag="x", mime="text/plain", digests={})
    assert body["key"] == "up/a"
    event = delivered_event(delivery(body | {"path": "/up/a-1"}), "h", 1, None)
    assert (event["path"], event["key"]) == ("/up/a-1", "up/a-1")


def test_a_tick_has_neither_upload_nor_file() -> None:
    event = delivered_event(delivery(tick_body("nightly", Every(60), 120), None), "h", 1, Path("/srv"))
    assert event["scheduled_iso"] == "1970-01-01T00:02:00+00:00"
    assert not {"upload_id", "filepath", "path"} & set(event)
