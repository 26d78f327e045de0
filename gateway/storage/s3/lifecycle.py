"""Lifecycle rules: what a bucket removes by itself once it is old."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.storage.s3.client import Client
from gateway.storage.s3.errors import code_of

DAY: Final = 86400

_NO_RULES: Final = frozenset({"NoSuchLifecycleConfiguration", "404"})


@dataclass(frozen=True, slots=True)
class Expiry:
    """What a bucket removes by itself: objects below `prefix` that are `days` old; the rule's name."""

    bucket: str
    prefix: str
    days: int
    rule: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}* is removed after {self.days} days (rule {self.rule})"


async def expire(client: Client, bucket: str, prefix: str, seconds: float) -> Expiry:
    """Let the bucket remove what lies below `prefix` when it is `seconds` old, in days rounded up.

    A later call with other seconds changes the rule; other rules stay as they are. S3 works through
    them about once a day: a rule is there for what nothing else removes. Raises what the store answers,
    such as that it has no rules. Source: Amazon S3 API reference, PutBucketLifecycleConfiguration.
    """
    days = max(1, math.ceil(seconds / DAY))
    name = f"upload-gateway-{hashlib.sha256(prefix.encode()).hexdigest()[:16]}"
    rule = {"ID": name, "Status": "Enabled", "Filter": {"Prefix": prefix}, "Expiration": {"Days": days}}
    before = await rules_of(client, bucket)
    after = [other for other in before if other.get("ID") != name] + [rule]
    if rule not in before:
        await client.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": after}
        )
    return Expiry(bucket, prefix, days, name)


async def rules_of(client: Client, bucket: str) -> Sequence[Mapping[str, Any]]:
    """Return the rules of a bucket, none where none were ever set."""
    try:
        response = await client.get_bucket_lifecycle_configuration(Bucket=bucket)
    except Exception as error:
        if code_of(error) in _NO_RULES:
            return ()
        raise
    rules: Sequence[Mapping[str, Any]] = response.get("Rules", ())
    return rules


def abort_days(rules: Sequence[Mapping[str, Any]], prefix: str) -> int | None:
    """Return after how many days unfinished multipart uploads below `prefix` are aborted, if ever."""
    days = [
        int(rule["AbortIncompleteMultipartUpload"].get("DaysAfterInitiation", 0))
        for rule in rules
        if rule.get("Status") == "Enabled"
        and "AbortIncompleteMultipartUpload" in rule
        and prefix.startswith(rule.get("Filter", {}).get("Prefix", rule.get("Prefix", "")))
    ]
    return min(days, default=None)
