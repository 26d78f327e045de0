"""The commands that `/-/docs` shows work: each is run against the gateway that shows it."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from gateway.server.app import Gateway
from tests.integration.console.visits import PEOPLE, SEARCH, DocsVisit, visiting_docs
from tests.support.routing.scripted import Serve, route

pytestmark = pytest.mark.slow

BODY = """
spec:
- method: POST
  schema:
    request:
      body:
        type: object
        required:
          [text, quote, number, whole, exact, list, pair, either, both, fixed, day, id, mail, deep, flag]
        properties:
          text: {type: string, minLength: 40}
          quote: {const: "it's $HOME `id` \\"x\\" \\\\"}
          number: {type: number, exclusiveMinimum: 3.5}
          whole: {type: integer, maximum: -7}
          exact: {type: integer, minimum: 10, multipleOf: 7}
          list: {type: array, minItems: 2, items: {enum: [red, blue]}}
          pair: {type: array, items: {$ref: "#/$defs/pair"}}
          either: {oneOf: [{type: string, maxLength: 2}, {type: integer}]}
          both:
            allOf:
            - {$ref: "#/$defs/pair"}
            - {type: object, required: [more], properties: {more: {type: boolean}}}
          fixed: {type: [integer, "null"]}
          day: {type: string, format: date}
          id: {type: string, format: uuid}
          mail: {type: string, pattern: "^[^@]+@[^@]+$"}
          deep: {required: [deep], properties: {deep: {required: [x], properties: {x: {}}}}}
          flag: {type: boolean}
        $defs:
          pair: {required: [a], properties: {a: {type: string}, b: {$ref: "#/$defs/pair"}}}
      query:
        required: [kind, page, "a b&c"]
        properties:
          kind: {enum: ["one & two", three]}
          page: {type: integer, minimum: 2}
          "a b&c": {type: array, items: {type: integer}, minItems: 2}
      headers: {required: [X-Count], properties: {X-Count: {type: integer, minimum: 5}}}
      path: {properties: {id: {type: integer, minimum: 3}, name: {enum: ["a b"]}}}
"""

ROUTES = [
    PEOPLE,
    SEARCH,
    route("/all/{id}/{name}/{rest:path}", "return {}", BODY, auth="token"),
    route("/any", "return {}"),
    route("/it''s/{x}", "return {}", "spec: [{method: PATCH}, {method: GET}]\n"),
    route(
        "/host/{x}",
        "return {}",
        "hosts: [shop.example]\nwhen: {headers: {X-V: '2'}, query: {q: [a, b]}}\n",
    ),
    "name: moved\nredirect: {url: 'https://new.example/{x}', status: 301}\n"
    "proxy: {path: '/old/{x}', authorization: {auth: none}}\nspec: [{method: GET}]\n",
    route("/wild", "return {}", 'hosts: ["*.shop.example"]\nspec: [{method: GET}]\n'),
]


async def commands(visit: DocsVisit) -> dict[str, str]:
    """The command of each operation, by its fragment."""
    links: list[str] = await visit("#groups a").evaluate_all(
        "all => all.map(a => a.getAttribute('href'))"
    )
    shown = {}
    for link in links:
        await visit.page.evaluate("link => { location.hash = link; }", link)
        await expect(visit(f'#groups a[href="{link}"]')).to_have_attribute("aria-current", "page")
        shown[link] = await visit("#curl").inner_text() if await visit("#curl").count() else ""
    return shown


async def run(gateway: Gateway, command: str) -> tuple[int, str]:
    """Run a command in a shell; return the status that curl got, and what it printed."""
    environ: dict[str, Any] = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TOKEN": "secret-alice",
        "UPLOAD_GATEWAY_DIRECTORY": str(gateway.resources.settings.directory),
        "UPLOAD_GATEWAY_PUBLIC_URL": gateway.url,
    }
    silent = r"""curl() { command curl -sS --max-time 60 -w '\n%{http_code}' "$@"; }"""
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", f"{silent}\n{command}", env=environ,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    printed, _ = await process.communicate()
    text = printed.decode(errors="replace")
    last = text.rpartition("\n")[2]
    return int(last) if last.isdecimal() else 0, text


async def test_every_command_is_run_and_answered_as_the_page_says(serve: Serve) -> None:
    gateway = await serve(*ROUTES, downloads="true", listing="true", deletes="true")
    async with visiting_docs() as visit:
        await visit.show(gateway.url)
        shown = await commands(visit)
    outcomes = {link: await run(gateway, command) for link, command in shown.items() if command}
    internal = {link for link, command in shown.items() if not command}
    assert internal == {
        "#post/-/live/process",
        "#post/-/uploads/removed",
        "#post/-/uploads/%7Bupload_id%7D/give-up",
        "#post/-/objects/%7Bfilepath%7D",
        "#delete/-/objects/%7Bfilepath%7D",
    }
    routes = {
        link: outcome for link, outcome in outcomes.items() if not re.match(r"#\w+/(-|upload)/", link)
    }
    expected = {"#put/people/%7Bid%7D": 201, "#get/people/%7Bid%7D": 201, "#get/old/%7Bx%7D": 301}
    assert {link: status for link, (status, _) in routes.items()} == {
        link: expected.get(link, 200) for link in routes
    }, routes
    assert len(routes) == 18
    # What an upload or an event of the sample's name is not there may be 404; a notification is signed.
    # The token of the sample signs nobody in, and what a link shares is for who has one.
    wrong = {400, 401, 403, 405, 411, 413, 415, 0} | set(range(500, 600))
    ours = {link: outcome for link, outcome in outcomes.items() if link not in routes}
    failed = {link: outcome for link, outcome in ours.items() if outcome[0] in wrong}
    assert set(failed) <= {"#post/-/notifications", "#post/-/session", "#get/-/shared"}, failed


async def test_a_token_is_in_no_command(serve: Serve) -> None:
    gateway = await serve(PEOPLE)
    async with visiting_docs() as visit:
        await visit.show(gateway.url, "#put/people/%7Bid%7D")
        command = await visit("#curl").inner_text()
        assert "$TOKEN" in command
        assert "secret-alice" not in command
