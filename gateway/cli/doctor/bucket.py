"""Checks of the bucket of uploads, if there is one, with one small object that is removed again."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Final

from gateway.cli.doctor.finding import Finding
from gateway.domain.partial import MAX_PARTIAL_AGE
from gateway.errors import Refusal
from gateway.settings import Bucket, Settings
from gateway.storage.s3.client import Client, Clients
from gateway.storage.s3.errors import NO_CREDENTIALS, OPERATOR_HINTS, code_of, status_of
from gateway.storage.s3.lifecycle import DAY, abort_days, rules_of

BUCKET_TIMEOUT: Final = 30.0
"""Seconds for all checks of the bucket."""

MAX_CLOCK_SKEW: Final = 60.0
"""Seconds. S3 refuses signatures of clocks 15 minutes off; presigned URLs expire early before that."""

PAGE: Final = "docs/how-to/run-on-s3.md"
ENDPOINT: Final = f"AWS_ENDPOINT_URL_S3 names a server that is not Amazon's; see {PAGE}"
_ALREADY_EXISTS: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412"})


def bucket(settings: Settings) -> Iterator[Finding]:
    """Objects can be put, read and removed; the clock and the settings of the bucket are right."""
    if settings.storage == "file":
        return
    yield from asyncio.run(_all(settings, settings.storage))


async def _all(settings: Settings, place: Bucket) -> Sequence[Finding]:
    clients = Clients(attempts=1)
    findings: list[Finding] = []
    try:
        async with asyncio.timeout(BUCKET_TIMEOUT):
            client = await clients.client()
            async for finding in _findings(client, settings, place):
                findings.append(finding)  # noqa: PERF401 - findings before an error stay
    except Refusal:
        findings.append(Finding("FAIL", f"{place}: {NO_CREDENTIALS}"))
    except TimeoutError:
        findings.append(Finding("FAIL", f"{place}: no response within {BUCKET_TIMEOUT:g} s", ENDPOINT))
    except Exception as error:
        findings.append(Finding("FAIL", f"{place}: {_summary(error)}", _advice(error)))
    finally:
        await clients.close()
    return findings


async def _findings(client: Client, settings: Settings, place: Bucket) -> AsyncIterator[Finding]:
    response = await client.head_bucket(Bucket=place.name)
    yield Finding("ok", f"{place} is available at {client.meta.endpoint_url}")
    for finding in _clock(response["ResponseMetadata"].get("HTTPHeaders", {})):
        yield finding
    async for finding in _probe(client, place):
        yield finding
    yield await _unfinished(client, place)
    yield await _pages(client, settings, place)


def _clock(headers: Mapping[str, str]) -> Iterator[Finding]:
    if "date" not in headers:
        return
    skew = time.time() - parsedate_to_datetime(headers["date"]).timestamp()
    if abs(skew) > MAX_CLOCK_SKEW:
        yield Finding("warn", f"the clock differs from the storage's by {skew:.0f} s", "run NTP on both")
    else:
        yield Finding("ok", "the clock agrees with the storage's")


async def _probe(client: Client, place: Bucket) -> AsyncIterator[Finding]:
    """Put, read and remove one object, and check whether `If-None-Match` protects it."""
    where = {"Bucket": place.name, "Key": place.key(f"/.gateway/doctor-{uuid.uuid4().hex}")}
    await client.put_object(**where, Body=b"probe")
    try:
        response = await client.get_object(**where)
        content = await response["Body"].read()
        honoured = await _refused(client, where)
    finally:
        await client.delete_object(**where)
    if content == b"probe":
        yield Finding("ok", "an object can be put, read and removed")
    else:
        yield Finding("FAIL", "an object is read with other bytes than were put")
    if honoured:
        yield Finding("ok", "If-None-Match is honoured: objects can be protected from replacement")
    else:
        advice = "with several processes or gateways, reject and rename may replace an object"
        yield Finding("warn", "the storage ignores If-None-Match", advice)


async def _refused(client: Client, where: Mapping[str, str]) -> bool:
    try:
        await client.put_object(**where, Body=b"again", IfNoneMatch="*")
    except Exception as error:
        if code_of(error) in _ALREADY_EXISTS or status_of(error) in {409, 412}:
            return True
        raise
    return False


async def _unfinished(client: Client, place: Bucket) -> Finding:
    """Unfinished multipart uploads cost money and are not listed as objects."""
    try:
        rules = await rules_of(client, place.name)
    except Exception as error:
        return Finding("ok", f"the bucket returns no lifecycle rules ({_summary(error)})")
    days, least = abort_days(rules, place.key("/")), int(MAX_PARTIAL_AGE / DAY)
    if days is not None and days < least:
        advice = f"set its DaysAfterInitiation to {least} or more: uploads may go on for so long"
        return Finding("warn", f"a rule aborts multipart uploads after {days} days", advice)
    if days is not None:
        return Finding("ok", "a lifecycle rule aborts unfinished multipart uploads")
    advice = f"add AbortIncompleteMultipartUpload after some days, see {PAGE}"
    return Finding("warn", "no lifecycle rule aborts unfinished multipart uploads", advice)


async def _pages(client: Client, settings: Settings, place: Bucket) -> Finding:
    """Pages of other origins need a CORS rule of the bucket to use signed URLs (Fetch standard)."""
    try:
        cors = await client.get_bucket_cors(Bucket=place.name)
    except Exception as error:
        cors = {}
        if status_of(error) != 404:
            return Finding("ok", f"the bucket returns no CORS rules ({_summary(error)})")
    allowed = {origin for rule in cors.get("CORSRules", ()) for origin in _put_origins(rule)}
    missing = [
        origin for origin in settings.cors_origins if origin not in allowed and "*" not in allowed
    ]
    if missing:
        advice = f"allow PUT, GET and Content-Type there, see {PAGE}"
        return Finding("warn", f"the bucket's CORS rules do not allow {', '.join(missing)}", advice)
    if not allowed:
        return Finding("ok", "no web page may use signed URLs of the bucket", f"CORS rules: see {PAGE}")
    return Finding("ok", f"pages of {', '.join(sorted(allowed))} may put with signed URLs")


def _put_origins(rule: Mapping[str, Any]) -> Sequence[str]:
    origins: Sequence[str] = rule.get("AllowedOrigins", ())
    return origins if "PUT" in rule.get("AllowedMethods", ()) else ()


def _advice(error: Exception) -> str:
    code = "NoSuchBucket" if status_of(error) == 404 else code_of(error)
    return OPERATOR_HINTS.get(code, ENDPOINT)


def _summary(error: Exception) -> str:
    return code_of(error) or f"{type(error).__name__}: {error}"[:200]
