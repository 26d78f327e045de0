"""What object stores send, read into one form.

One rule: the key of an object is decoded exactly once, as its sender encodes it; what cannot be
read is refused with words that name the place. Pure.

Senders whose form is known: Amazon S3 (directly from SNS, SQS or Lambda, wrapped or raw), Ceph,
MinIO, and what follows them. Source: Amazon S3 user guide, "Event message structure".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote_plus

from gateway.domain.metadata import METADATA_PREFIX
from gateway.errors import Refusal

MOST_RECORDS: Final = 1000
"""Records of one request."""

DEEPEST: Final = 4
"""Envelopes within envelopes: SQS around SNS around S3, and one to spare."""

LONGEST_KEY: Final = 1024
"""Bytes of an object's key."""

_PLAIN: Final = ("ceph:",)
"""How the `eventSource` of those begins who write keys as they are. All others encode them as a form
does: `+` for a blank, `%2B` for a plus. (Amazon's rule; MinIO, moto and RustFS keep to it.)"""

_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class ObjectNotification:
    """One object that was created, as its store tells it.

    `key` is the object's, decoded. What a store does not tell is None; `metadata` has names without
    `x-amz-meta-`. `at` is when it happened, Unix seconds, by the store's clock.
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
    """What one request said: the objects that were created, and how many other things were told of.

    `envelope` is that of Amazon's notification service, where there was one; `secrets` are the
    texts of all records, also of those that tell of something else.
    """

    notices: tuple[ObjectNotification, ...] = ()
    others: int = 0
    envelope: Mapping[str, Any] | None = None
    secrets: tuple[str | None, ...] = ()


def read(body: bytes) -> NotificationMessage:
    """Read a request's body. Raises `Refusal("bad_request")` that names what is wrong, and where."""
    said = _object(body, "the body")
    kind = said.get("Type")
    envelope = said if isinstance(kind, str) and "TopicArn" in said else None
    if envelope is not None and kind != "Notification":
        return NotificationMessage(envelope=envelope)
    records = list(_records(said, "the body", 0))
    if len(records) > MOST_RECORDS:
        raise _bad(f"there are more than {MOST_RECORDS} records")
    notices = [_notice(record, place) for record, place in records if _is_created(record, place)]
    return NotificationMessage(
        tuple(notices),
        len(records) - len(notices),
        envelope,
        tuple(_text(record.get("opaqueData")) for record, _ in records),
    )


def _records(said: Any, place: str, depth: int) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield the records of a message, each with its place, whatever it is wrapped in."""
    if depth > DEEPEST:
        raise _bad(f"{place} is wrapped in too many envelopes")
    said = _object(said, place)
    if said.get("Event") == "s3:TestEvent":
        return
    if isinstance(said.get("Message"), str) and "TopicArn" in said:
        yield from _records(said["Message"], f"{place}.Message", depth + 1)
        return
    records = said.get("Records")
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


def _object(said: Any, place: str) -> Mapping[str, Any]:
    """Return what is an object, or the text of one."""
    if isinstance(said, str | bytes):
        try:
            said = json.loads(said)
        except (ValueError, RecursionError):
            raise _bad(f"{place} is no JSON") from None
    if not isinstance(said, dict):
        raise _bad(f"{place} is no JSON object")
    return said


def _wrapped(record: Mapping[str, Any]) -> Any:
    """Return what a record of SQS or of SNS (as Lambda gets them) carries, None for one of S3."""
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


def _notice(record: Mapping[str, Any], place: str) -> ObjectNotification:
    s3 = _part(record, "s3", place)
    bucket = _text(_part(s3, "bucket", f"{place}.s3").get("name"))
    found = _part(s3, "object", f"{place}.s3")
    if not bucket:
        raise _bad(f"{place}.s3.bucket.name is missing")
    version = _text(found.get("versionId"))
    told = _metadata(found)
    return ObjectNotification(
        bucket=bucket,
        key=_key(found.get("key"), str(record.get("eventSource", "")), f"{place}.s3.object.key"),
        event_name=str(record["eventName"]).removeprefix("s3:")[:100],
        bytes=_size(found.get("size")),
        etag=(_text(found.get("eTag")) or "").strip('"') or None,
        # A bucket without versions, or one that has no more of them, says `null`: no name of its own.
        version=None if version in {None, "null"} else version,
        sequencer=_text(found.get("sequencer")),
        mime=_text(found.get("contentType")),
        metadata=told,
        at=_moment(record.get("eventTime")),
    )


def _key(said: Any, source: str, place: str) -> str:
    if not isinstance(said, str) or not said:
        raise _bad(f"{place} is missing")
    key = said
    if not source.startswith(_PLAIN):
        if _BROKEN_ESCAPE.search(said):
            raise _bad(f"{place} is not URL-encoded, as {source or 'its sender'} should have it")
        try:
            key = unquote_plus(said, errors="strict")
        except UnicodeDecodeError:
            raise _bad(f"{place} is no UTF-8") from None
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise _bad(f"{place} is no Unicode text") from None
    if size > LONGEST_KEY:
        raise _bad(f"{place} has more than {LONGEST_KEY} bytes")
    return key


def _metadata(found: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the metadata that Ceph (a list of key and val) or MinIO (a mapping) tell; None: nothing."""
    said = found.get("metadata", found.get("userMetadata"))
    if isinstance(said, list):
        named = [one for one in said if isinstance(one, dict) and isinstance(one.get("key"), str)]
        said = {one["key"]: one.get("val") for one in named}
    if not isinstance(said, dict):
        return None
    pairs = ((str(name).lower(), value) for name, value in said.items() if isinstance(value, str))
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


def _text(said: Any) -> str | None:
    return said[:2000] if isinstance(said, str) and said else None


def _size(said: Any) -> int | None:
    return said if isinstance(said, int) and not isinstance(said, bool) and said >= 0 else None


def _moment(said: Any) -> float | None:
    try:
        return datetime.fromisoformat(said).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _bad(what: str) -> Refusal:
    return Refusal("bad_request", f"this is no notification of an object store: {what}")
