"""`/-/docs` in a real browser: what it lists and shows, whom it asks, how it fails."""

from __future__ import annotations

import json
import re

import pytest
from playwright.async_api import Route, expect

from tests.integration.console.visits import OPEN, PEOPLE, SEARCH, visiting_docs
from tests.support.routing.scripted import Serve, route

pytestmark = pytest.mark.slow

PUT_PERSON = "#put/people/%7Bid%7D"
HOSTILE = "<img src=x onerror=alert(1)><script>alert(1)</script>"


async def test_an_operation_is_described_whole(serve: Serve) -> None:
    gateway = await serve(PEOPLE, SEARCH)
    async with visiting_docs() as visit:
        await visit.show(gateway.url, PUT_PERSON)
        shown = visit("#operation")
        await expect(shown.locator("h2")).to_have_text("Stores a person")
        await expect(shown.locator(".address")).to_contain_text("PUT /people/{id}")
        text = await shown.inner_text()
        for part in (
            "A token of the gateway, or an API key, in Authorization: Bearer",
            "100 requests in 60 seconds for each address",
            "50 requests at the same time, of all callers",
            "65,536 bytes of body",
            "The tenant of the person",
            "matches ^[a-z]+$",
            'one of "reader", "writer"',
            "array of Person",
            "from 0, to 150",
            "No other fields",
            "More than 100 requests of one address in 60 seconds",
        ):
            assert part in text, part
        assert [await code.inner_text() for code in await shown.locator(".code").all()] == [
            *("201", "400", "401", "413", "429", "503", "other"),
        ]
        await expect(visit("#groups [aria-current]")).to_contain_text("Stores a person")
        assert await visit.page.title() == "PUT /people/{id} · Upload Gateway"
        await visit.take("api-docs")
        await visit.page.emulate_media(color_scheme="dark")
        await visit.page.set_viewport_size({"width": 390, "height": 844})
        await visit.take("api-docs-phone")
        assert visit.said == []


async def test_a_schema_that_refers_to_itself_opens_step_by_step(serve: Serve) -> None:
    gateway = await serve(PEOPLE)
    async with visiting_docs() as visit:
        await visit.show(gateway.url, PUT_PERSON)
        parents = visit("#operation .fields li", has_text="parents").filter(has_text="array of Person")
        for _ in range(4):
            closed = parents.locator("details:not([open]) > summary").first
            count = await parents.locator("code", has_text="parents").count()
            await closed.click()
            await expect(parents.locator("code", has_text="parents")).not_to_have_count(count)


async def test_operations_are_searched_and_linked(serve: Serve) -> None:
    gateway = await serve(PEOPLE, SEARCH)
    async with visiting_docs() as visit:
        await visit.show(gateway.url)
        await expect(visit("#operation h2")).to_have_text("Overview")
        people = ["GET /people", "GET /people/{id}", "PUT /people/{id}"]
        assert (await visit.listed())[:3] == people
        await visit("#search").fill("people put")
        await expect(visit("#count")).to_have_text(re.compile(r"^1 of \d+ operations$"))
        assert await visit.listed() == ["PUT /people/{id}"]
        await visit.page.keyboard.press("ArrowDown")
        await visit.page.keyboard.press("Enter")
        await expect(visit("#operation h2")).to_be_focused()
        await expect(visit("#operation h2")).to_have_text("Stores a person")
        assert visit.page.url.endswith(PUT_PERSON)
        await visit.page.go_back()
        await expect(visit("#operation h2")).to_have_text("Overview")
        await visit("#search").fill("nothing has this name")
        await expect(visit("#count")).to_have_text(re.compile(r"^0 of \d+ operations$"))
        await visit.page.goto(f"{gateway.url}/-/docs#get/none")
        await expect(visit("#operation h2")).to_have_text("No such operation")


