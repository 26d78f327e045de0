"""Doctor: the bucket that uploads go into, where there is one.

The rule: what the gateway will do there is tried out with one small object, which is removed; of
the bucket's own settings, which are the operator's, is told what is missing.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Final

from gateway.cli.doctor.finding import Finding
from gateway.errors import Refusal
from gateway.settings import Bucket, Settings
from gateway.storage.s3.client import Client, Clients
from gateway.storage.s3.errors import NO_CREDENTIALS, OPERATOR_HINTS, code_of, status_of
from gateway.storage.s3.lifecycle import aborts_unfinished, rules_of

WAIT_SECONDS: Final = 30.0
SKEW_SECONDS: Final = 60.0
"""S3 refuses signatures of clocks that are a quarter of an hour off; presigned URLs suffer sooner."""

PAGE: Final = "docs/how-to/run-on-s3.md"
ENDPOINT: Final = f"AWS_ENDPOINT_URL_S3 names a server that is not Amazon's; see {PAGE}"
_TAKEN: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412"})


def bucket(settings: Settings) -> Iterator[Finding]:
    """The bucket can be reached, written, read and cleared; its clock and its settings are right."""
    if settings.storage == "file":
        return
    yield from asyncio.run(_all(settings, settings.storage))


async def _all(settings: Settings, place: Bucket) -> Sequence[Finding]:
    clients = Clients(attempts=1)
    found: list[Finding] = []
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            client = await clients.client()
            async for finding in _findings(client, settings, place):
                found.append(finding)  # noqa: PERF401 - what was found before a fault stays
    except Refusal:
        found.append(Finding("FAIL", f"{place}: {NO_CREDENTIALS}"))
    except TimeoutError:
        found.append(Finding("FAIL", f"{place}: no answer within {WAIT_SECONDS:g} s", ENDPOINT))
    except Exception as fault:
        found.append(Finding("FAIL", f"{place}: {_words(fault)}", _advice(fault)))
    finally:
        await clients.close()
    return found


async def _findings(client: Client, settings: Settings, place: Bucket) -> AsyncIterator[Finding]:
    answer = await client.head_bucket(Bucket=place.name)
    yield Finding("ok", f"{place} is reached at {client.meta.endpoint_url}")
    for finding in _clock(answer["ResponseMetadata"].get("HTTPHeaders", {})):
        yield finding
    async for finding in _probe(client, place):
        yield finding
    yield await _unfinished(client, place)
    yield await _pages(client, settings, place)


def _clock(headers: Mapping[str, str]) -> Iterator[Finding]:
    if "date" not in headers:
        return
    skew = time.time() - parsedate_to_datetime(headers["date"]).timestamp()
    if abs(skew) > SKEW_SECONDS:
        yield Finding("warn", f"the clock differs from the storage's by {skew:.0f} s", "run NTP on both")
    else:
        yield Finding("ok", "the clock agrees with the storage's")


async def _probe(client: Client, place: Bucket) -> AsyncIterator[Finding]:
    """Put, read and remove one object, and see whether another one would replace it."""
    where = {"Bucket": place.name, "Key": place.key(f"/.gateway/doctor-{uuid.uuid4().hex}")}
    await client.put_object(**where, Body=b"probe")
    try:
        answer = await client.get_object(**where)
        content = await answer["Body"].read()
        honoured = await _refused(client, where)
    finally:
        await client.delete_object(**where)
    if content == b"probe":
        yield Finding("ok", "an object can be put, read and removed")
    else:
        yield Finding("FAIL", "an object that was put is read with other bytes")
    if honoured:
        yield Finding("ok", "If-None-Match is honoured: objects can be kept from being replaced")
    else:
        advice = "with several processes or gateways, reject and rename may replace an object"
        yield Finding("warn", "the storage ignores If-None-Match", advice)


async def _refused(client: Client, where: Mapping[str, str]) -> bool:
    try:
        await client.put_object(**where, Body=b"again", IfNoneMatch="*")
    except Exception as fault:
        if code_of(fault) in _TAKEN or status_of(fault) in {409, 412}:
            return True
        raise
    return False


async def _unfinished(client: Client, place: Bucket) -> Finding:
    """Parts of uploads that nobody finishes cost money and are in no list."""
    try:
        rules = await rules_of(client, place.name)
    except Exception as fault:
        return Finding("ok", f"the bucket tells no lifecycle rules ({_words(fault)})")
    if aborts_unfinished(rules, place.key("/")):
        return Finding("ok", "a lifecycle rule ends multipart uploads that nobody finishes")
    advice = f"add AbortIncompleteMultipartUpload after some days, see {PAGE}"
    return Finding("warn", "no lifecycle rule ends multipart uploads that nobody finishes", advice)


async def _pages(client: Client, settings: Settings, place: Bucket) -> Finding:
    """Pages of other origins need a rule of the bucket's to use signed URLs (Fetch standard, CORS)."""
    try:
        found = await client.get_bucket_cors(Bucket=place.name)
    except Exception as fault:
        found = {}
        if status_of(fault) != 404:
            return Finding("ok", f"the bucket tells no CORS rules ({_words(fault)})")
    allowed = {origin for rule in found.get("CORSRules", ()) for origin in _putting(rule)}
    missing = [one for one in settings.cors_origins if one not in allowed and "*" not in allowed]
    if missing:
        advice = f"allow PUT, GET and Content-Type there, see {PAGE}"
        return Finding("warn", f"the bucket's CORS rules do not know {', '.join(missing)}", advice)
    if not allowed:
        return Finding("ok", "no page may use signed URLs of the bucket", f"CORS rules: see {PAGE}")
    return Finding("ok", f"pages of {', '.join(sorted(allowed))} may put with signed URLs")


def _putting(rule: Mapping[str, Any]) -> Sequence[str]:
    origins: Sequence[str] = rule.get("AllowedOrigins", ())
    return origins if "PUT" in rule.get("AllowedMethods", ()) else ()


def _advice(fault: Exception) -> str:
    code = "NoSuchBucket" if status_of(fault) == 404 else code_of(fault)
    return OPERATOR_HINTS.get(code, ENDPOINT)


def _words(fault: Exception) -> str:
    return code_of(fault) or f"{type(fault).__name__}: {fault}"[:200]
