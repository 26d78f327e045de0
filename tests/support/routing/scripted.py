"""What tests of routes need: gateways whose plugins are given as text, and requests with bodies."""

from __future__ import annotations

import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

from multidict import CIMultiDict

from gateway.auth.request import RequestHead
from gateway.endpoints.routing.loading.plugin import KIND, routing_kind
from gateway.endpoints.routing.table import RouteMatch, RouteTable
from gateway.plugins import KINDS, Plugins
from gateway.plugins.scripting.namespace import Services
from gateway.server.app import Gateway
from tests.support.harness import GatewayProcess, RawResponse, raw_connection, request_head, write_plugin

Serve = Callable[..., Awaitable[Gateway]]
UPLOADS = "/upload/{filepath}"
SPEC = """
spec:
- method: PUT
  schema:
    request:
      body:
        type: object
        required: [id, name]
        additionalProperties: false
        properties:
          id: {type: integer, maximum: 100}
          name: {type: string, pattern: "^[a-z]+$"}
          tags: {type: array, items: {enum: [red, blue]}}
      headers:
        required: [Content-Type, X-Count]
        properties:
          Content-Type: {type: string, default: application/json}
          X-Count: {type: integer, minimum: 1}
          X-Flag: {default: true}
"""


def route(
    path: str = "/r", script: str | None = None, more: str = "", *, auth: str = "none", answers: str = ""
) -> str:
    """A routing plugin. `script` is its request script, `answers` its response script."""
    text = f"upstreams: []\nproxy: {{path: '{path}', authorization: {{auth: {auth}}}}}\n"
    for key, code in (("request", script), ("response", answers)):
        if code:
            body = textwrap.indent(textwrap.dedent(code).strip("\n"), "  ")
            text += f"{key}_script: |\n{body}\n"
    return text + textwrap.dedent(more)


def write(folder: Path, *texts: str) -> Path:
    """Write plugins as `0.yaml`, `1.yaml` ... and return their folder."""
    for number, text in enumerate(texts):
        write_plugin(folder, text, f"{number}.yaml")
    return folder


def load(folder: Path, *texts: str, uploads: str = UPLOADS) -> RouteTable:
    """Load routing plugins without a server. Raises `PluginErrors`."""
    plugins = Plugins([write(folder, *texts)], Services(), (*KINDS, routing_kind(uploads)))
    try:
        table = plugins.load().combined[KIND]
        assert isinstance(table, RouteTable)
        return table
    finally:
        plugins.close()


def head_of(target: str, *lines: str, method: str = "GET", host: str = "") -> RequestHead:
    """A request with these header lines."""
    fields = (line.partition(": ") for line in (f"Host: {host}", *lines))
    return RequestHead(method, target, CIMultiDict((name, value) for name, _, value in fields), None)


def find(table: RouteTable, target: str, method: str = "GET", *lines: str, host: str = "") -> RouteMatch:
    """Find the route of a request with these header lines. Raises `Refusal`."""
    return table.find(head_of(target, *lines, method=method, host=host))


async def ask(
    gateway: Gateway | GatewayProcess, method: str, target: str, *lines: str, body: bytes | None = None
) -> RawResponse:
    """Send a request in one go and read its answer."""
    length = () if body is None else (f"Content-Length: {len(body)}",)
    async with raw_connection(gateway) as connection:
        await connection.send(request_head(method, target, *length, *lines) + (body or b""))
        return await connection.answer(head=method == "HEAD")
