"""Parses notifications of Amazon S3 (from SNS, SQS or Lambda, wrapped or raw), Ceph, MinIO and the like.

The key of an object is decoded exactly once, as its sender encodes it; a refusal names the place of
the error. Pure. Source: Amazon S3 user guide, "Event message structure".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote_plus

from gateway.domain.json_text import parse_json
from gateway.domain.metadata import METADATA_PREFIX
from gateway.errors import Refusal

MAX_RECORDS: Final = 1000
"""Records of one request."""

MAX_ENVELOPES: Final = 4
"""Nested envelopes: SQS around SNS around S3, and one to spare."""

MAX_KEY_BYTES: Final = 1024
"""Bytes of an object's key."""

_PLAIN: Final = ("ceph:",)
"""Prefixes of the `eventSource` of senders with unencoded keys. All others encode keys as forms do:
`+` for a blank, `%2B` for a plus. (Amazon's rule; MinIO, moto and RustFS follow it.)"""

_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class ObjectNotification:
    """One created object, as its store reports it.

    `key` is decoded. A field is None if the store does not send it; `metadata` has names without
    `x-amz-meta-`. `at` is the time of the event by the store's clock, Unix seconds.
    """

    bucket: str
    key: str
    event_name: str
    bytes: int | None = None
    etag: str | None = None
    version: str | None = None
    sequencer: str | None = None
    mime: str | None = None
    metadata: Mapping[str, str] | None = None
    at: float | None = None


@dataclass(frozen=True, slots=True)
class NotificationMessage:
    """One request: the created objects, and the number of other records, which are ignored.

    `envelope` is that of Amazon SNS, if there is one; `secrets` are the `opaqueData` of all records.
    """

    notifications: tuple[ObjectNotification, ...] = ()
    ignored: int = 0
    envelope: Mapping[str, Any] | None = None
    secrets: tuple[str | None, ...] = ()


def parse_message(body: bytes) -> NotificationMessage:
    """Parse the body of a request. Raises `Refusal("bad_request")` that names the place of the error."""
    message = _object(body, "the body")
    kind = message.get("Type")
    envelope = message if isinstance(kind, str) and "TopicArn" in message else None
    if envelope is not None and kind != "Notification":
        return NotificationMessage(envelope=envelope)
    records = list(_records(message, "the body", 0))
    if len(records) > MAX_RECORDS:
        raise _bad(f"there are more than {MAX_RECORDS} records")
    notifications = [
        _notification(record, place) for record, place in records if _is_created(record, place)
    ]
    return NotificationMessage(
        tuple(notifications),
        len(records) - len(notifications),
        envelope,
        tuple(_text(record.get("opaqueData")) for record, _ in records),
    )


def _records(value: Any, place: str, depth: int) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield the records of a message with their places; envelopes are removed."""
    if depth > MAX_ENVELOPES:
        raise _bad(f"{place} is wrapped in too many envelopes")
    message = _object(value, place)
    if message.get("Event") == "s3:TestEvent":
        return
    if isinstance(message.get("Message"), str) and "TopicArn" in message:
        yield from _records(message["Message"], f"{place}.Message", depth + 1)
        return
    records = message.get("Records")
    if not isinstance(records, list):
        raise _bad(f"{place} has no list `Records`")
    for index, record in enumerate(records):
        here = f"{place}.Records[{index}]"
        if not isinstance(record, dict):
            raise _bad(f"{here} is no object")
        inner = _wrapped(record)
        if inner is None:
            yield record, here
        else:
            yield from _records(inner, f"{here}.body", depth + 1)


def _object(value: Any, place: str) -> Mapping[str, Any]:
    """Return a JSON object, given as such or as text."""
    if isinstance(value, str | bytes):
        try:
            value = parse_json(value)
        except (ValueError, RecursionError):
            raise _bad(f"{place} is no JSON") from None
    if not isinstance(value, dict):
        raise _bad(f"{place} is no JSON object")
    return value


def _wrapped(record: Mapping[str, Any]) -> Any:
    """Return the content of a record of SQS or of SNS (as Lambda gets them), None for one of S3."""
    if isinstance(record.get("body"), str) and "s3" not in record:
        return record["body"]
    if isinstance(record.get("Sns"), dict):
        return record["Sns"]
    return None


def _is_created(record: Mapping[str, Any], place: str) -> bool:
    name = record.get("eventName")
    if not isinstance(name, str) or not name:
        raise _bad(f"{place}.eventName is missing")
    return name.removeprefix("s3:").startswith("ObjectCreated:")


def _notification(record: Mapping[str, Any], place: str) -> ObjectNotification:
    s3 = _part(record, "s3", place)
    bucket = _text(_part(s3, "bucket", f"{place}.s3").get("name"))
    created = _part(s3, "object", f"{place}.s3")
    if not bucket:
        raise _bad(f"{place}.s3.bucket.name is missing")
    version = _text(created.get("versionId"))
    return ObjectNotification(
        bucket=bucket,
        key=_key(created.get("key"), str(record.get("eventSource", "")), f"{place}.s3.object.key"),
        event_name=str(record["eventName"]).removeprefix("s3:")[:100],
        bytes=_size(created.get("size")),
        etag=(_text(created.get("eTag")) or "").strip('"') or None,
        # A bucket without versioning, or with versioning suspended, sends `null`: it identifies nothing.
        version=None if version in {None, "null"} else version,
        sequencer=_text(created.get("sequencer")),
        mime=_text(created.get("contentType")),
        metadata=_metadata(created),
        at=_timestamp(record.get("eventTime")),
    )


def _key(value: Any, source: str, place: str) -> str:
    if not isinstance(value, str) or not value:
        raise _bad(f"{place} is missing")
    key = value
    if not source.startswith(_PLAIN):
        if _BROKEN_ESCAPE.search(value):
            raise _bad(f"{place} is not URL-encoded, as {source or 'its sender'} must encode it")
        try:
            key = unquote_plus(value, errors="strict")
        except UnicodeDecodeError:
            raise _bad(f"{place} is no UTF-8") from None
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise _bad(f"{place} is no Unicode text") from None
    if size > MAX_KEY_BYTES:
        raise _bad(f"{place} has more than {MAX_KEY_BYTES} bytes")
    return key


def _metadata(created: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the metadata that Ceph (a list of key and val) or MinIO (a mapping) send; None if none."""
    metadata = created.get("metadata", created.get("userMetadata"))
    if isinstance(metadata, list):
        named = [
            pair for pair in metadata if isinstance(pair, dict) and isinstance(pair.get("key"), str)
        ]
        metadata = {pair["key"]: pair.get("val") for pair in named}
    if not isinstance(metadata, dict):
        return None
    pairs = ((str(name).lower(), value) for name, value in metadata.items() if isinstance(value, str))
    return {
        name.removeprefix(METADATA_PREFIX): value
        for name, value in pairs
        if name.startswith(METADATA_PREFIX)
    }


def _part(whole: Mapping[str, Any], name: str, place: str) -> Mapping[str, Any]:
    part = whole.get(name)
    if not isinstance(part, dict):
        raise _bad(f"{place}.{name} is missing")
    return part


def _text(value: Any) -> str | None:
    return value[:2000] if isinstance(value, str) and value else None


def _size(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _timestamp(value: Any) -> float | None:
    try:
        return datetime.fromisoformat(value).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _bad(reason: str) -> Refusal:
    return Refusal("bad_request", f"this is no notification of an object store: {reason}")
