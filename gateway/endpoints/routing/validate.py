"""The step that reads a request's body and checks it against the JSON Schemas of its method.

A body is read only if a schema or a script needs it; otherwise it is streamed. A response lists all
violations, each with its pointer and rule, never with the value, which may be a secret. Schemas are
compiled once, and nothing is fetched from a network.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NoReturn

import jsonschema_rs
from aiohttp import hdrs
from multidict import CIMultiDict

from gateway.endpoints.routing.model import Check, Next, Operation, RequestContext, SchemaFault
from gateway.errors import Refusal
from gateway.http.request_body import read_chunk, send_continue_or_disconnect
from gateway.http.responses import GatewayResponse
from gateway.limits import FairShare

MAX_BUFFERED_BYTES: Final = 512 << 20
"""Bytes of bodies that all requests together may hold, each client its share."""

MAX_BYTES_ON_LOOP: Final = 64 << 10
"""Longer JSON is checked in a thread: the event loop must not wait for it."""

JSON_TYPES: Final = frozenset({"application/json", "text/json"})
"""Media types of JSON, beside those that end with `+json` (RFC 6839 section 3.1)."""

UNSPECIFIED_TYPES: Final = frozenset(
    {"", "application/x-www-form-urlencoded", "application/octet-stream"}
)
"""What `curl -d` and libraries send where nobody named a type: the body decides whether it is JSON."""

_CHARSET: Final = re.compile(r"\bcharset\s*=\s*\"?([^\s;\"]*)")

MAX_SHOWN_NAME: Final = 100
"""Characters of a name that an error shows."""


MAX_FAULTS: Final = 100
"""Violations in one response: a long list of wrong items must not become a longer response."""


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
            limit, declared = context.route.limits.max_body, context.request.content_length
            if declared is not None and declared > limit:
                raise _too_large(limit)
            self._share.check(context.client, declared or 0)
            if context.awaits_continue:
                context.awaits_continue = False
                await send_continue_or_disconnect(context.request)
            context.body = await self._read(context, limit)
        return context.body

    def release_body(self, context: RequestContext) -> None:
        """Stop counting the body of a request that has ended."""
        lease, context.buffered = context.buffered, None
        if lease is not None:
            lease.close()

    async def _read(self, context: RequestContext, limit: int) -> bytes:
        content, idle, body = context.request.content, context.route.limits.idle, bytearray()
        lease = context.buffered = self._share.acquire(context.client, 0)
        while chunk := await read_chunk(content, idle, context.meter):
            if len(body) + len(chunk) > limit:
                raise _too_large(limit)
            lease.extend(len(chunk))
            body += chunk
        return bytes(body)


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
        if context.operation is not None:
            await self._check(context, context.operation)
        scripts = (context.route.request_script, context.route.response_script)
        if any(script is not None and script.reads_body for script in scripts):
            await self._bodies.read_body(context)
        return await call_next(context)

    async def _check(self, context: RequestContext, operation: Operation) -> None:
        for name, value in operation.defaults.items():
            context.headers.setdefault(name, value)
        faults = operation.check_headers(context.headers) if operation.check_headers else []
        if faults and context.awaits_continue:
            raise _schema_refusal(faults)
        if operation.check_body is not None:
            faults += await self._body_faults(context, operation.check_body)
        if faults:
            raise _schema_refusal(faults)

    async def _body_faults(self, context: RequestContext, check: Check) -> list[SchemaFault]:
        encoding = context.request.headers.get(hdrs.CONTENT_ENCODING, "identity")
        if encoding.strip().lower() != "identity":
            message = "the body is checked here: send it without Content-Encoding"
            raise Refusal("unsupported_media_type", message)
        _settle_content_type(context.headers)
        body = await self._bodies.read_body(context)
        if len(body) > MAX_BYTES_ON_LOOP:
            return await asyncio.to_thread(_json_faults, check, body)
        return _json_faults(check, body)


def _settle_content_type(headers: CIMultiDict[str]) -> None:
    """Refuse a body that says it is not JSON in UTF-8; where nothing was said, say it.

    An upstream must read what is checked here. Raises `Refusal("unsupported_media_type")`.
    """
    mime, _, parameters = headers.get(hdrs.CONTENT_TYPE, "").lower().partition(";")
    mime, charset = mime.strip(), _CHARSET.search(parameters)
    if mime in UNSPECIFIED_TYPES:
        headers[hdrs.CONTENT_TYPE] = "application/json"
    elif (mime not in JSON_TYPES and not mime.endswith("+json")) or (charset and charset[1] != "utf-8"):
        message = "the body must be JSON in UTF-8: send it with `Content-Type: application/json`"
        raise Refusal("unsupported_media_type", message)


def _json_faults(check: Check, body: bytes) -> list[SchemaFault]:
    """Return the rules that the body violates; that it is JSON (RFC 8259) in UTF-8 is the first.

    A name that an object has twice is a violation too (section 4 there): we check the last value, and
    an upstream may take the first.
    """
    try:
        value = json.loads(body.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except _DuplicateKeyError as error:
        return [SchemaFault("", "json", str(error))]
    except (ValueError, RecursionError):
        return [SchemaFault("", "json", "the body must be JSON in UTF-8")]
    return check(value)


def _schema_refusal(faults: Sequence[SchemaFault]) -> Refusal:
    refusal = Refusal("bad_schema", f"the request breaks {len(faults)} rules of its schema")
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


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


# -- JSON Schemas


class BadSchemaError(ValueError):
    """An invalid JSON Schema. `where` is the path to the error inside it."""

    def __init__(self, message: str, where: Sequence[str | int]) -> None:
        super().__init__(message)
        self.where = tuple(where)


def compile_schema(schema: Mapping[str, Any], place: Literal["body", "headers"] = "body") -> Check:
    """Return the check of a JSON Schema (2020-12 unless `$schema` differs). Raises `BadSchemaError`."""
    try:
        validator = jsonschema_rs.validator_for(dict(schema), mask="the value", offline=True)
    except jsonschema_rs.ValidationError as error:
        first = error.message.splitlines()[0]
        raise BadSchemaError(f"invalid JSON Schema: {first}", error.instance_path) from None
    except Exception as error:  # a value that is not JSON (a date), a reference to elsewhere
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise BadSchemaError(f"this JSON Schema cannot be used: {first}", ()) from None

    def check(value: Any) -> list[SchemaFault]:
        try:
            errors = itertools.islice(validator.iter_errors(value), MAX_FAULTS)
            return [_fault(error, place) for error in errors]
        except (ValueError, TypeError, OverflowError, RecursionError):
            return [SchemaFault("", "type", "has a value that cannot be checked", place)]

    return check


def compile_headers(schema: Mapping[str, Any]) -> Check:
    """As `compile_schema`, for headers: names match in any case, numbers and booleans are converted."""
    check = compile_schema(_lowered(schema), "headers")
    compile_schema(schema)  # an error then has its place in the file
    types = {
        name.lower(): value_schema.get("type")
        for name, value_schema in _properties(schema)
        if isinstance(value_schema, Mapping)
    }

    def check_headers(headers: Mapping[str, str]) -> list[SchemaFault]:
        lowered: dict[str, Any] = {}
        for name, value in headers.items():
            key = name.lower()
            lowered[key] = f"{lowered[key]}, {value}" if key in lowered else value
        return check({name: _converted(value, types.get(name)) for name, value in lowered.items()})

    return check_headers


def header_defaults(schema: Mapping[str, Any]) -> dict[str, str]:
    """Return the header values that a schema fills in where the request has none."""
    return {
        name: str(value).lower() if isinstance(value := value_schema["default"], bool) else str(value)
        for name, value_schema in _properties(schema)
        if isinstance(value_schema, Mapping) and "default" in value_schema
    }


def _properties(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        yield from properties.items()


def _lowered(schema: Mapping[str, Any]) -> dict[str, Any]:
    lowered = dict(schema)
    if isinstance(schema.get("properties"), Mapping):
        lowered["properties"] = {
            str(name).lower(): value_schema for name, value_schema in _properties(schema)
        }
    required = schema.get("required")
    if isinstance(required, list):
        lowered["required"] = [name.lower() if isinstance(name, str) else name for name in required]
    return lowered


def _converted(value: str, schema_type: Any) -> Any:
    """Return a header's value as its schema's type, or unchanged if it is none."""
    if schema_type == "boolean":
        return {"true": True, "false": False}.get(value.lower(), value)
    if schema_type in {"integer", "number"}:
        try:
            return int(value) if schema_type == "integer" else float(value)
        except ValueError:
            return value
    return value


def _fault(error: jsonschema_rs.ValidationError, place: Literal["body", "headers"]) -> SchemaFault:
    """Return the violation of an error; its rule is the last name in the path to it in the schema."""
    # RFC 6901 section 3: steps of a JSON pointer are escaped.
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in error.instance_path)
    names = [step for step in error.schema_path if isinstance(step, str)]
    return SchemaFault(
        "".join(f"/{step}" for step in steps), names[-1] if names else "false", error.message, place
    )
