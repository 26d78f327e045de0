"""`--identity-headers`: users of a proxy that authenticates them, and what others try to pretend."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.auth.tokens import token_digest
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import RawResponse, curl, get, raw_connection, request_head, write_plugin
from tests.support.recorders import captured_log
from tests.support.routing.api import api
from tests.support.routing.identity_nginx import identity_nginx

pytestmark = pytest.mark.both_paths

HEADERS = {
    "identity_headers": "user=Remote-User,groups=Remote-Groups",
    "trusted_proxies": "127.0.0.1",
    "auth": "token",
    "tokens": [f"ci:{token_digest('secret')}"],
}
DIRECT = ("--interface", "127.0.0.2")
"""curl from an address that is no trusted proxy's."""

ROUTES = """
- upstreams: [{authority}]
  proxy: {{path: '/echo/{{rest:path}}', scheme: 'http:'}}
  target: {{path: '/{{rest:path}}', scheme: 'http:'}}
---
- upstreams: []
  proxy: {{path: /staff, scheme: 'http:', authorization: {{groups: [staff]}}}}
  request_script: |
    return {{"principal": request.principal, "headers": dict(request.headers)}}
---
- upstreams: []
  proxy: {{path: /admins, scheme: 'http:', authorization: {{groups: [admins]}}}}
  request_script: return "admin"
---
- upstreams: []
  proxy: {{path: /open, scheme: 'http:', authorization: {{auth: none}}}}
  request_script: |
    return {{"principal": request.principal, "headers": dict(request.headers)}}
---
- upstreams: []
  proxy: {{path: /tokens, scheme: 'http:', authorization: {{auth: token}}}}
  request_script: return "token"
"""

LOCATIONS = """
    location = /verify {
      internal;
      proxy_pass http://AUTH/;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
    }
    location / {
      auth_request /verify;
      auth_request_set $user $upstream_http_remote_user;
      auth_request_set $groups $upstream_http_remote_groups;
      proxy_pass http://GATEWAY;
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header Forwarded "";
      proxy_set_header Remote-User $user;
      proxy_set_header Remote-Groups $groups;
    }
"""

Start = Callable[..., Awaitable[Gateway]]


async def _echo(request: web.Request) -> web.Response:
    return web.json_response([[name, value] for name, value in request.headers.items()])


@pytest.fixture
async def start(start_gateway: StartGateway, tmp_path: Path) -> AsyncIterator[Start]:
    async with api(_echo) as upstream:
        folder = write_plugin(tmp_path / "plugins", ROUTES.format(authority=upstream.authority))

        async def start_one(**settings: object) -> Gateway:
            return await start_gateway(**{**HEADERS, "plugins": [str(folder)], **settings})

        yield start_one


@pytest.fixture
async def gateway(start: Start) -> Gateway:
    return await start(jwt_operators=["admins"])


@pytest.fixture
async def proxy(gateway: Gateway, tmp_path: Path) -> AsyncIterator[str]:
    host, port = gateway.address
    locations = LOCATIONS.replace("GATEWAY", f"{host}:{port}")
    with identity_nginx(tmp_path / "nginx", locations, "underscores_in_headers on;") as url:
        yield url


def told(body: str) -> dict[str, list[str]]:
    """Return the identity headers that an upstream got, in whatever spelling."""
    found: dict[str, list[str]] = {}
    for name, value in json.loads(body):
        if name.lower().replace("_", "-") in {"remote-user", "remote-groups"}:
            found.setdefault(name, []).append(value)
    return found


async def from_proxy(gateway: Gateway, method: str, target: str, *lines: str) -> RawResponse:
    """Send a request as the trusted proxy."""
    async with raw_connection(gateway) as connection:
        await connection.send(request_head(method, target, *lines, "Content-Length: 0"))
        return await connection.answer()


# -- through nginx


async def test_a_user_of_the_proxy_uploads_and_is_recorded(proxy: str, gateway: Gateway) -> None:
    with captured_log() as lines:
        done = await curl("-b", "session=bob", "-T", "README.md", f"{proxy}/upload/a")
        assert done.status == 201
    record = await get(
        gateway, f"/-/uploads/{json.loads(done.body)['upload_id']}", "X-Auth-Token: secret"
    )
    assert record.json["principal"] == {"name": "bob", "kind": "proxy"}
    [line] = [line for line in lines if line["event"] == "request.answered"]
    assert line["principal"] == "bob"


async def test_nobody_gets_in_without_a_session(proxy: str) -> None:
    for cookie in ("session=", "session=eve"):
        assert (await curl("-b", cookie, "-T", "README.md", f"{proxy}/upload/a")).status == 401


