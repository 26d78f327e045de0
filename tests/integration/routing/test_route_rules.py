"""Routes by host and `when`, networks of clients, redirects and rules for headers, on both paths."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from gateway.auth.tokens import token_digest
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import RawResponse, raw_connection, request_head
from tests.support.routing.proxying import (
    aiohttp_upstream,
    lines_of,
    read_request,
    respond,
    upstream,
)
from tests.support.routing.scripted import Serve, ask, write

pytestmark = pytest.mark.both_paths


def forwarded(
    name: str, authority: str, keys: str = "", path: str = "/{x:path}", auth: str = "none"
) -> str:
    """A route to an upstream at the path `/NAME`, for `{x}`."""
    return (
        f"name: '{name}'\nupstreams: ['{authority}']\n"
        f"proxy: {{path: '{path}', authorization: {{auth: {auth}}}}}\n"
        f"target: {{path: '/{name}'}}\n{keys}"
    )


async def echo(request: web.BaseRequest) -> web.Response:
    return web.Response(text=request.path.removeprefix("/"))


async def named(gateway: Gateway, *lines: str, target: str = "/p", host: str = "h.example") -> str:
    """Return the name of the route that answers, or the code of the error."""
    async with raw_connection(gateway) as connection:
        await connection.send(head(target, *lines, host=host))
        return name_in(await connection.answer())


def head(target: str, *lines: str, host: str = "h.example", method: str = "GET") -> bytes:
    fields = "".join(f"{line}\r\n" for line in (f"Host: {host}", *lines))
    return f"{method} {target} HTTP/1.1\r\n{fields}\r\n".encode()


def name_in(answer: RawResponse) -> str:
    return answer.body.decode() if answer.status == 200 else str(answer.json["error"])


async def test_a_connection_gets_the_route_of_each_of_its_requests(serve: Serve) -> None:
    async with aiohttp_upstream(echo) as up:
        gateway = await serve(
            forwarded("a", up, "hosts: [a.example]\n"),
            forwarded("below", up, "hosts: ['*.example']\n"),
            forwarded("two", up, "when: {headers: {X-V: '2'}}\n"),
            forwarded("query", up, "when: {query: {v: '2'}, headers: {X-V: false}}\n"),
            forwarded("all", up),
        )
        async with raw_connection(gateway) as connection:
            for host, lines, target, expected in (
                ("a.example", (), "/p", "a"),
                ("a.example", (), "/p", "a"),
                ("b.example", (), "/p", "below"),
                ("A.EXAMPLE.:80", (), "/p", "a"),
                ("c.other", (), "/p", "all"),
                ("c.other", ("X-V: 2",), "/p", "two"),
                ("c.other", ("X-V: 2",), "/p", "two"),
                ("c.other", ("X-V: 3",), "/p", "all"),
                ("c.other", (), "/p?v=2", "query"),
                ("c.other", (), "/p?v=3", "all"),
                ("a.example", ("X-V: 2",), "/p?v=2", "a"),
                ("c.other", ("X-Forwarded-Host: a.example",), "/p", "all"),
                ("c.other", ("Forwarded: host=a.example",), "/p", "all"),
            ):
                await connection.send(head(target, *lines, host=host))
                assert name_in(await connection.answer()) == expected, (host, lines, target)


@pytest.mark.parametrize(
    ("request_line", "host", "expected"),
    [
        ("http://a.example/p", "a.example", "a"),
        ("HTTP://A.example/p", "a.EXAMPLE", "a"),
        ("http://a.example./p", "a.example.", "a"),
        ("http://c.other/p", "c.other", "all"),
        ("http://a.example/p", "c.other", "bad_request"),
        ("http://c.other/p", "a.example", "bad_request"),
        ("/p", "x@a.example", "bad_request"),
        ("/p", "a.example:80:80", "bad_request"),
        ("/p", "a.example..", "bad_request"),
        ("/p", "a.example\r\nHost: c.other", "bad_request"),
    ],
)
async def test_an_absolute_target_and_a_bad_host_lead_around_no_route(
    serve: Serve, request_line: str, host: str, expected: str
) -> None:
    async with aiohttp_upstream(echo) as up:
        gateway = await serve(forwarded("a", up, "hosts: [a.example]\n"), forwarded("all", up))
        assert await named(gateway, target=request_line, host=host) == expected


async def test_uploads_come_before_routes_on_every_host(serve: Serve) -> None:
    async with aiohttp_upstream(echo) as up:
        gateway = await serve(forwarded("a", up, "hosts: [a.example]\n"), forwarded("all", up))
        for host in ("a.example", "c.other"):
            async with raw_connection(gateway) as connection:
                put = head(f"/upload/{host}", "Content-Length: 1", host=host, method="PUT")
                await connection.send(put + b"1")
                assert (await connection.answer()).status == 201


async def test_a_preflight_finds_the_route_of_its_host(serve: Serve) -> None:
    async with aiohttp_upstream(echo) as up:
        cors = "cors: {origins: ['https://page.example']}\nspec: [{method: PUT}]\n"
        gateway = await serve(
            forwarded("a", up, f"hosts: [a.example]\n{cors}deny: [127.0.0.0/8]\n"),
            forwarded("two", up, "when: {headers: {X-V: '2'}}\n" + cors.replace("PUT", "DELETE")),
            forwarded("all", up),
        )
        ours = ("Origin: https://page.example", "Access-Control-Request-Method: {}")
        for host, method, names, status, allowed in (
            ("a.example", "PUT", "X-V", 204, "PUT"),  # before the address counts
            ("c.other", "DELETE", "x-v", 204, "DELETE"),
            ("c.other", "DELETE", "X-Else", 200, None),  # the upstream's own answer
        ):
            lines = [line.format(method) for line in ours]
            request = head(
                "/p", *lines, f"Access-Control-Request-Headers: {names}", host=host, method="OPTIONS"
            )
            async with raw_connection(gateway) as connection:
                await connection.send(request)
                answer = await connection.answer()
            assert answer.status == status, (host, names)
            assert answer.headers.get("Access-Control-Allow-Methods") == allowed


# -- networks


@pytest.mark.parametrize(
    ("rule", "client", "allowed"),
    [
        ("allow: [192.0.2.0/24]", "192.0.2.7", True),
        ("allow: [192.0.2.0/24]", "192.0.3.7", False),
        ("allow: [192.0.2.0/24]", "::ffff:192.0.2.7", True),
        ("allow: ['::ffff:192.0.2.0/120']", "192.0.2.7", True),
        ("allow: [192.0.2.0/24]", "2001:db8::1", False),
        ("allow: ['2001:db8::/32']", '"[2001:db8::1]:80"', True),
        ("deny: [192.0.2.7]", "192.0.2.7", False),
        ("deny: [192.0.2.7]", "::ffff:192.0.2.7", False),
        ("deny: ['::ffff:192.0.2.7']", "192.0.2.7", False),
        ("deny: [192.0.2.7]", "192.0.2.8", True),
        ("allow: [192.0.2.0/24]\ndeny: [192.0.2.7]", "192.0.2.7", False),
        ("allow: [192.0.2.0/24]\ndeny: [192.0.2.7]", "192.0.2.8", True),
        ("allow: [127.0.0.0/8]", "unknown", True),
    ],
)
async def test_a_client_of_a_refused_network_gets_403(
    serve: Serve, rule: str, client: str, allowed: bool
) -> None:
    async with aiohttp_upstream(echo) as up:
        route = forwarded("r", up, f"{rule}\n", auth="token")
        gateway = await serve(route, trusted_proxies=["127.0.0.0/8"], tokens=[f"me:{token_digest('T')}"])
        line = f"Forwarded: for={client}"
        expected = "unauthorized" if allowed else "forbidden"  # the address before the credentials
        assert await named(gateway, line) == expected
        assert await named(gateway, line, "X-Auth-Token: T") == ("r" if allowed else "forbidden")


async def test_an_address_that_the_client_has_written_itself_does_not_count(serve: Serve) -> None:
    async with aiohttp_upstream(echo) as up:
        gateway = await serve(forwarded("r", up, "allow: [192.0.2.0/24]\n"))
        for line in ("X-Forwarded-For: 192.0.2.7", "Forwarded: for=192.0.2.7", "X-Real-IP: 192.0.2.7"):
            assert await named(gateway, line) == "forbidden"


async def test_the_address_counts_for_each_request_of_a_connection(serve: Serve) -> None:
    async with aiohttp_upstream(echo) as up:
        rule = "deny: [192.0.2.7]\n"
        gateway = await serve(forwarded("r", up, rule), trusted_proxies=["127.0.0.0/8"])
        async with raw_connection(gateway) as connection:
            for number in (8, 8, 7, 8, 7):
                await connection.send(head("/p", f"X-Forwarded-For: 192.0.2.{number}"))
                answer = await connection.answer()
                assert answer.status == (403 if number == 7 else 200)


# -- redirects


async def test_a_redirect_answers_after_authorization_and_before_the_body(serve: Serve) -> None:
    text = (
        "redirect: '/new/{x}'\n"
        "proxy: {path: '/old/{x:path}', authorization: {auth: token}}\n"
        "response_headers: {set: {Cache-Control: no-store}}\n"
        "rate_limit: {count: 9, seconds: 60}\n"
    )
    gateway = await serve(text, tokens=[f"me:{token_digest('T')}"])
    token = "X-Auth-Token: T"
    assert (await ask(gateway, "GET", "/old/a")).status == 401
    for method in ("GET", "HEAD", "POST", "DELETE"):
        answer = await ask(gateway, method, "/old/a%20b/c?d=%20", token)
        assert (answer.status, answer.headers.get("Location")) == (308, "/new/a%20b/c?d=%20"), answer
        assert answer.headers["Cache-Control"] == "no-store"
        assert "RateLimit-Limit" in answer.headers
        assert answer.body == b""
    async with raw_connection(gateway) as connection:
        await connection.send(
            request_head("PUT", "/old/a", token, "Content-Length: 9", "Expect: 100-continue")
        )
        assert (await connection.line()).startswith(b"HTTP/1.1 308 ")


@pytest.mark.parametrize("path", ["//evil.example", "/%2Fevil.example", "/%5Cevil.example", "/\\evil"])
async def test_a_redirect_never_leads_to_a_host_that_a_client_names(serve: Serve, path: str) -> None:
    proxy = "proxy: {path: '/old/{x:path}', authorization: {auth: none}}\ntarget: {raw_path: true}\n"
    gateway = await serve(f"redirect: '/{{x}}'\n{proxy}")
    answer = await ask(gateway, "GET", f"/old{path}")
    if answer.status == 308:
        assert answer.headers["Location"] == "/%2Fevil.example"
    else:
        assert answer.json["error"] == "bad_path"


# -- rules for headers


RULES = """
request_headers:
  set:
    X-User: "{principal}"
    X_Shape: plain
    X-From: "{remote}; {request_id}"
    Host: api.internal:8443
    X-Forwarded-Proto: https
  remove: [X-Secret, Cookie]
