"""The OpenAPI document says what is served, and what it says holds."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis import GenerationMode

from tests.support.harness import get
from tests.support.routing.scripted import SPEC, Serve, ask, route, write


async def test_the_document_shows_what_is_served_now(serve: Serve) -> None:
    gateway = await serve(route("/first", "return 1", auth="token"), auth="token")
    assert (await get(gateway, "/-/openapi.json")).status == 401
    token = f"X-Auth-Token: {gateway.resources.base.shared.token}"
    page = (await get(gateway, "/-/openapi.json", token)).json
    OpenAPIV31SpecValidator(page).validate()
    assert "/first" in page["paths"]
    write(gateway.resources.settings.plugins[0], route("/second", "return 1"))
    await gateway.reload()
    page = (await get(gateway, "/-/openapi.json", token)).json
    assert "/first" not in page["paths"]
    assert "/second" in page["paths"]


SCRIPT = """
value = json.loads(request.body)
return {"id": value["id"] + 1, "name": value["name"].upper(), "tags": value.get("tags", [])}
"""


async def test_a_valid_request_of_the_document_is_answered(serve: Serve) -> None:
    gateway = await serve(route("/thing/{x}", SCRIPT, SPEC))
    answer = await ask(gateway, "PUT", "/thing/1", "X-Count: 1", body=b'{"id": 1, "name": "a"}')
    assert answer.json == {"id": 2, "name": "A", "tags": []}


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode))
async def test_generated_requests_never_break_a_validated_route(
    serve: Serve, mode: GenerationMode
) -> None:
    gateway = await serve(route("/thing/{x}", SCRIPT, SPEC))
    page = (await get(gateway, "/-/openapi.json")).json
    page["paths"] = {"/thing/{x}": page["paths"]["/thing/{x}"]}
    [operation] = schemathesis.openapi.from_dict(page).get_all_operations()
    statuses: set[int] = set()

    @given(case=operation.ok().as_strategy(generation_mode=mode))  # type: ignore[union-attr]  # an Err fails here
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    def call(case: schemathesis.Case[Any]) -> None:
        response = case.call(base_url=gateway.url)
        statuses.add(response.status_code)
        assert response.status_code < 500, response.text

    logging.getLogger("urllib3").setLevel(logging.ERROR)
    await asyncio.to_thread(call)
    assert (200 if mode == GenerationMode.POSITIVE else 400) in statuses
