"""What object stores send: every form of it read, keys decoded once, junk named."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.endpoints.notifications.object_events import object_event_id
from gateway.endpoints.notifications.parser import MAX_ENVELOPES, MAX_RECORDS, parse_message
from gateway.errors import Refusal
from tests.support.notifications.samples import (
    KEY,
    TEST_EVENT,
    amazon,
    ceph,
    minio,
    minio_form,
    moto,
    records,
    sns,
)


@pytest.mark.parametrize("sample", [ceph, amazon, moto, minio], ids=lambda sample: sample.__name__)
def test_every_sender_is_understood(sample: Any) -> None:
    (notice,) = parse_message(records(sample())).notifications
    assert (notice.bucket, notice.key, notice.bytes) == ("photos", KEY, 11)
    assert notice.event_name == "ObjectCreated:Put"
    assert notice.etag == "5eb63bbbe01eeed093cb22bb8f5acdc3"
    assert notice.version is None
    assert notice.at == pytest.approx(1795255201, abs=1)


def test_metadata_and_type_are_read_where_the_sender_tells_them() -> None:
    assert parse_message(records(ceph())).notifications[0].metadata == {"uid": "7"}
    (notice,) = parse_message(minio_form(minio())).notifications
    assert (notice.metadata, notice.mime) == ({"uid": "7"}, "text/plain")
    assert parse_message(records(amazon())).notifications[0].metadata is None


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(sns(records(amazon()))).encode(),
        json.dumps(
            {"Records": [{"eventSource": "aws:sqs", "body": records(amazon()).decode()}]}
        ).encode(),
        json.dumps(
            {"Records": [{"messageId": "1", "body": json.dumps(sns(records(amazon())))}]}
        ).encode(),
        json.dumps({"Records": [{"EventSource": "aws:sns", "Sns": sns(records(amazon()))}]}).encode(),
    ],
    ids=["sns", "sqs", "sns in sqs", "sns to lambda"],
)
def test_envelopes_are_opened(body: bytes) -> None:
    assert [notice.key for notice in parse_message(body).notifications] == [KEY]


def test_a_test_event_says_nothing() -> None:
    assert parse_message(TEST_EVENT).notifications == ()
    assert parse_message(json.dumps(sns(TEST_EVENT)).encode()).notifications == ()


def test_several_records_are_read_and_other_events_counted() -> None:
    removed = amazon() | {"eventName": "ObjectRemoved:Delete"}
    message = parse_message(records(amazon(), removed, ceph(key="b")))
    assert [notice.key for notice in message.notifications] == [KEY, "b"]
    assert message.ignored == 1


def test_a_confirmation_is_no_notification() -> None:
    message = parse_message(json.dumps(sns(b"You have chosen", "SubscriptionConfirmation")).encode())
    assert message.notifications == ()
    assert message.envelope is not None


@given(st.text(min_size=1, max_size=60))
def test_a_key_comes_out_as_it_went_in_however_it_was_encoded(key: str) -> None:
    try:
        key.encode()
    except UnicodeEncodeError:
        with pytest.raises(Refusal):
            parse_message(records(ceph(key=key)))
        return
    senders = [ceph(key=key), amazon(key=quote_plus(key, safe="/")), moto() | {}]
    senders[2]["s3"]["object"]["key"] = quote_plus(key)
    senders.append(amazon(key=quote(key)))
    assert [notice.key for notice in parse_message(records(*senders)).notifications] == [key] * 4


@pytest.mark.parametrize(
    ("said", "meant"),
    [("100%2525", "100%25"), ("a%2Bb", "a+b"), ("a+b", "a b"), ("%2e%2e%2Fx", "../x")],
)
def test_a_key_is_decoded_exactly_once(said: str, meant: str) -> None:
    assert parse_message(records(amazon(key=said))).notifications[0].key == meant
    assert parse_message(records(ceph(key=said))).notifications[0].key == said


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", "the body is no JSON"),
        (b"\xff", "the body is no JSON"),
        (b"[" * 100_000, "the body is no JSON"),
        (b"[]", "no JSON object"),
        (b"{}", "`Records`"),
        (b'{"Records": {}}', "`Records`"),
        (b'{"Records": [7]}', "Records[0] is no object"),
        (b'{"Records": [{}]}', "Records[0].eventName"),
        (records(amazon() | {"s3": 7}), "Records[0].s3 is missing"),
        (records(amazon(), amazon(key="")), "Records[1].s3.object.key"),
        (records(amazon(key="100%")), "not URL-encoded"),
        (records(amazon(key="%ff")), "no UTF-8"),
        (records(ceph(key="x" * 1025)), "1024"),
        (records(*[ceph()] * (MAX_RECORDS + 1)), "records"),
        (json.dumps(sns(b"hello")).encode(), "the body.Message is no JSON"),
    ],
)
def test_junk_is_refused_with_the_place_where_it_is(body: bytes, place: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_message(body)
    assert caught.value.code == "bad_request"
    assert place in caught.value.message


def test_envelopes_within_envelopes_come_to_an_end() -> None:
    body = records(amazon())
    for _ in range(MAX_ENVELOPES + 1):
        body = json.dumps(sns(body)).encode()
    with pytest.raises(Refusal, match="envelopes"):
        parse_message(body)


# -- what is the same object


def ids(*samples: dict[str, Any]) -> list[str]:
    return [object_event_id(notice) for notice in parse_message(records(*samples)).notifications]


def test_a_repetition_and_the_second_notification_of_a_multipart_upload_have_one_id() -> None:
    complete = amazon() | {"eventName": "ObjectCreated:CompleteMultipartUpload", "eventTime": "later"}
    assert len(set(ids(amazon(), amazon(), complete))) == 1


@pytest.mark.parametrize(
    "changes", [{"key": "b"}, {"eTag": "other"}, {"sequencer": "1F"}, {"versionId": "v2"}]
)
def test_another_object_has_another_id(changes: dict[str, str]) -> None:
    assert len(set(ids(amazon(), amazon(**changes)))) == 2


def test_a_version_is_one_object_whatever_else_is_said() -> None:
    assert len(set(ids(amazon(versionId="v1"), amazon(versionId="v1", sequencer="99")))) == 1
    assert len(set(ids(amazon(versionId="v1"), amazon(versionId="v2")))) == 2


def test_what_has_neither_version_nor_etag_nor_sequencer_is_told_apart_by_its_date() -> None:
    bare = ceph(eTag="", sequencer="")
    assert len(set(ids(bare, bare))) == 1
    assert len(set(ids(bare, bare | {"eventTime": "2026-11-21T11:00:00Z"}))) == 2


def test_metadata_with_names_that_are_none_is_passed_over() -> None:
    record = ceph()
    record["s3"]["object"]["metadata"] = [{"key": [], "val": "x"}, {"key": {}}, {"key": None}, 7]
    assert parse_message(records(record)).notifications[0].metadata == {}