@pytest.mark.parametrize(
    "spoofed",
    [
        ["-H", "Remote-User: root", "-H", "Remote-Groups: admins"],
        ["-H", "remote-user: root", "-H", "REMOTE-GROUPS: admins"],
        ["-H", "Remote_User: root", "-H", "Remote_Groups: admins"],
        ["-H", "Remote-User: root", "-H", "Remote-User: root"],
        ["-H", "Connection: Remote-User, Remote-Groups", "-H", "Remote-User: root"],
    ],
)
async def test_a_client_of_the_proxy_cannot_say_who_it_is(proxy: str, spoofed: list[str]) -> None:
    seen = json.loads((await curl("-b", "session=bob", *spoofed, f"{proxy}/staff")).body)
    assert seen["principal"] == {"name": "bob", "kind": "proxy", "groups": ["staff"]}
    names = {name.lower(): value for name, value in seen["headers"].items()}
    assert (names["remote-user"], names["remote-groups"]) == ("bob", "staff")
    assert not [name for name in names if name.startswith("remote_")]
    assert (await curl("-b", "session=bob", *spoofed, f"{proxy}/admins")).status == 403
    upstream = await curl("-b", "session=bob", *spoofed, f"{proxy}/echo/x")
    assert told(upstream.body) == {"Remote-User": ["bob"], "Remote-Groups": ["staff"]}


async def test_routes_ask_for_groups(proxy: str) -> None:
    assert (await curl("-b", "session=ann", f"{proxy}/admins")).body == "admin"
    refused = await curl("-b", "session=bob", f"{proxy}/admins")
    assert (refused.status, json.loads(refused.body)["error"]) == (403, "insufficient_scope")


async def test_a_route_that_asks_for_a_token_takes_no_user(proxy: str) -> None:
    assert (await curl("-b", "session=ann", f"{proxy}/tokens")).status == 401
    done = await curl("-b", "session=ann", "-H", "X-Auth-Token: secret", f"{proxy}/tokens")
    assert done.body == "token"


async def test_operators_are_the_users_of_their_groups(proxy: str) -> None:
    assert (await curl("-b", "session=ann", f"{proxy}/-/events")).status == 200
    refused = await curl("-b", "session=bob", f"{proxy}/-/events")
    assert (refused.status, json.loads(refused.body)["error"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/upload/a"),
        ("POST", "/upload/"),
        ("DELETE", "/upload/a"),
        ("POST", "/staff"),
        ("PUT", "/open"),
        ("POST", "/echo/x"),
        ("POST", "/-/events/drop"),
    ],
)
async def test_a_foreign_page_does_nothing_with_the_session_of_a_user(
    start: Start, tmp_path: Path, method: str, path: str
) -> None:
    gateway = await start(jwt_operators=["admins"], deletes=True, cors_origins=["*"])
    host, port = gateway.address
    with identity_nginx(tmp_path / "nginx", LOCATIONS.replace("GATEWAY", f"{host}:{port}")) as url:
        asked = ["-b", "session=ann", "-X", method, f"{url}{path}"]
        form = ["-F", "file=@README.md"] if path == "/upload/" else ["-d", "x"]
        for origin in (
            ["-H", "Sec-Fetch-Site: cross-site", "-H", "Origin: https://evil.example"],
            ["-H", "Origin: https://evil.example"],
            ["-H", "Origin: null"],
        ):
            refused = await curl(*asked, *form, *origin)
            assert (refused.status, json.loads(refused.body)["error"]) == (403, "forbidden"), origin
    assert not (tmp_path / "data/upload").exists()


async def test_pages_of_the_proxys_own_origin_may_upload(proxy: str) -> None:
    own = ["-H", f"Origin: {proxy}", "-H", "Sec-Fetch-Site: same-origin"]
    assert (await curl("-b", "session=ann", *own, "-T", "README.md", f"{proxy}/upload/a")).status == 201


# -- past the proxy


@pytest.mark.parametrize(
    "names",
    [
        ("Remote-User", "Remote-Groups"),
        ("REMOTE-USER", "remote-groups"),
        ("Remote_User", "Remote.Groups"),
    ],
)
async def test_a_client_that_reaches_the_gateway_itself_is_nobody(
    gateway: Gateway, names: tuple[str, str]
) -> None:
    spoofed = [
        "-H",
        f"{names[0]}: root",
        "-H",
        f"{names[1]}: admins",
        "-H",
        "X-Forwarded-For: 127.0.0.1",
    ]
    with captured_log() as lines:
        for path in ("/admins", "/staff", "/-/events", "/echo/x"):
            assert (await curl(*DIRECT, *spoofed, f"{gateway.url}{path}")).status == 401
        assert (
            await curl(*DIRECT, *spoofed, "-T", "README.md", f"{gateway.url}/upload/a")
        ).status == 401
        seen = json.loads((await curl(*DIRECT, *spoofed, f"{gateway.url}/open")).body)
    assert seen["principal"] is None
    assert not [name for name in seen["headers"] if name.lower().startswith("remote")]
    with_token = ["-H", "X-Auth-Token: secret"]
    upstream = await curl(*DIRECT, *spoofed, *with_token, f"{gateway.url}/echo/x")
    assert told(upstream.body) == {}
    assert "root" not in json.dumps(lines)


