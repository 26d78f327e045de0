"""The step that reads a request's body and checks it against the JSON Schemas of its method.

A body is read only if a schema or a script needs it; otherwise it is streamed. A response lists all
violations, each with its pointer and rule, never with the value, which may be a secret. Schemas are
compiled once.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import hdrs
from multidict import CIMultiDict

from gateway.domain.json_text import parse_json
from gateway.endpoints.routing.model import Check, Next, Operation, RequestContext, SchemaFault
from gateway.endpoints.routing.validation.media_types import is_json, matches_any, plain_type
from gateway.errors import Refusal
from gateway.http.request_body import body_too_large, read_chunk, send_continue_or_disconnect
from gateway.http.responses import GatewayResponse
from gateway.limits import FairShare

MAX_BUFFERED_BYTES: Final = 512 << 20
"""Bytes of bodies that all requests together may hold, each client its share."""

MAX_BYTES_ON_LOOP: Final = 64 << 10
"""Longer JSON is checked in a thread: the event loop must not wait for it."""

UNSPECIFIED_TYPES: Final = frozenset(
    {"", "application/x-www-form-urlencoded", "application/octet-stream", "text/plain"}
)
"""What programs send where nobody named a type: the body decides whether it is JSON. `curl -d` says that
it is a form, `fetch` and aiohttp that a text is plain."""

UTF8: Final = frozenset({"utf-8", "utf8"})

_CHARSET: Final = re.compile(r"\bcharset\s*=\s*\"?([^\s;\"]*)")

MAX_SHOWN_NAME: Final = 100
"""Characters of a name that an error shows."""


class BodyBuffer:
    """Reads bodies into memory: at most the route's `max_body` bytes of one, `max_bytes` of all."""

    def __init__(self, max_bytes: int = MAX_BUFFERED_BYTES) -> None:
        self._share = FairShare("bytes of request bodies in memory", max_bytes)

    async def read_body(self, context: RequestContext) -> bytes:
        """Return the body, and keep it in the context until `release_body`.

        Raises `Refusal` (`too_large`, `idle_timeout`, `incomplete_body`, or as `FairShare.acquire`),
        `ClientDisconnected`.
        """
        if context.body is None:
            limit, declared = context.route.limits.whole_body, context.request.content_length
            if declared is not None and declared > limit:
                raise body_too_large(limit)
            self._share.check(context.client, declared or 0)
            if context.awaits_continue:
                context.awaits_continue = False
                await send_continue_or_disconnect(context.request)
            context.body = await self._read(context, limit)
        return context.body

    def hold(self, context: RequestContext) -> None:
        """Count a body that is here as a whole. Raises `Refusal` as `read_body`."""
        body, limit = context.body or b"", context.route.limits.whole_body
        if len(body) > limit:
            raise body_too_large(limit)
        context.buffered = self._share.acquire(context.client, len(body))

    def release_body(self, context: RequestContext) -> None:
        """Drop the body of a request that has ended, and count it no more."""
        lease, context.buffered, context.body = context.buffered, None, None
        if lease is not None:
            lease.close()

    async def _read(self, context: RequestContext, limit: int) -> bytes:
        content, idle, body = context.request.content, context.route.limits.idle, bytearray()
        lease = context.buffered = self._share.acquire(context.client, 0)
        try:
            while chunk := await read_chunk(content, idle, context.meter):
                if len(body) + len(chunk) > limit:
                    raise body_too_large(limit)
                lease.extend(len(chunk))
                body += chunk
            return bytes(body)
        finally:
            body.clear()  # the traceback of an error refers to it for a while


class _DuplicateKeyError(Exception):
    """An object has a name twice."""


class ValidateStep:
    """Refuses a request that violates a schema of its method."""

    def __init__(self, bodies: BodyBuffer) -> None:
        self._bodies = bodies

    async def __call__(self, context: RequestContext, call_next: Next) -> GatewayResponse:
        """Raise `Refusal("bad_schema")` with every violation, or as `BodyBuffer.read_body`."""
        if context.operation is not None:
            await self._check(context, context.operation)
        scripts = (context.route.request_script, context.route.response_script)
        if any(script is not None and script.reads_body for script in scripts):
            await self._bodies.read_body(context)
        return await call_next(context)

    async def _check(self, context: RequestContext, operation: Operation) -> None:
        faults = _head_faults(context, operation)
        if faults and context.awaits_continue:
            raise _schema_refusal(faults)
        if (check := _body_check(context, operation)) is not None:
            body = await self._bodies.read_body(context)
            large = len(body) > MAX_BYTES_ON_LOOP
            faults += (
                await asyncio.to_thread(_body_faults, check, body, operation)
                if large
                else _body_faults(check, body, operation)
            )
        if faults:
            raise _schema_refusal(faults)

    def check_whole(self, context: RequestContext) -> None:
        """Check a request whose small body is here as a whole. Raises as `__call__`."""
        operation = context.operation
        if operation is None:
            return
        faults = _head_faults(context, operation)
        if (check := _body_check(context, operation)) is not None:
            self._bodies.hold(context)
            faults += _body_faults(check, context.body or b"", operation)
        if faults:
            raise _schema_refusal(faults)


