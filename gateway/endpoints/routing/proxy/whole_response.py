"""Reads an upstream's response to its end, for a script that reads its body.

Bounded in bytes and in seconds. The script gets the content as it is, without the codings of a transfer.
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict

from gateway.endpoints.routing import forwarding
from gateway.endpoints.routing.model import RequestContext
from gateway.endpoints.routing.proxy.request import mapped_error
from gateway.endpoints.routing.proxy.response import UpstreamResponse
from gateway.endpoints.routing.proxy.unpack import UnpackError, codings, unpack
from gateway.errors import Refusal
from gateway.limits import Lease

PARTIAL_FIELDS: Final = (hdrs.IF_NONE_MATCH, hdrs.IF_MODIFIED_SINCE, hdrs.IF_RANGE, hdrs.RANGE)
"""Fields with which a GET may be answered without its content, or with a part of it."""

DIGEST_FIELDS: Final = (hdrs.CONTENT_MD5, "Content-Digest", "Repr-Digest", "Digest")
"""Header fields that are true of the exact bytes of a body only."""


class BufferedResponse(NamedTuple):
    """An upstream's response, read to its end."""

    status: int
    headers: CIMultiDict[str]
    body: bytes


def request_whole(context: RequestContext) -> None:
    """Let the upstream be asked for the whole content, not packed: by GET for HEAD, too.

    What the client wants of it, conditions and ranges, is about the response that the script makes.
    """
    received = context.request.headers
    if context.upstream_method in {hdrs.METH_GET, hdrs.METH_HEAD}:
        context.method = hdrs.METH_GET
        for name in PARTIAL_FIELDS:
            if context.headers.getall(name, None) == received.getall(name, None):
                context.headers.popall(name, None)
    context.headers[hdrs.ACCEPT_ENCODING] = "identity"


async def read_whole(
    upstream_response: UpstreamResponse, limit: int, seconds: float, lease: Lease
) -> BufferedResponse:
    """Return the response in memory, unpacked, with the headers that are true of it; then close it.

    `lease` is extended by its bytes. Raises as `Lease.extend`, and `Refusal`: `bad_gateway` for more
    than `limit` bytes and for what cannot be unpacked, `gateway_timeout` for what takes more than
    `seconds`; `ClientDisconnected`.
    """
    timeout, total = upstream_response.timeout, asyncio.timeout(seconds)
    try:
        async with total, timeout.limit_wait(upstream_response.request):
            body = await _read_body(upstream_response, limit, lease)
    except (aiohttp.ClientError, OSError) as error:
        if total.expired() and not timeout.expired:
            message = f"the upstream's response did not end within {seconds:g} seconds"
            raise Refusal("gateway_timeout", message) from error
        raise mapped_error(error, timeout, None) from error
    finally:
        await upstream_response.close()
    response = upstream_response.response
    headers = forwarding.response_headers(response.headers)
    unpacked = await _unpack(headers, body, limit)
    lease.extend(max(len(unpacked) - len(body), 0))
    return BufferedResponse(response.status, headers, unpacked)


async def _read_body(upstream_response: UpstreamResponse, limit: int, lease: Lease) -> bytes:
    body = bytearray()
    async for chunk in upstream_response.response.content.iter_any():
        upstream_response.timeout.renew()
        if len(body) + len(chunk) > limit:
            raise Refusal("bad_gateway", f"the upstream's response is larger than {limit} bytes")
        lease.extend(len(chunk))
        body += chunk
    return bytes(body)


async def _unpack(headers: CIMultiDict[str], body: bytes, limit: int) -> bytes:
    """Return the body unpacked, in a thread, and change the headers to what is true of it."""
    headers.popall(hdrs.CONTENT_LENGTH, None)
    headers.popall(hdrs.ACCEPT_RANGES, None)  # ranges are not requested
    encoding = ",".join(headers.popall(hdrs.CONTENT_ENCODING, ()))
    if not codings(encoding):
        return body
    for name in DIGEST_FIELDS:
        headers.popall(name, None)
    etag = headers.get(hdrs.ETAG)
    if etag is not None and not etag.startswith("W/"):
        headers[hdrs.ETAG] = f"W/{etag}"  # RFC 9110 section 8.8.1: the same content, not the same bytes
    try:
        return await asyncio.to_thread(unpack, body, encoding, limit)
    except UnpackError as error:
        raise Refusal("bad_gateway", f"the upstream's response is {error}") from error
