"""Requests that the bucket itself accepts: presigned URLs and POST policies.

A client that knows nothing but the URL and its own `Content-Type` can use it, and can change nothing of
it. So metadata travels in the URL's query, which is signed as a whole; not every store keeps it from
there, which is why the gateway records it too. What a bucket cannot enforce is not signed here.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final

from gateway.domain.grant import Grant
from gateway.domain.metadata import METADATA_PREFIX, content_disposition
from gateway.storage.protocols import PresignedRequest
from gateway.storage.s3.client import Client, expires_in
from gateway.storage.s3.encoding import encode_metadata

MAX_POST_BYTES: Final = 5 << 30
"""Bytes that one POST may bring (Amazon S3 API reference, "POST Object")."""

_OPERATIONS: Final = {"GET": "get_object", "HEAD": "head_object", "PUT": "put_object"}
_hoisting: ContextVar[bool] = ContextVar("gateway_s3_hoisting", default=False)


async def presigned(
    client: Client, bucket: str, key: str, grant: Grant, expires: float
) -> PresignedRequest | None:
    """Return a request that is good until `expires` (Unix seconds) or the credentials' own end.

    None for a method that S3 does not know, and for what a bucket cannot enforce: to replace
    nothing, and to accept a PUT once, need headers that such a client does not send. Raises
    `ValueError` where the time is over. Source: Amazon S3 API reference, "Authenticating
    Requests: Using Query Parameters", "Browser-Based Uploads Using POST".
    """
    if grant.on_conflict is not None or grant.once is not None or grant.query:
        return None
    seconds = await _seconds(client, expires)
    if grant.method == "POST":
        return await _form(client, bucket, key, grant, seconds)
    if grant.method not in _OPERATIONS:
        return None
    with _hoisted(client):
        url = await client.generate_presigned_url(
            _OPERATIONS[grant.method],
            Params={"Bucket": bucket, "Key": key, **_parameters(grant)},
            ExpiresIn=seconds,
        )
    headers = {"Content-Type": grant.content_type} if grant.content_type is not None else {}
    return PresignedRequest(grant.method, url, headers)


async def _seconds(client: Client, expires: float) -> int:
    left = expires - time.time()
    credentials = await expires_in(client)
    seconds = int(left if credentials is None else min(left, credentials))
    if seconds < 1:
        raise ValueError("a signed URL lives for at least a second; the credentials may be at their end")
    return seconds


def _parameters(grant: Grant) -> dict[str, Any]:
    """Return what is signed beside the key. A presigned PUT cannot limit the length."""
    if grant.method == "PUT":
        params = {
            "ContentType": grant.content_type,
            "ContentLength": grant.length,
            "CacheControl": grant.cache_control,
            "Metadata": encode_metadata(grant.metadata) or None,
        }
    elif grant.method == "GET":
        params = {
            "ResponseContentDisposition": None
            if grant.filename is None
            else content_disposition(grant.filename),
            "ResponseCacheControl": grant.cache_control,
        }
    else:
        params = {}
    return {name: value for name, value in params.items() if value is not None}


async def _form(client: Client, bucket: str, key: str, grant: Grant, seconds: int) -> PresignedRequest:
    """Return a POST policy: every field is required as it is, the size lies in a range."""
    if "${filename}" in key:
        raise ValueError("a form cannot name ${filename} in its path: S3 would put another name there")
    fields = {
        f"{METADATA_PREFIX}{name}": value for name, value in encode_metadata(grant.metadata).items()
    }
    if grant.content_type is not None:
        fields["Content-Type"] = grant.content_type
    if grant.cache_control is not None:
        fields["Cache-Control"] = grant.cache_control
    least = grant.length or 0
    most = min(MAX_POST_BYTES, MAX_POST_BYTES if grant.max_body_bytes is None else grant.max_body_bytes)
    conditions: list[Any] = [{name: value} for name, value in fields.items()]
    conditions.append(["content-length-range", least, most])
    form = await client.generate_presigned_post(
        bucket, key, Fields=fields, Conditions=conditions, ExpiresIn=seconds
    )
    return PresignedRequest("POST", form["url"], {}, form["fields"])


@contextlib.contextmanager
def _hoisted(client: Client) -> Iterator[None]:
    """Let what is signed inside carry metadata and `Cache-Control` in its query."""
    client.meta.events.register("before-sign.s3.PutObject", _hoist, unique_id="gateway-hoist")
    token = _hoisting.set(True)
    try:
        yield
    finally:
        _hoisting.reset(token)


def _hoist(request: Any, **_: Any) -> None:
    if not _hoisting.get():
        return
    moved = [
        n
        for n in request.headers
        if n.lower().startswith(METADATA_PREFIX) or n.lower() == "cache-control"
    ]
    params = request.params if isinstance(request.params, Mapping) else {}
    request.params = {**params, **{name: request.headers[name] for name in moved}}
    for name in moved:
        del request.headers[name]
