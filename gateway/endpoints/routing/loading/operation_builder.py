"""Makes an `Operation` of an item of `spec`: compiles its schemas, and notes what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from gateway.domain.template_segments import variable_names
from gateway.endpoints.routing.model import Operation
from gateway.endpoints.routing.validation.schemas import (
    BadSchemaError,
    compile_headers,
    compile_path,
    compile_query,
    compile_schema,
    header_defaults,
)
from gateway.plugins.spec_models import SpecModel

Result = TypeVar("Result")


class Fail(Protocol):
    """Notes an error at a key of the item."""

    def __call__(self, message: str, *where: object) -> None:
        """Note it."""


def build_operation(spec: SpecModel, path: str, fail: Fail) -> Operation:
    """Return the operation of a route with the template `path`; it is not to be used after `fail`."""
    request, response = spec.schemas.request, spec.schemas.response
    _check_variables(request.path, path, fail)

    def compiled(compiler: Callable[[Any], Result], schema: Any, *place: str) -> Result | None:
        if schema is None:
            return None
        try:
            return compiler(schema)
        except BadSchemaError as error:
            fail(str(error), "schema", *place, *error.where)
        return None

    checks = {
        status: compiled(compile_schema, schema, "response", "bodies", status)
        for status, schema in response.bodies.items()
    }
    return Operation(
        method=spec.method,
        usage=spec.usage,
        body_schema=request.body,
        headers_schema=request.headers,
        query_schema=request.query,
        path_schema=request.path,
        response_schema=response.body,
        response_schemas=response.bodies,
        normal_codes=frozenset(response.normal.codes),
        check_body=compiled(compile_schema, request.body, "request", "body"),
        check_headers=compiled(compile_headers, request.headers, "request", "headers"),
        check_query=compiled(compile_query, request.query, "request", "query"),
        check_path=compiled(compile_path, request.path, "request", "path"),
        check_response=compiled(compile_schema, response.body, "response", "body"),
        check_responses={status: check for status, check in checks.items() if check is not None},
        defaults=header_defaults(request.headers or {}),
        other_types=tuple(request.other_types),
        body_optional=request.body_optional,
        description=spec.description,
        tags=tuple(spec.tags),
    )


def _check_variables(schema: Any, path: str, fail: Fail) -> None:
    """A schema of a variable that the path does not have checks nothing."""
    variables = set(variable_names(path))
    properties = (schema or {}).get("properties")
    for name in properties if isinstance(properties, dict) else ():
        if name not in variables:
            message = f"the served path has no variable {{{name}}}"
            fail(message, "schema", "request", "path", "properties", name)
