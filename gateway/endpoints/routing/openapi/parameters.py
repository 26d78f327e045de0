"""The parameters of an operation: path, query, headers, and the conditions of its route."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from gateway.domain.path_template import RouteTemplate
from gateway.domain.template_segments import LITERAL, REST, variable_names
from gateway.endpoints.routing.model import Operation, Route
from gateway.endpoints.routing.openapi.shared_schemas import SharedSchemas
from gateway.endpoints.routing.rules import Condition

Parameter = dict[str, Any]

_NOT_PARAMETERS: Final = frozenset({"accept", "content-type", "authorization"})
"""Header parameters of these names are ignored (specification, Parameter Object)."""

_STYLES: Final = {",": "form", "|": "pipeDelimited", " ": "spaceDelimited"}
"""How the values of an array stand in one field of the query, by what is between them."""

REST_DESCRIPTION: Final = "One segment of the path, or more, with slashes"


def path_parameters(path: str, rests: Iterable[str] = ()) -> dict[str, Any]:
    """Return the `parameters` of a path; the variables `rests` span several segments."""
    many = set(rests)
    parameters = [_path_parameter(name, name in many) for name in variable_names(path)]
    return {"parameters": parameters} if parameters else {}


def rest_names(template: RouteTemplate) -> list[str]:
    """Return the names of the variables that span several segments."""
    return [part.text for part in template.segments if part.kind == REST]


def route_parameters(
    route: Route, operation: Operation, path: str, shared: SharedSchemas
) -> list[Parameter]:
    """Return the parameters of an operation beside those of its path in the document.

    `path` is that path, whose variables may have the names of another route.
    """
    conditions = route.conditions
    query = _of_schema(operation.query_schema, "query", shared, route.name)
    headers = _of_schema(operation.headers_schema, "header", shared, route.name)
    return [
        *_path_schemas(route, operation, path, shared),
        *_with_conditions(query, "query", conditions.query),
        *_with_conditions(headers, "header", conditions.headers),
    ]


def _path_parameter(name: str, spans: bool, schema: Any = None) -> Parameter:
    description = {"description": REST_DESCRIPTION} if spans else {}
    return {
        "name": name,
        "in": "path",
        "required": True,
        **description,
        "schema": {"type": "string"} if schema is None else schema,
    }


def _path_schemas(
    route: Route, operation: Operation, path: str, shared: SharedSchemas
) -> Iterator[Parameter]:
    schema = operation.path_schema
    if schema is None:
        return
    template = RouteTemplate.parse(route.path)
    variables = [part for part in template.segments if part.kind != LITERAL]
    described = schema.get("properties", {})
    for shown, part in zip(variable_names(path), variables, strict=True):
        if part.text in described:
            value = shared.property_of(schema, part.text, f"{route.name} path")
            yield _path_parameter(shown, part.kind == REST, value)


def _of_schema(
    schema: Mapping[str, Any] | None, place: str, shared: SharedSchemas, owner: str
) -> list[Parameter]:
    """Return a parameter for each property and each required name of a schema of an object."""
    if schema is None:
        return []
    properties, names = schema.get("properties", {}), schema.get("required", ())
    # The names of headers have no case.
    fold = str.lower if place == "header" else str
    required, shown = {fold(str(name)) for name in names}, {fold(name) for name in properties}
    listed = [*properties, *(name for name in names if fold(str(name)) not in shown)]
    return [
        _parameter(
            name, place, fold(name) in required, shared.property_of(schema, name, f"{owner} {place}")
        )
        for name in listed
        if place != "header" or name.lower() not in _NOT_PARAMETERS
    ]


def _parameter(name: str, place: str, required: bool, schema: Any) -> Parameter:
    # A header with a default is filled in where it is missing.
    keywords = schema if isinstance(schema, Mapping) else {}
    filled = place == "header" and "default" in keywords
    parameter = {"name": name, "in": place, "required": required and not filled, "schema": schema}
    style = _STYLES.get(str(keywords.get("x-delimiter"))) if place == "query" else None
    return parameter if style is None else {**parameter, "style": style, "explode": False}


def _with_conditions(
    parameters: list[Parameter], place: str, conditions: Mapping[str, Condition]
) -> list[Parameter]:
    """Add what a route requires of its requests (`when`) to parameters of one place."""
    fold = str.lower if place == "header" else str
    shown = {fold(parameter["name"]): parameter for parameter in parameters}
    for name, condition in conditions.items():
        if condition is False or (place == "header" and name.lower() in _NOT_PARAMETERS):
            continue
        parameter = shown.get(fold(name))
        if parameter is None:
            parameter = _parameter(name, place, True, {"type": "string"})
            parameters.append(parameter)
        parameter["required"] = True
        if condition is not True:
            parameter["schema"] = {"enum": list(condition)}
    return parameters