async def test_handlers_do_not_see_what_a_stranger_pretends(
    start: Start, tmp_path: Path, start_gateway: StartGateway
) -> None:
    seen = tmp_path / "seen"
    folder = write_plugin(
        tmp_path / "handlers",
        f"""
name: record
event: APIGW.OnFileUploading
script: |
  async def record(event, handle):
      with open("{seen}", "a") as log:
          log.write(json.dumps([event["principal"], event["headers"]]) + "\\n")
""",
    )
    gateway = await start_gateway(**{**HEADERS, "plugins": [str(folder)]})
    lines = ["-H", "Remote-User: root", "-H", "Remote-Groups: admins"]
    assert (await curl(*DIRECT, *lines, "-T", "README.md", f"{gateway.url}/upload/a")).status == 201
    assert (await curl(*lines, "-T", "README.md", f"{gateway.url}/upload/b")).status == 201
    stranger, user = map(json.loads, seen.read_text().splitlines())
    assert stranger[0] is None
    assert not [name for name in stranger[1] if name.lower().startswith("remote")]
    assert user[0] == {"name": "root", "kind": "proxy", "groups": ["admins"]}


async def test_requests_that_come_together_are_looked_at_one_by_one(gateway: Gateway) -> None:
    async with raw_connection(gateway) as connection:
        first = request_head("GET", "/staff", "Remote-User: ann", "Remote-Groups: staff")
        second = request_head("GET", "/staff")
        third = request_head("GET", "/staff", "Remote-User: a", "Remote-User: b")
        await connection.send(first + second + third + first)
        answers = [await connection.answer() for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 401, 400]
    assert "more than one identity header" in answers[2].json["message"]


async def test_a_proxy_that_adds_to_what_its_client_sent_is_refused(gateway: Gateway) -> None:
    twice = ("Remote-User: root", "Remote-User: bob")
    for method, target in (("GET", "/staff"), ("PUT", "/upload/a"), ("GET", "/echo/x")):
        answer = await from_proxy(gateway, method, target, *twice)
        assert (answer.status, answer.json["error"]) == (400, "bad_request")
    answer = await from_proxy(gateway, "GET", "/staff", "Remote-User: root, bob")
    assert answer.status == 400


async def test_groups_without_a_user_are_removed(gateway: Gateway) -> None:
    answer = await from_proxy(gateway, "GET", "/staff", "Remote-Groups: staff")
    assert answer.status == 401
    answer = await from_proxy(gateway, "GET", "/open", "Remote-Groups: staff", "Remote-User: ")
    assert answer.json["principal"] is None
    assert not [name for name in answer.json["headers"] if name.lower().startswith("remote")]


async def test_groups_are_checked_where_everyone_may_call_too(start: Start) -> None:
    gateway = await start(auth="none")
    assert (await from_proxy(gateway, "GET", "/staff")).status == 403
    answer = await from_proxy(gateway, "GET", "/staff", "Remote-User: ann", "Remote-Groups: staff")
    assert answer.status == 200


async def test_users_count_apart_for_a_rate(start: Start, tmp_path: Path) -> None:
    folder = write_plugin(
        tmp_path / "rated",
        """
- upstreams: []
  proxy: {path: /rated, scheme: 'http:'}
  rate_limit: {count: 1, seconds: 3600, by: principal}
  request_script: return "x"
""",
    )
    gateway = await start(plugins=[str(folder)])

    async def ask(user: str) -> int:
        return (await from_proxy(gateway, "GET", "/rated", f"Remote-User: {user}")).status

    assert [await ask(user) for user in ("ann", "ann", "bob", "bob")] == [200, 429, 200, 429]


async def test_a_user_sees_the_own_uploads_only(start: Start, tmp_path: Path) -> None:
    gateway = await start()
    ann: Any = ("Remote-User: ann",)
    answer = await from_proxy(gateway, "POST", "/upload/big", *ann, "Upload-Complete: ?0")
    assert answer.status == 201
    resource = answer.headers["Location"].partition(gateway.url)[2]
    mine = await from_proxy(gateway, "HEAD", resource, *ann)
    other = await from_proxy(gateway, "GET", resource, "Remote-User: bob")
    assert (mine.status, other.status) == (204, 404)


async def test_without_the_setting_nothing_is_removed(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    async with api(_echo) as upstream:
        folder = write_plugin(tmp_path / "plugins", ROUTES.format(authority=upstream.authority))
        gateway = await start_gateway(auth="none", plugins=[str(folder)])
        answer = await curl(*DIRECT, "-H", "Remote-User: x", f"{gateway.url}/echo/x")
        assert told(answer.body) == {"Remote-User": ["x"]}
