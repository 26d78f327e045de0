"""Sessions over real sockets: where they count, what ends them, and who never sees their cookie."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from gateway.auth.tokens import token_digest
from tests.conftest import StartGateway, StartProcess
from tests.support.harness import (
    TIMEOUT,
    GatewayProcess,
    RawResponse,
    get,
    put,
    raw_connection,
    request_head,
    wait_until,
    write_plugin,
)
from tests.support.routing.proxying import upstream
from tests.support.routing.websocket import ServerConnection, connecting, socket_route, socket_server

JSON = "Content-Type: application/json"
TOKENS = ("alice", "bob")

PLUGINS = """
- name: sees
  event: APIGW.OnFileUploading
  authorization: keep
  script: |
    async def sees(event, handle):
        event["path"] = "/upload/" + event["headers"].get("Cookie", "none")
- name: later
  event: APIGW.OnFileUploaded
  script: |
    async def later(event, handle):
        await handle.result({"seen": repr(event)})
- name: api
  upstreams: []
  proxy: {path: "/api/{rest}", authorization: {auth: token}}
  request_script: |
    return {"who": request.principal, "headers": str(request.headers)}
- name: front
  upstreams: ["UPSTREAM"]
  proxy: {path: "/front/{rest}", authorization: {auth: default}}