response_headers:
  set: {X-Served-By: "gateway", X-Id: "{request_id}", X-Who: "{principal}"}
  remove: [X-Powered-By, Server, Set-Cookie]
"""
FORGED = (
    "X-User: root", "X_User: root", "x-user: admin", "X-Shape: odd", "X_Shape: plain", "X-Secret: 1",
    "X_Secret: 2", "Cookie: a=1", "Connection: X-User, X_Shape, X-From", "X-From: me", "X-Who: root",
)  # fmt: skip


async def test_a_client_sets_none_of_the_headers_that_the_rules_set(serve: Serve) -> None:
    async with upstream(answer_once) as up:
        gateway = await serve(forwarded("r", up.authority, RULES), tokens=[f"ann:{token_digest('T')}"])
        answers = []
        for lines in (FORGED, (*FORGED, "X-Auth-Token: T"), ("Host: api.internal:8443",)):
            host, *others = lines if lines[0].startswith("Host") else ("Host: h", *lines)
            async with raw_connection(gateway) as connection:
                await connection.send(head("/p", *others, host=host.removeprefix("Host: ")))
                answers.append(await connection.answer())
        sent = [bytes(received) for received in up.received]
    for request in sent:
        assert lines_of(request, "Host") == ["api.internal:8443"]
        assert lines_of(request, "X_Shape") == ["plain"]
        assert lines_of(request, "X-Forwarded-Proto") == ["https"]
        assert [lines_of(request, name) for name in ("X-Shape", "X-Secret", "X_Secret", "Cookie")] == [
            []
        ] * 4
        assert lines_of(request, "X_User") == []
    users = [lines_of(request, "X-User") for request in sent]
    assert users == [[], ["ann"], []]
    for request, answer in zip(sent, answers, strict=True):
        assert lines_of(request, "X-From") == [f"127.0.0.1; {answer.headers['X-Request-Id']}"]
        assert answer.headers["X-Id"] == answer.headers["X-Request-Id"]
        assert answer.headers["X-Served-By"] == "gateway"
        assert not {"X-Powered-By", "Server", "Set-Cookie"} & set(answer.headers)
    assert ["X-Who" in answer.headers for answer in answers] == [False, True, False]


async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    lines = ("X-Powered-By: x", "Server: up", "Set-Cookie: a", "Set-Cookie: b", "X-Who: up")
    writer.write(respond(b"ok", "200 OK", *lines, "Connection: close"))
    await writer.drain()


@pytest.mark.parametrize(
    ("answer", "method"),
    [
        (b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nX-Old: 1\r\n\r\n', "GET"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nX-Old: 1\r\n\r\n", "HEAD"),
        (b"HTTP/1.1 204 No Content\r\nX-Old: 1\r\n\r\n", "GET"),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /x\r\nX-Old: 1\r\n\r\n", "GET"),
        (respond(b"no", "500 Broken", "X-Old: 1"), "GET"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Old: 1\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "POST",
        ),
    ],
)
async def test_every_response_of_an_upstream_gets_its_headers(
    serve: Serve, answer: bytes, method: str
) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await writer.drain()

    rules = "response_headers: {set: {X-New: '1'}, remove: [X-Old]}\n"
    async with upstream(once) as up:
        gateway = await serve(forwarded("r", up.authority, rules))
        received = await ask(gateway, method, "/p")
    assert received.status == int(answer.split()[1])
    assert received.headers["X-New"] == "1"
    assert "X-Old" not in received.headers


async def test_responses_of_scripts_get_their_headers_and_refusals_do_not(serve: Serve) -> None:
    script = "if request.params:\n    raise HTTPError(403)\nreturn (201, 'x', {'X-Old': '1'})"
    body = "\n".join(f"  {line}" for line in script.splitlines())
    gateway = await serve(
        "upstreams: []\nproxy: {path: /s, authorization: {auth: none}}\nspec: [{method: GET}]\n"
        "response_headers: {set: {X-New: '1'}, remove: [X-Old]}\n"
        f"request_script: |\n{body}\n"
    )
    for target, status in (("/s", 201), ("/s?deny", 403)):
        answer = await ask(gateway, "GET", target)
        assert (answer.status, answer.headers["X-New"]) == (status, "1")
        assert "X-Old" not in answer.headers
    refused = await ask(gateway, "PUT", "/s")
    assert (refused.status, "X-New" in refused.headers) == (405, False)


async def test_events_pass_at_once_behind_changed_headers(serve: Serve) -> None:
    async def events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Old: 1\r\n\r\n")
        for _ in range(3):
            writer.write(b"data: x\n\n")
            await writer.drain()
            await go_on.wait()
            go_on.clear()

    go_on = asyncio.Event()
    async with upstream(events) as up:
        rules = "response_headers: {set: {X-New: '1'}, remove: [X-Old]}\n"
        gateway = await serve(forwarded("r", up.authority, rules))
        async with raw_connection(gateway) as connection:
            await connection.send(head("/p"))
            text = await connection.reader.readuntil(b"\r\n\r\n")
            assert (b"X-New: 1" in text, b"X-Old" in text) == (True, False)
            for _ in range(3):
                async with asyncio.timeout(30):
                    await connection.reader.readuntil(b"data: x\n\n")
                go_on.set()


async def test_a_large_answer_is_not_held_in_memory(start_gateway: StartGateway, tmp_path: Path) -> None:
    """200 MB pass while the client reads none of them: what is under way is small.

    The kernel alone may hold 32 MiB of each of the two connections (`tcp_rmem`).
    """
    written = 0

    async def large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        while written < SIZE:
            writer.write(CHUNK)
            await writer.drain()
            written += len(CHUNK)

    async with upstream(large) as up:
        rules = "response_headers: {set: {X-New: '1'}}\nrequest_headers: {set: {X-A: a}}\n"
        folder = write(tmp_path / "plugins", forwarded("r", up.authority, rules))
        gateway = await start_gateway(auth="none", plugins=[str(folder)])
        async with raw_connection(gateway) as connection:
            await connection.send(head("/p"))
            assert b"X-New: 1" in await connection.reader.readuntil(b"\r\n\r\n")
            at_first = written
            while True:  # until every buffer between is full
                await asyncio.sleep(0.2)
                if written == at_first:
                    break
                at_first = written
            assert written < SIZE // 2
            read = 0
            async with asyncio.timeout(120):
                while read < SIZE:
                    read += len(await connection.reader.read(1 << 20))
    assert read == SIZE == written


SIZE = 200 << 20
CHUNK = b"x" * (1 << 20)