async def test_a_token_is_asked_for_where_nothing_is_open_and_is_kept_nowhere(serve: Serve) -> None:
    gateway = await serve(PEOPLE)
    async with visiting_docs() as visit:
        await visit.open(gateway.url)
        await expect(visit("#gate")).to_be_visible()
        await expect(visit("#token")).to_be_focused()
        await expect(visit("#gate-error")).to_be_hidden()
        await visit.sign_in("wrong")
        await expect(visit("#gate-error")).to_contain_text("A valid token or key is needed")
        await visit.sign_in("secret-alice")
        await expect(visit("#caller")).to_have_text("alice")
        kept = await visit.page.evaluate(
            "[localStorage.length, sessionStorage.length, document.cookie, location.search]"
        )
        assert kept == [0, 0, "", ""]
        assert "secret-alice" not in await visit.page.content()
        await visit("#forget-token").click()
        await expect(visit("#gate")).to_be_visible()
        await visit.sign_in("secret-alice")
        await expect(visit("#pages")).to_be_visible()
        await visit.page.reload()
        await expect(visit("#gate")).to_be_visible()


async def test_what_is_open_is_shown_at_once_and_more_with_a_token(serve: Serve) -> None:
    gateway = await serve(PEOPLE, OPEN)
    async with visiting_docs() as visit:
        await visit.open(gateway.url)
        await expect(visit("#pages")).to_be_visible()
        assert "GET /open" in await visit.listed()
        assert not [one for one in await visit.listed() if "people" in one]
        await visit("#use-token").click()
        await visit("#gate-close").click()
        await expect(visit("#pages")).to_be_visible()
        await visit("#use-token").click()
        await visit.sign_in("wrong")
        await expect(visit("#gate-error")).to_have_text("The gateway does not know this token.")
        await visit.sign_in("secret-alice")
        await expect(visit("#caller")).to_have_text("alice")
        assert "PUT /people/{id}" in await visit.listed()


async def test_a_gateway_without_routes_says_so(serve: Serve) -> None:
    gateway = await serve(auth="none")
    async with visiting_docs(viewport={"width": 390, "height": 844}) as visit:
        await visit.open(gateway.url)
        assert "PUT /upload/{filepath}" in await visit.listed()
        document = {"openapi": "3.1.0", "info": {"title": "Empty"}, "paths": {}}

        async def empty(handled: Route) -> None:
            await handled.fulfill(json=document)

        await visit.page.route("**/-/openapi.json", empty)
        await visit.page.reload()
        await expect(visit("#operation h2")).to_have_text("Nothing is served yet")
        await expect(visit("#count")).to_have_text("0 operations")


@pytest.mark.parametrize(
    ("status", "body", "title", "text"),
    [
        (None, "", "The gateway does not answer", "It may be restarting"),
        (200, "<html>", "This is no OpenAPI document", "another server"),
        (200, "[]", "This is no OpenAPI document", "another server"),
        (
            503,
            '{"message": "it is being stopped"}',
            "The gateway cannot show its operations",
            "It is being stopped",
        ),
        (502, "bad gateway", "The gateway cannot show its operations", "the status 502"),
    ],
)
async def test_a_failure_is_told_and_tried_again(
    serve: Serve, status: int | None, body: str, title: str, text: str
) -> None:
    gateway = await serve(OPEN)

    async def fail(handled: Route) -> None:
        if status is None:
            await handled.abort()
        else:
            await handled.fulfill(status=status, body=body)

    async with visiting_docs() as visit:
        await visit.page.route("**/-/openapi.json", fail)
        await visit.open(gateway.url)
        await expect(visit("#failure-title")).to_have_text(title)
        await expect(visit("#failure-title")).to_be_focused()
        await expect(visit("#failure-text")).to_contain_text(text)
        await visit.page.unroute("**/-/openapi.json")
        await visit("#again").click()
        await expect(visit("#pages")).to_be_visible()


async def test_a_caller_who_may_call_nothing_is_told_so_and_may_try_another_token(serve: Serve) -> None:
    gateway = await serve(PEOPLE)

    async def forbid(handled: Route) -> None:
        await handled.fulfill(status=403, json={"error": "forbidden", "message": "a key is not enough"})

    async with visiting_docs() as visit:
        await visit.page.route("**/-/openapi.json", forbid)
        await visit.open(gateway.url)
        await expect(visit("#gate-title")).to_have_text("This token may call nothing here")
        await expect(visit("#gate-error")).to_have_text("A key is not enough")
        await visit.page.unroute("**/-/openapi.json")
        await visit.sign_in("secret-alice")
        await expect(visit("#pages")).to_be_visible()


