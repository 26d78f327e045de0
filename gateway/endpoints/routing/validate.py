"""The step that reads a request's body and checks it against the JSON Schemas of its method.

A body is read only if a schema or a script needs it; otherwise it is streamed. A response lists all
violations.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from aiohttp import hdrs

from gateway.endpoints.routing.model import Next, Operation, RequestContext, SchemaFault
from gateway.errors import Refusal
from gateway.http.request_body import read_chunk, send_continue_or_disconnect
from gateway.http.responses import GatewayResponse

MAX_BUFFERED_BYTES: Final = 512 << 20
"""Bytes of bodies that all requests together may hold; more are refused, and may be retried."""

MAX_BYTES_ON_LOOP: Final = 64 << 10
"""Longer JSON is checked in a thread: the event loop must not wait for it."""

MAX_SHOWN_NAME: Final = 100
"""Characters of a name that an error shows."""


class BodyBuffer:
    """Reads bodies into memory and counts them. One object per gateway, on the server's loop.

    One body has at most the route's `max_body` bytes, all together have `max_bytes`.
    """

    def __init__(self, max_bytes: int = MAX_BUFFERED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0

    async def read_body(self, context: RequestContext) -> bytes:
        """Return the body, and keep it in the context until `release_body`.

        Raises `Refusal` (`too_large`, `idle_timeout`, `incomplete_body`, `overloaded`),
        `ClientDisconnected`.
        """
        if context.body is None:
            limit, declared = context.route.limits.max_body, context.request.content_length
            if declared is not None and declared > limit:
                raise _too_large(limit)
            self._check_capacity(declared or 0)
            if context.awaits_continue:
                context.awaits_continue = False
                await send_continue_or_disconnect(context.request)
            context.body = await self._read(context, limit)
        return context.body

    def release_body(self, context: RequestContext) -> None:
        """Stop counting the body of a request that has ended."""
        self._bytes -= context.buffered_bytes
        context.buffered_bytes = 0

    async def _read(self, context: RequestContext, limit: int) -> bytes:
        body = bytearray()
        while chunk := await read_chunk(context.request.content, context.route.limits.idle):
            body += chunk
            context.buffered_bytes += len(chunk)
            self._bytes += len(chunk)
            if len(body) > limit:
                raise _too_large(limit)
            self._check_capacity(0)
        return bytes(body)

    def _check_capacity(self, declared: int) -> None:
        if self._bytes + declared > self._max_bytes:
            raise Refusal("overloaded", "too many request bodies are in memory; try again later")


def _too_large(limit: int) -> Refusal:
    return Refusal("too_large", f"the body is larger than the {limit} bytes that this path accepts")


class _DuplicateKeyError(Exception):
    """An object has a name twice."""


class ValidateStep:
    """Refuses a request that violates a schema of its method."""

    def __init__(self, bodies: BodyBuffer) -> None:
        self._bodies = bodies

    async def __call__(self, context: RequestContext, call_next: Next) -> GatewayResponse:
        """Raise `Refusal("bad_schema")` with every violation, or as `BodyBuffer.read_body`."""
        operation = context.operation
        if operation is not None:
            for name, value in operation.defaults.items():
                context.headers.setdefault(name, value)
        faults = header_faults(operation, context.headers)
        if faults and context.awaits_continue:
            raise schema_refusal(faults)
        if operation is not None and operation.check_body is not None:
            faults += await self._body_faults(context, operation)
        if faults:
            raise schema_refusal(faults)
        if _script_reads_body(context):
            await self._bodies.read_body(context)
        return await call_next(context)

    async def _body_faults(self, context: RequestContext, operation: Operation) -> list[SchemaFault]:
        encoding = context.request.headers.get(hdrs.CONTENT_ENCODING, "identity")
        if encoding.strip().lower() != "identity":
            message = "the body is checked here: send it without Content-Encoding"
            raise Refusal("unsupported_media_type", message)
        body = await self._bodies.read_body(context)
        if len(body) > MAX_BYTES_ON_LOOP:
            return await asyncio.to_thread(body_faults, operation, body)
        return body_faults(operation, body)


def header_faults(operation: Operation | None, headers: Mapping[str, str]) -> list[SchemaFault]:
    """Return the rules that the headers violate."""
    if operation is None or operation.check_headers is None:
        return []
    return operation.check_headers(headers)


def body_faults(operation: Operation | None, body: bytes) -> list[SchemaFault]:
    """Return the rules that the body violates; that it is JSON (RFC 8259) in UTF-8 is the first.

    A name that an object has twice is a violation too (section 4 there): we check the last value, and
    an upstream may take the first.
    """
    if operation is None or operation.check_body is None:
        return []
    try:
        value = json.loads(body.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except _DuplicateKeyError as error:
        return [SchemaFault("", "json", str(error))]
    except (ValueError, RecursionError):
        return [SchemaFault("", "json", "the body must be JSON in UTF-8")]
    return operation.check_body(value)


def schema_refusal(faults: Sequence[SchemaFault]) -> Refusal:
    """Return the refusal that lists all violations."""
    refusal = Refusal("bad_schema", f"the request breaks {len(faults)} rules of its schema")
    refusal.details = {"faults": [_fault_as_json(fault) for fault in faults]}
    return refusal


def _script_reads_body(context: RequestContext) -> bool:
    processes = (context.route.request_process, context.route.response_process)
    return any(process is not None and process.reads_body for process in processes)


def _fault_as_json(fault: SchemaFault) -> dict[str, Any]:
    return {
        "in": fault.place,
        "pointer": fault.pointer,
        "rule": fault.rule,
        "message": fault.message,
    }


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        count = Counter(name for name, _ in pairs)
        name = next(name for name, _ in pairs if count[name] > 1)
        shown = json.dumps(name[:MAX_SHOWN_NAME])
        raise _DuplicateKeyError(f"an object has the name {shown} more than once")
    return unique


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")
