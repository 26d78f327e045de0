"""The keys of `spec` in a route's YAML: its methods, and the schemas of their requests and responses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from gateway.domain.grant import Method
from gateway.plugins.model_types import Strict
from gateway.plugins.upstream_models import Code

JsonSchema = dict[str, Any]
MediaRange = Annotated[str, Field(pattern=r"^[a-z0-9!#$&^_.+*-]+/[a-z0-9!#$&^_.+*-]+$", max_length=255)]
"""A media type in lower case, without parameters, or a range of them."""

Statuses = Annotated[str, Field(pattern=r"^([1-5][0-9][0-9]|[1-5]XX|default)$")]
"""A status, a hundred of them, or all that are not named."""


class RequestSchemaModel(Strict):
    """Schemas of the request."""

    body: JsonSchema | None = Field(None, description="JSON Schema of the body")
    headers: JsonSchema | None = Field(
        None, description="JSON Schema of the headers; a property's `default` is filled in"
    )
    query: JsonSchema | None = Field(None, description="JSON Schema of the query's fields")
    path: JsonSchema | None = Field(None, description="JSON Schema of the path's variables")
    other_types: list[MediaRange] = Field(
        default_factory=list, description="Media types of bodies that are not checked: image/*, */*"
    )
    body_optional: bool = Field(False, description="A request without a body is right, too")


class NormalModel(Strict):
    """Statuses that are normal."""

    codes: list[Code] = Field(default_factory=list, description="Other statuses are logged and counted")


class ResponseSchemaModel(Strict):
    """Responses of one method."""

    normal: NormalModel = Field(default_factory=NormalModel)
    body: JsonSchema | None = Field(
        None, description="JSON Schema of the body of a normal response; others are logged and counted"
    )
    bodies: dict[Statuses, JsonSchema] = Field(
        default_factory=dict, description="The same by status: 200, 4XX or default"
    )


class SchemaModel(Strict):
    """Schemas of one method."""

    request: RequestSchemaModel = Field(default_factory=RequestSchemaModel)
    response: ResponseSchemaModel = Field(default_factory=ResponseSchemaModel)


class SpecModel(Strict):
    """One method of a route."""

    command: Literal["callout"] = "callout"
    method: Method
    usage: str = Field("", description="What it does, in a line")
    description: str = Field("", description="What it does, in more words")
    tags: list[str] = Field(default_factory=list, description="Groups that it belongs to")
    schemas: SchemaModel = Field(default_factory=SchemaModel, alias="schema")
