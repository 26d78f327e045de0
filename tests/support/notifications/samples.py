"""What real senders sent, as they sent it, with the names and numbers of a test."""

from __future__ import annotations

import json
from typing import Any

KEY = "up/hé llo+1.txt"
"""What the keys of all samples mean."""


def ceph(**changes: Any) -> dict[str, Any]:
    """Ceph radosgw 16.2: the key as it is, metadata as a list."""
    entry = {
        "key": KEY,
        "size": 11,
        "eTag": "5eb63bbbe01eeed093cb22bb8f5acdc3",
        "versionId": "",
        "sequencer": "D1E6A06700000000",
        "metadata": [
            {"key": "x-amz-content-sha256", "val": "UNSIGNED-PAYLOAD"},
            {"key": "x-amz-meta-uid", "val": "7"},
        ],
        "tags": [],
    } | changes
    return {
        "eventVersion": "2.2",
        "eventSource": "ceph:s3",
        "awsRegion": "default",
        "eventTime": "2026-11-21T10:00:01.123456Z",
        "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": "test"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "n1",
            "bucket": {"name": "photos", "ownerIdentity": {"principalId": "test"}, "id": "1.2"},
            "object": entry,
        },
        "eventId": "1732183201.123456.5eb63bbbe01eeed093cb22bb8f5acdc3",
        "opaqueData": "",
    }


def amazon(**changes: Any) -> dict[str, Any]:
    """Amazon S3, and ministack: the key as a form encodes it, slashes as they are; no metadata."""
    entry = {
        "key": "up/h%C3%A9+llo%2B1.txt",
        "size": 11,
        "eTag": "5eb63bbbe01eeed093cb22bb8f5acdc3",
        "sequencer": "0055AED6DCD90281E5",
    } | changes
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2026-11-21T10:00:01.123Z",
        "eventName": "ObjectCreated:Put",
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": "photos", "arn": "arn:aws:s3:::photos"},
            "object": entry,
        },
    }


def moto(**changes: Any) -> dict[str, Any]:
    """moto: the slashes of a key are encoded too."""
    return amazon(key="up%2Fh%C3%A9+llo%2B1.txt", **changes)


def minio(**changes: Any) -> dict[str, Any]:
    """MinIO: `s3:` before the event's name, metadata as a mapping with the content type."""
    record = amazon(
        key="up%2Fh%C3%A9+llo%2B1.txt",
        contentType="text/plain",
        userMetadata={"X-Amz-Meta-Uid": "7", "content-type": "text/plain"},
        versionId="null",
        **changes,
    )
    return record | {"eventSource": "minio:s3", "eventName": "s3:ObjectCreated:Put"}


def records(*some: dict[str, Any]) -> bytes:
    return json.dumps({"Records": list(some)}).encode()


def minio_form(record: dict[str, Any]) -> bytes:
    envelope = {"EventName": record["eventName"], "Key": f"photos/{KEY}", "Records": [record]}
    return json.dumps(envelope).encode()


def sns(message: bytes, kind: str = "Notification", **more: str) -> dict[str, str]:
    """The envelope of Amazon SNS, not signed."""
    return {
        "Type": kind,
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": "arn:aws:sns:us-west-2:123456789012:uploads",
        "Subject": "Amazon S3 Notification",
        "Message": message.decode(),
        "Timestamp": "2026-11-21T10:00:02.123Z",
        "SignatureVersion": "1",
        **more,
    }


TEST_EVENT = json.dumps(
    {
        "Service": "Amazon S3",
        "Event": "s3:TestEvent",
        "Time": "2026-11-21T10:00:00.000Z",
        "Bucket": "photos",
        "RequestId": "5582815E1AEA5ADF",
        "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR",
    }
).encode()
