"""Visits of `/-/docs`, and routes that it shows."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

from playwright.async_api import expect

from tests.support.browser import BrowserVisit, visiting_as
from tests.support.routing.scripted import route

PEOPLE: Final = """
name: storePerson
upstreams: []
proxy: {path: "/people/{id}", authorization: {auth: token}}
request_script: |
  return 201, {"id": request.resources["id"]}
spec:
- method: PUT
  usage: Stores a person
  schema:
    request:
      headers:
        required: [X-Tenant]
        properties:
          X-Tenant: {type: string, pattern: "^[a-z]+$", description: The tenant of the person}
      query:
        properties: {dry_run: {type: boolean, default: false, description: Check only}}
      path: {properties: {id: {type: integer, minimum: 1}}}
      body:
        type: object
        required: [name, age, address]
        additionalProperties: false
        properties:
          name: {type: string, minLength: 1, maxLength: 100, description: As on the passport}
          age: {type: integer, minimum: 0, maximum: 150}
          role: {enum: [reader, writer], default: reader}
          address: {$ref: "#/$defs/Address"}
          parents: {type: array, maxItems: 2, items: {$ref: "#/$defs/Person"}}
        $defs:
          Address:
            {type: object, required: [city], properties: {city: {type: string}, zip: {type: string}}}
          Person:
            type: object
            properties: {name: {type: string}, parents: {type: array, items: {$ref: "#/$defs/Person"}}}
    response:
      normal: {codes: [201]}
      body: {type: object, required: [id], properties: {id: {type: string}}}
- {method: GET, usage: Reads a person}
rate_limit: {count: 100, seconds: 60}
limits: {in_flight: 50, max_body: 65536}
"""

SEARCH: Final = """
name: findPeople
upstreams: []
proxy: {path: /people, authorization: {auth: none}}
request_script: |
  return []
spec:
- method: GET
  usage: Finds people
  schema:
    request:
      query:
        required: [q]
        properties: {q: {type: string, minLength: 3}, page: {type: integer, minimum: 1}}
"""

OPEN: Final = route("/open", "return 1", "spec: [{method: GET, usage: Open to all}]\n")


@dataclass
class DocsVisit(BrowserVisit):
    """A visit of the page of the operations."""

    async def open(self, url: str, fragment: str = "") -> None:
        """Open the page, and wait until it shows something."""
        await self.page.goto(f"{url}/-/docs{fragment}")
        await expect(self("#loading")).to_be_hidden()

    async def show(self, url: str, fragment: str = "", token: str = "secret-alice") -> None:
        """Open the page with a token, and wait for the operations."""
        await self.open(url, fragment)
        if await self("#use-token").is_visible():
            await self("#use-token").click()
        await self.sign_in(token)
        await expect(self("#pages")).to_be_visible()

    async def sign_in(self, token: str) -> None:
        await self("#token").fill(token)
        await self.page.keyboard.press("Enter")

    async def listed(self) -> list[str]:
        """Return the visible operations of the list."""
        rows = await self("#groups li:not([hidden]) a").evaluate_all(
            "all => all.map(row => [...row.children].slice(0, 2).map(one => one.textContent).join(' '))"
        )
        return list(rows)


def visiting_docs(**how: Any) -> AbstractAsyncContextManager[DocsVisit]:
    """Start a browser: `async with visiting_docs(color_scheme="dark") as visit`."""
    return visiting_as(DocsVisit, **{"viewport": {"width": 1280, "height": 860}, **how})
