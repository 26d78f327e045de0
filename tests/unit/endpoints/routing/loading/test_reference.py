"""The reference pages name every key of a route, and every name of its scripts."""

from __future__ import annotations

import dataclasses
import json
from typing import Final

import pytest

from gateway.endpoints.routing.scripts.request import ScriptRequest
from gateway.endpoints.routing.scripts.values import ScriptResponse
from gateway.plugins import openapi_models, route_models, spec_models, upstream_models
from gateway.plugins.model_types import Strict
from tests.support.reference_pages import keys, page, rows, section

MODELS: Final = [
    model
    for models in (route_models, spec_models, upstream_models, openapi_models)
    for name, model in vars(models).items()
    if name.endswith("Model") and model.__module__ == models.__name__
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_key_of_a_route_is_documented_with_its_default(model: type[Strict]) -> None:
    table = section(page("routes.md"), f"<!-- keys of {model.__name__} -->")
    named = {field.alias or name: field for name, field in model.model_fields.items()}
    assert keys(table) == list(named)
    for row in rows(table):
        field = named[row[0].strip("`")]
        assert (row[1] == "needed") == field.is_required(), row
        if isinstance(field.default, str | int | float) and field.default != "":
            assert row[1] == f"`{json.dumps(field.default).strip(chr(34))}`"


def test_the_names_of_the_scripts_of_routes_are_documented() -> None:
    said = keys(section(page("script-names.md"), "## Routes"))
    request = [f"request.{field.name}" for field in dataclasses.fields(ScriptRequest)]
    response = [f"response.{field.name}" for field in dataclasses.fields(ScriptResponse)]
    assert [name for name in said if name.startswith("re")] == [*request, *response]