def _body_check(context: RequestContext, operation: Operation) -> Check | None:
    """Return the check of the body, None where it passes without; the headers then say that it is JSON.

    Raises `Refusal`: `unsupported_media_type` for what is neither JSON nor another type that the
    operation takes; `bad_schema` where a body is missing.
    """
    check, others = operation.check_body, operation.other_types
    if check is None and not others:
        return None
    if not _has_body(context):
        if operation.body_optional:
            return None
        if check is None:
            raise _schema_refusal([SchemaFault("", "required", "the request needs a body")])
    media_type = plain_type(context.headers.get(hdrs.CONTENT_TYPE, ""))
    if matches_any(media_type, others) and not (check is not None and is_json(media_type)):
        return None
    if check is None:
        message = f"the body must be of one of these types: {', '.join(others)}"
        raise Refusal("unsupported_media_type", message)
    _settle_body(context)
    return check


def _has_body(context: RequestContext) -> bool:
    """Tell whether there is a body: one in chunks may turn out to be empty."""
    if context.body is not None:
        return bool(context.body)
    headers = context.incoming.headers
    return hdrs.TRANSFER_ENCODING in headers or bool(headers.get(hdrs.CONTENT_LENGTH, "").strip("0"))


def _head_faults(context: RequestContext, operation: Operation) -> list[SchemaFault]:
    """Fill in the headers that the schema defaults; return the rules that all but the body violates."""
    for name, value in operation.defaults.items():
        context.headers.setdefault(name, value)
    faults = operation.check_headers(context.headers) if operation.check_headers else []
    if operation.check_path is not None:
        faults += operation.check_path(context.resources)
    if operation.check_query is not None:
        faults += operation.check_query(context.params)
    return faults


def _settle_body(context: RequestContext) -> None:
    """Refuse a body that is not readable JSON. Raises `Refusal("unsupported_media_type")`."""
    encoding = context.incoming.headers.get(hdrs.CONTENT_ENCODING, "identity")
    if encoding.strip().lower() != "identity":
        message = "the body is checked here: send it without Content-Encoding"
        raise Refusal("unsupported_media_type", message)
    _settle_content_type(context.headers)


def _settle_content_type(headers: CIMultiDict[str]) -> None:
    """Refuse a body that says it is not JSON in UTF-8; where nothing was said, say it.

    An upstream must read what is checked here. Raises `Refusal("unsupported_media_type")`.
    """
    content_type = headers.get(hdrs.CONTENT_TYPE, "").lower()
    mime, charset = plain_type(content_type), _CHARSET.search(content_type)
    unspecified = mime in UNSPECIFIED_TYPES
    if (unspecified or is_json(mime)) and (charset is None or charset[1] in UTF8):
        if unspecified:
            headers[hdrs.CONTENT_TYPE] = "application/json"
    else:
        message = "the body must be JSON in UTF-8: send it with `Content-Type: application/json`"
        raise Refusal("unsupported_media_type", message)


def _body_faults(check: Check, body: bytes, operation: Operation) -> list[SchemaFault]:
    """Return the rules that a request's body violates; one in chunks may turn out to be empty."""
    return json_faults(check, body) if body or not operation.body_optional else []


def json_faults(check: Check, body: bytes) -> list[SchemaFault]:
    """Return the rules that the body violates; that it is JSON (RFC 8259) in UTF-8 is the first.

    A name that an object has twice is a violation too (section 4 there): we check the last value, and
    an upstream may take the first.
    """
    try:
        value = parse_json(body, _unique)
    except _DuplicateKeyError as error:
        return [SchemaFault("", "json", str(error))]
    except (ValueError, RecursionError):
        message = "the body must be JSON in UTF-8, without halves of surrogate pairs"
        return [SchemaFault("", "json", message)]
    return check(value)


def _schema_refusal(faults: Sequence[SchemaFault]) -> Refusal:
    rules = "1 rule" if len(faults) == 1 else f"{len(faults)} rules"
    refusal = Refusal("bad_schema", f"the request breaks {rules} of its schema")
    refusal.details = {
        "faults": [
            {"in": fault.place, "pointer": fault.pointer, "rule": fault.rule, "message": fault.message}
            for fault in faults
        ]
    }
    return refusal


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        count = Counter(name for name, _ in pairs)
        name = next(name for name, _ in pairs if count[name] > 1)
        shown = json.dumps(name[:MAX_SHOWN_NAME])
        raise _DuplicateKeyError(f"an object has the name {shown} more than once")
    return unique
