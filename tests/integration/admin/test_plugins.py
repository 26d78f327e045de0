"""`/-/plugins`: what is in force, and nothing that is secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import StartGateway, StartProcess
from tests.support.harness import get, wait_until, write_plugin
from tests.support.ports import free_port

PLUGINS = """\
name: second
event: APIGW.OnFileUploaded
retry: {attempts: 3}
script: |
  async def second(event, handle):
      token = "in-the-script"
---
name: first
webhook:
  url: https://hooks.example.com:8443/services/T0/secret-path?key=secret-query
  headers: {Authorization: Bearer secret-header}
  secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw
  events: [APIGW.OnFileUploaded, APIGW.OnFileUploading]
  decide: true
---
name: nightly
event: Schedule
cron: 0 3 * * *
timezone: Europe/Rome
script: |
  async def nightly(event, handle):
      pass
---
name: keys
config: {password: secret-value}
---
name: pets
hosts: [api.example.com]
upstreams: ["127.0.0.1:DEAD", {host: "127.0.0.1:9", weight: 3}]
proxy: {path: "/pets/{id}", authorization: {auth: none}}
target: {path: "/v1/{id}"}
when: {headers: {X-Key: secret-condition}}
request_headers: {set: {X-Secret: secret-set}}
rate_limit: {count: 10, seconds: 60}
spec: [{method: GET, usage: Reads a pet}]
"""


async def test_handlers_are_told_in_their_order_with_their_places_and_no_secret(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "p", PLUGINS.replace("DEAD", str(free_port())), "sub.yaml")
    gateway = await start_gateway(plugins=[str(folder)], auth="token")
    token = f"Authorization: Bearer {gateway.resources.base.shared.token}"
    assert (await get(gateway, "/-/plugins")).status == 401
    answer = await get(gateway, "/-/plugins", token)
    facts = answer.json
    told = [(each["event"], each["order"], each["name"], each["place"]) for each in facts["handlers"]]
    assert told == [
        ("APIGW.OnFileUploading", 1, "first", "sub.yaml:8"),
        ("APIGW.OnFileUploaded", None, "first", "sub.yaml:8"),
        ("APIGW.OnFileUploaded", None, "second", "sub.yaml:1"),
        ("Schedule", None, "nightly", "sub.yaml:16"),
    ]
    [admitting, webhook, second, nightly] = facts["handlers"]
    assert (webhook["kind"], webhook["host"]) == ("webhook", "https://hooks.example.com:8443")
    assert (second["retry"]["attempts"], second["concurrency"]) == (3, 4)
    assert admitting["on_error"] == "deny"
    assert "retry" not in admitting
    assert nightly["schedule"] == "cron 0 3 * * * Europe/Rome"
    assert nightly["next"].endswith(":00:00.000Z")
    assert (facts["configs"], facts["reload"], facts["route_count"]) == (["keys"], None, 1)
    routes = await get(gateway, "/-/plugins/routes", token)
    [route] = routes.json["routes"]
    assert (route["path"], route["hosts"], route["place"]) == (
        "/pets/{id}", ["api.example.com"], "sub.yaml:30",
    )  # fmt: skip
    assert [(each["weight"], each["down"]) for each in route["upstreams"]] == [(1, 0), (3, 0)]
    assert (route["target"], route["when"]) == ("/v1/{id}", ["x-key"])
    assert route["limits"]["rate"] == {"requests": 10, "seconds": 60, "by": "address"}
    for body in (answer.body, routes.body):
        assert b"secret" not in body
        assert b"in-the-script" not in body


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["GET /a/0", "GET /a/1"]),
        ("search=A/3", ["GET /a/3"]),
        ("search=finds+a/2", ["GET /a/2"]),
        ("search=nothing", []),
        ("after=2", ["GET /a/2", "GET /a/3"]),
        ("after=4", []),
    ],
)
async def test_routes_are_searched_and_come_page_by_page(
    start_gateway: StartGateway, tmp_path: Path, query: str, names: list[str]
) -> None:
    text = "\n---\n".join(
        f"upstreams: [127.0.0.1:9]\nproxy: {{path: /a/{number}}}\n"
        f"spec: [{{method: GET, usage: Finds number {number}}}]"
        for number in range(4)
    )
    gateway = await start_gateway(plugins=[str(write_plugin(tmp_path / "p", text))])
    page = (await get(gateway, f"/-/plugins/routes?limit=2&{query}")).json
    assert [route["name"] for route in page["routes"]] == names
    assert page["next"] == (2 if query == "" else None)


@pytest.mark.parametrize("query", ["after=x", "after=-1", "limit=1e9", f"search={'x' * 201}"])
async def test_a_query_out_of_bounds_is_refused(start_gateway: StartGateway, query: str) -> None:
    gateway = await start_gateway()
    assert (await get(gateway, f"/-/plugins/routes?{query}")).status == 400


async def test_an_upstream_that_is_down_is_told_of_all_processes(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    route = f"name: pets\nupstreams: ['127.0.0.1:{free_port()}']\nproxy: {{path: /pets}}\n"
    folder = write_plugin(tmp_path / "p", f"{route}spec: [{{method: GET}}]\n")
    process = gateway_process("--plugins", str(folder), "--processes", "2", "--auth", "none")

    async def is_down_in_both() -> bool:
        await get(process, "/pets")  # any process of both takes it
        facts = (await get(process, "/-/plugins")).json
        [upstream] = facts["upstreams"]
        assert (facts["processes"], facts["silent_processes"]) == (2, [])
        assert (upstream["since"] is None) == (upstream["down"] == 0)
        return bool(upstream["down"] == 2)

    await wait_until(is_down_in_both)