async def test_loading_is_said(serve: Serve) -> None:
    gateway = await serve(OPEN)
    async with visiting_docs() as visit:
        held: list[Route] = []
        await visit.page.route("**/-/openapi.json", lambda handled: held.append(handled))
        await visit.page.goto(f"{gateway.url}/-/docs")
        await expect(visit("#loading")).to_have_text("Loading…")
        await expect(visit("#loading")).to_be_visible()
        while not held:
            await visit.page.wait_for_event("request")
        await held[0].continue_()
        await expect(visit("#pages")).to_be_visible()


async def test_texts_of_plugins_are_texts(serve: Serve) -> None:
    """Whatever a document has in names, paths and schemas, nothing of it becomes markup."""
    gateway = await serve(OPEN)
    schema = {
        "title": HOSTILE,
        "description": HOSTILE,
        "type": HOSTILE,
        "format": HOSTILE,
        "pattern": HOSTILE,
        "enum": [HOSTILE],
        "default": HOSTILE,
        "properties": {
            HOSTILE: {"$ref": f"#/components/schemas/{HOSTILE}"},
            "__proto__": {"type": "string"},
        },
        "required": [HOSTILE],
    }
    operation = {
        "summary": HOSTILE,
        "description": HOSTILE,
        "tags": [HOSTILE],
        "security": [{HOSTILE: [HOSTILE]}],
        "parameters": [
            {"name": HOSTILE, "in": place, "required": True, "description": HOSTILE, "schema": schema}
            for place in ("path", "query", "header")
        ],
        "requestBody": {
            "description": HOSTILE,
            "content": {HOSTILE: {"schema": schema, "example": HOSTILE}},
        },
        "responses": {
            HOSTILE: {
                "description": HOSTILE,
                "headers": {HOSTILE: {"description": HOSTILE}},
                "content": {HOSTILE: {"schema": schema}},
            }
        },
        "x-gateway-hosts": [HOSTILE],
        "x-gateway-groups": [HOSTILE],
        "x-gateway-when": {"headers": {HOSTILE: [HOSTILE]}, "query": {HOSTILE: False}},
        "x-gateway-limits": {"requests": {"count": HOSTILE, "seconds": HOSTILE, "by": HOSTILE}},
    }
    document = {
        "info": {"title": HOSTILE, "version": HOSTILE, "description": HOSTILE},
        "paths": {f"/{HOSTILE}/{{{HOSTILE}}}": {"put": operation}},
        "components": {
            "schemas": {HOSTILE: schema},
            "securitySchemes": {
                HOSTILE: {"type": "apiKey", "name": HOSTILE, "in": HOSTILE, "description": HOSTILE}
            },
        },
        "x-gateway-caller": {"name": HOSTILE, "kind": HOSTILE},
    }

    async def hostile(handled: Route) -> None:
        await handled.fulfill(body=json.dumps(document), content_type="application/json")

    async with visiting_docs() as visit:
        dialogs: list[str] = []
        visit.page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        await visit.page.route("**/-/openapi.json", hostile)
        await visit.open(gateway.url)
        await expect(visit("#title")).to_have_text(HOSTILE)
        await visit("#groups a").click()
        await expect(visit("#operation h2")).to_have_text(HOSTILE)
        for summary in await visit("#operation summary").all():
            await summary.click()
        assert (
            await visit.page.evaluate("document.querySelectorAll('img, script:not([src])').length") == 0
        )
        assert (dialogs, visit.said) == ([], [])


@pytest.mark.parametrize("count", [1, 1000])
async def test_one_operation_and_a_thousand_are_shown(serve: Serve, count: int) -> None:
    texts = [
        route(
            f"/area{number % 20}/thing{number}/{{id}}",
            "return 1",
            f"spec: [{{method: GET, usage: Thing {number}}}]\n",
        )
        for number in range(count)
    ]
    gateway = await serve("---\n".join(texts))
    async with visiting_docs() as visit:
        await visit.open(gateway.url, "#get/area0/thing0/%7Bid%7D")
        await expect(visit("#operation h2")).to_have_text("Thing 0")
        assert len([one for one in await visit.listed() if "thing" in one]) == count
        await visit("#search").fill(f"thing{count - 1}/")
        await expect(visit("#groups li:not([hidden])")).to_have_count(1)
        await visit("#groups li:not([hidden]) a").click()
        await expect(visit("#operation h2")).to_have_text(f"Thing {count - 1}")
