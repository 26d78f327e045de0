"""The responses of a route: those that are normal, and the refusals of the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

from gateway.endpoints.routing.model import Operation, Route
from gateway.endpoints.routing.openapi.components import (
    BAD_SCHEMA,
    ERROR,
    FORBIDDEN,
    RATE_HEADERS,
    RETRY_AFTER,
    UNAUTHORIZED,
    error_response,
)
from gateway.endpoints.routing.openapi.shared_schemas import SharedSchemas

ANY_SUCCESS: Final = "2XX"
"""The key of all statuses from 200 to 299 (specification, Responses Object)."""

_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}

Response = dict[str, Any]


def route_responses(
    route: Route, operation: Operation, shared: SharedSchemas, *, authorized: bool
) -> Response:
    """Return the responses of an operation. `authorized`: it needs credentials."""
    schema = operation.response_schema
    content = None if schema is None else shared.whole(schema, f"{route.name} response")
    responses = dict(_normal(route, operation, content))
    for code, of_code in operation.response_schemas.items():
        phrase = _PHRASES.get(int(code), code) if code.isdecimal() else "Another response"
        responses[code] = _with_content(phrase, shared.whole(of_code, f"{route.name} response {code}"))
    for code, response in _refusals(route, operation, authorized=authorized):
        responses.setdefault(code, response)
    last = responses.pop("default", ERROR)
    return {**dict(sorted(responses.items())), "default": last}


def max_body_bytes(route: Route, operation: Operation) -> int | None:
    """Return the maximum size of a body: one that is read whole has a limit in any case."""
    limits = route.limits
    scripts = (route.request_script, route.response_script)
    reads = any(script is not None and script.reads_body for script in scripts)
    bounds = [limits.max_body] if operation.body_schema is not None or reads else []
    bounds += [] if limits.body is None else [limits.body]
    return min(bounds, default=None)


def _normal(route: Route, operation: Operation, schema: Any) -> Iterator[tuple[str, Response]]:
    if (redirect := route.redirect) is not None:
        location = {"description": redirect.url, "schema": {"type": "string"}}
        description = _PHRASES.get(redirect.status, "Redirect")
        yield str(redirect.status), {"description": description, "headers": {"Location": location}}
        return
    if route.websocket and operation.method == "GET":
        yield "101", {"description": "The connection is a WebSocket from here on"}
    for code in map(str, sorted(operation.normal_codes)):
        yield code, _with_content(_PHRASES.get(int(code), code), schema)
    if not operation.normal_codes:
        yield ANY_SUCCESS, _with_content("Success", schema)


def _with_content(description: str, schema: Any) -> Response:
    if schema is None:
        return {"description": description}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _refusals(route: Route, operation: Operation, *, authorized: bool) -> Iterator[tuple[str, Response]]:
    schemas = (
        operation.body_schema,
        operation.headers_schema,
        operation.query_schema,
        operation.path_schema,
    )
    if any(schema is not None for schema in schemas):
        yield "400", BAD_SCHEMA
    if authorized:
        yield "401", UNAUTHORIZED
    if route.scopes or route.groups or route.clients.allow or route.clients.deny:
        yield "403", FORBIDDEN
    if (limit := max_body_bytes(route, operation)) is not None:
        yield "413", error_response(f"The body is larger than {limit} bytes")
    if (rate := route.rate) is not None:
        counted = f"of one {rate.by} in {rate.seconds:g} seconds"
        yield "429", error_response(f"More than {rate.count} requests {counted}", RATE_HEADERS)
    if (count := route.limits.in_flight) is not None:
        described = f"{count} requests are being served, or no upstream can serve this one"
        yield "503", error_response(described, RETRY_AFTER)