"""


async def change(gateway: GatewayProcess, method: str, body: bytes, *lines: str) -> RawResponse:
    async with raw_connection(gateway) as connection:
        head = request_head(method, "/-/session", f"Content-Length: {len(body)}", *lines)
        await connection.send(head + body)
        return await connection.answer()


async def sign_in(gateway: GatewayProcess, token: str, *lines: str) -> str:
    """Sign in; return the cookie as a browser sends it."""
    signed_in = await change(gateway, "POST", json.dumps({"token": token}).encode(), JSON, *lines)
    assert signed_in.status == 204, signed_in.body
    return f"Cookie: {signed_in.headers['Set-Cookie'].partition(';')[0]}"


def settings(folder: Path, *names: str) -> None:
    file = folder / "config" / "gateway.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    tokens = "".join(f"- {{name: {name}, sha256: {token_digest(f'secret-{name}')}}}\n" for name in names)
    file.write_text(f"tokens:\n{tokens}")


async def everywhere(gateway: GatewayProcess, cookie: str) -> set[int]:
    """Return how several connections at once, and so all processes, answer a session."""
    answers = await asyncio.gather(*(get(gateway, "/-/uploads", cookie) for _ in range(8)))
    return {answer.status for answer in answers}


async def test_a_session_counts_where_a_token_does_until_it_ends_everywhere_at_once(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    settings(tmp_path / "data", *TOKENS)
    flags = ("--auth=token", "--downloads", "--listing", "--deletes", "--processes=2")
    with gateway_process(*flags) as gateway:
        mine, others = [await sign_in(gateway, f"secret-{name}") for name in TOKENS]
        assert (await put(gateway, "/upload/a.txt", b"x", mine)).status == 201
        assert (await get(gateway, "/upload/a.txt", mine)).body == b"x"
        assert (await get(gateway, "/upload/", mine)).status == 200
        assert (await get(gateway, "/upload/a.txt")).status == 401
        who = (await get(gateway, "/-/session", others)).json
        assert (who["principal"], who["signed_in"]) == ({"name": "bob", "kind": "token"}, True)
        stolen = mine
        assert await everywhere(gateway, stolen) == {200}
        ended = await change(gateway, "DELETE", b"", mine)
        assert (ended.status, "Max-Age=0" in ended.headers["Set-Cookie"]) == (204, True)
        assert await everywhere(gateway, stolen) == {401}
        assert await everywhere(gateway, others) == {200}
        assert (await put(gateway, "/upload/b.txt", b"x", stolen)).status == 401
        assert (await get(gateway, "/-/session", stolen)).json["role"] is None
        again = await sign_in(gateway, "secret-alice")
        newer = await sign_in(gateway, "secret-alice", again)
        assert (await everywhere(gateway, again), await everywhere(gateway, newer)) == ({401}, {200})
    with gateway_process(*flags) as gateway:
        assert await everywhere(gateway, others) == {200}
        settings(tmp_path / "data", "alice")
        gateway.signal(signal.SIGHUP)
        async with asyncio.timeout(TIMEOUT):
            while await everywhere(gateway, others) != {401}:
                pass
        assert await everywhere(gateway, newer) == {200}


async def test_a_client_that_guesses_waits_and_others_sign_in(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    settings(tmp_path / "data", *TOKENS)
    with gateway_process("--auth=token", "--processes=2", "--trusted-proxies=127.0.0.1") as gateway:
        attacker = "X-Forwarded-For: 192.0.2.66"
        guesses = [
            await change(gateway, "POST", b'{"token": "guess"}', JSON, attacker) for _ in range(12)
        ]
        assert [guess.status for guess in guesses] == [401] * 10 + [429] * 2
        assert 0 < int(guesses[-1].headers["Retry-After"]) <= 60
        await sign_in(gateway, "secret-alice", "X-Forwarded-For: 192.0.2.1")


async def test_only_a_page_of_the_gateway_can_sign_a_visitor_in_or_out(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    settings(tmp_path / "data", *TOKENS)
    with gateway_process("--auth=token") as gateway:
        mine, body = await sign_in(gateway, "secret-alice"), b'{"token": "secret-bob"}'
        for site in ("same-site", "cross-site"):
            assert (await change(gateway, "POST", body, JSON, f"Sec-Fetch-Site: {site}")).status == 403
            assert (await change(gateway, "DELETE", b"", mine, f"Sec-Fetch-Site: {site}")).status == 403
            forged = await put(gateway, "/upload/x", b"x", mine, f"Sec-Fetch-Site: {site}")
            assert forged.status == 403
        assert (await change(gateway, "POST", body, JSON, "Origin: http://localhost:1")).status == 403
        assert (await change(gateway, "POST", body, "Content-Type: text/plain")).status == 415
        form = "Content-Type: application/x-www-form-urlencoded"
        assert (await change(gateway, "POST", b"token=secret-bob", form)).status == 415
        assert await everywhere(gateway, mine) == {200}
        page = await get(gateway, "/-/session", "Accept: text/html")
        assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]


@pytest.mark.both_paths
async def test_nobody_but_the_gateway_sees_the_cookie(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    seen: list[str] = []

    async def talk(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.append(str(connection.request.headers))

    async with upstream(respond) as recorded, socket_server(talk) as sockets:
        plugins = write_plugin(tmp_path / "plugins", PLUGINS.replace("UPSTREAM", recorded.authority))
        write_plugin(plugins, socket_route(sockets, auth="token"), "sockets.yaml")
        settings(tmp_path / "data", *TOKENS)
        with gateway_process("--auth=token", f"--plugins={plugins}", "--log-level=debug") as gateway:
            cookie = await sign_in(gateway, "secret-alice")
            secret = cookie.partition("=")[2]
            both = f"{cookie}; theirs=1"
            stored = await put(gateway, "/upload/a.txt", b"x", both)
            assert (stored.status, stored.json["path"]) == (201, "/upload/theirs=1")
            api = (await get(gateway, "/api/x", both)).json
            assert api["who"] == {"name": "alice", "kind": "token"}
            assert "theirs=1" in api["headers"]
            async with raw_connection(gateway) as connection:
                for _ in range(3):
                    await connection.send(request_head("GET", "/front/x", both))
                    assert (await connection.answer()).status == 200
                await connection.send(request_head("GET", "/front/x", both.replace(secret[:5], "other")))
                assert (await connection.answer()).status == 401
            extra = {"Cookie": both.removeprefix("Cookie: ")}
            async with connecting(gateway, additional_headers=extra):
                pass
            await wait_until(lambda: seen)
            status = f"/-/uploads/{stored.json['upload_id']}"

            async def is_done() -> bool:
                return bool((await get(gateway, status, cookie)).json["handlers"][0]["state"] == "done")

            async with asyncio.timeout(TIMEOUT):
                while not await is_done():
                    await asyncio.sleep(0.02)
            page = await get(gateway, status, cookie)
            event_id = page.json["handlers"][0]["event"]
            event = await get(gateway, f"/-/events/{event_id}", cookie)
            requests = recorded.only.decode()
            assert requests.count("theirs=1") == 3
            shown = [json.dumps(api), requests, *seen, page.body.decode(), event.body.decode()]
            assert [text for text in shown if secret in text or "upload-gateway-" in text] == []
            state = gateway.directory / ".gateway"
            kept = [file for file in state.rglob("*") if file.is_file()]
            assert [file for file in kept if secret.encode() in file.read_bytes()] == []
            assert secret not in gateway.log()


async def test_over_https_the_cookie_needs_https(start_gateway: StartGateway) -> None:
    told = await start_gateway(
        auth="token", tokens=[f"alice:{token_digest('secret-alice')}"], trusted_proxies=["127.0.0.1"]
    )
    body = b'{"token": "secret-alice"}'
    names = {}
    for scheme in ("https", "http"):
        async with raw_connection(told) as connection:
            head = request_head(
                "POST",
                "/-/session",
                JSON,
                f"Content-Length: {len(body)}",
                f"X-Forwarded-Proto: {scheme}",
            )
            await connection.send(head + body)
            names[scheme] = (await connection.answer()).headers["Set-Cookie"]
    assert names["https"].startswith("__Host-upload-gateway-")
    assert names["https"].endswith("; Secure")
    assert names["http"].startswith("upload-gateway-")
    assert "Secure" not in names["http"]
    value = names["https"].partition(";")[0]
    assert (await get(told, "/-/session", f"Cookie: {value}")).json["signed_in"]
    plain = value.removeprefix("__Host-")
    assert not (await get(told, "/-/session", f"Cookie: {plain}")).json["signed_in"]
