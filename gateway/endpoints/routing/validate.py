"""The step that holds a request against the JSON Schemas of its method.

One rule: a body is read only where a schema or a script looks at it, within `max_body`; else it
stays on its way. All faults are told at once.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from aiohttp import hdrs

from gateway.endpoints.routing.body import BodyReader
from gateway.endpoints.routing.model import Next, Operation, RequestContext, SchemaFault
from gateway.errors import Refusal
from gateway.http.responses import GatewayResponse

LONG: Final = 64 << 10
"""Bytes of JSON that are checked in a thread: the loop must not wait for them."""


LONGEST_NAME: Final = 100
"""Characters of a name that are told."""


class _DuplicateKeyError(Exception):
    """An object has a name twice."""


class ValidateStep:
    """The step. `bodies` reads them."""

    def __init__(self, bodies: BodyReader) -> None:
        self._bodies = bodies

    async def __call__(self, exchange: RequestContext, following: Next) -> GatewayResponse:
        """Raise Refusal `bad_schema` with every fault, or what reading a body raises."""
        operation = exchange.operation
        if operation is not None:
            for name, value in operation.defaults.items():
                exchange.headers.setdefault(name, value)
        faults = header_faults(operation, exchange.headers)
        if faults and exchange.waiting:
            raise refusal_of(faults)
        if operation is not None and operation.check_body is not None:
            faults += await self._body_faults(exchange, operation)
        if faults:
            raise refusal_of(faults)
        if _script_reads_body(exchange):
            await self._bodies.read(exchange)
        return await following(exchange)

    async def _body_faults(self, exchange: RequestContext, operation: Operation) -> list[SchemaFault]:
        encoding = exchange.request.headers.get(hdrs.CONTENT_ENCODING, "identity")
        if encoding.strip().lower() != "identity":
            raise Refusal("unsupported_media_type", "bodies are checked here: send it without encoding")
        body = await self._bodies.read(exchange)
        if len(body) > LONG:
            return await asyncio.to_thread(body_faults, operation, body)
        return body_faults(operation, body)


def header_faults(operation: Operation | None, headers: Mapping[str, str]) -> list[SchemaFault]:
    """Return which rules the headers break."""
    if operation is None or operation.check_headers is None:
        return []
    return operation.check_headers(headers)


def body_faults(operation: Operation | None, body: bytes) -> list[SchemaFault]:
    """Return which rules the body breaks; that it is JSON (RFC 8259) in UTF-8 is the first.

    A name that an object has twice is a fault too (section 4 there): we look at the last value, and
    who gets the body may take the first.
    """
    if operation is None or operation.check_body is None:
        return []
    try:
        value = json.loads(body.decode(), parse_constant=_refuse, object_pairs_hook=_object)
    except _DuplicateKeyError as fault:
        return [SchemaFault("", "json", str(fault))]
    except (ValueError, RecursionError):
        return [SchemaFault("", "json", "the body must be JSON in UTF-8")]
    return operation.check_body(value)


def refusal_of(faults: Sequence[SchemaFault]) -> Refusal:
    """Return the answer that lists all faults."""
    refusal = Refusal("bad_schema", f"the request breaks {len(faults)} rules of its schema")
    refusal.details = {"faults": [_told(fault) for fault in faults]}
    return refusal


def _script_reads_body(exchange: RequestContext) -> bool:
    route = exchange.route
    return any(
        one is not None and one.reads_body for one in (route.request_process, route.response_process)
    )


def _told(fault: SchemaFault) -> dict[str, Any]:
    return {
        "in": fault.place,
        "pointer": fault.pointer,
        "rule": fault.rule,
        "message": fault.message,
    }


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        count = Counter(name for name, _ in pairs)
        name = next(name for name, _ in pairs if count[name] > 1)
        shown = json.dumps(name[:LONGEST_NAME])
        raise _DuplicateKeyError(f"an object has the name {shown} more than once")
    return found


def _refuse(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are no JSON")
