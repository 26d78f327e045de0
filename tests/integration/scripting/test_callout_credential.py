"""The internal credential: gateways of the installation get it, nobody else, not even by a redirect."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.plugins.scripting.callout import HTTPError
from gateway.server.app import Gateway
from gateway.telemetry.redaction import INTERNAL_HEADER
from tests.conftest import StartGateway
from tests.support.harness import TIMEOUT, get, put, self_signed_certificate, write_plugin


class Listener:
    """A server that notes what credentials it was given."""

    def __init__(self) -> None:
        self.given: list[str | None] = []
        self.location = ""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._note)
        self.server = TestServer(app)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    async def _note(self, request: web.Request) -> web.Response:
        self.given.append(request.headers.get(INTERNAL_HEADER))
        if request.path == "/away":
            return web.Response(status=307, headers={"Location": self.location})
        return web.json_response(dict(request.headers))


@pytest.fixture
async def stranger() -> AsyncIterator[Listener]:
    made = Listener()
    async with made.server:
        yield made


@pytest.fixture
async def peer() -> AsyncIterator[Listener]:
    made = Listener()
    async with made.server:
        yield made


async def test_a_script_reaches_its_own_gateway_through_the_default_authorization(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(auth="token")
    assert (await get(gateway, "/-/events")).status == 401
    callout = gateway.resources.plugins.services.callout
    try:
        host, port = gateway.address
        for endpoint in (None, f"{host}:{port}", f"http://localhost:{port}/"):
            answer = await callout(endpoint, "/-/events?limit=5&x=%2Fa%20b", "get")
            assert (answer.code, answer.json()["deliveries"]) == (200, [])
        made = await callout(path="/upload/by script?a=ä", method="PUT", body=b"body")
        assert made.json()["path"] == "/upload/by script"
    finally:
        await callout.close()


async def test_whoever_overhears_a_credential_can_use_it_for_nothing_else(
    start_gateway: StartGateway, peer: Listener
) -> None:
    gateway = await start_gateway(auth="token", peers=[peer.address])
    callout = gateway.resources.plugins.services.callout
    try:
        await callout(peer.address, "/-/events")
    finally:
        await callout.close()
    [heard] = peer.given
    assert heard
    assert (await get(gateway, "/-/events", f"{INTERNAL_HEADER}: {heard}")).status == 401


async def test_a_stranger_never_gets_one_not_even_from_a_script_that_tries(
    start_gateway: StartGateway, stranger: Listener
) -> None:
    gateway = await start_gateway(auth="token")
    callout = gateway.resources.plugins.services.callout
    try:
        answer = await callout(
            stranger.address, "/x", headers={"x-gateway-INTERNAL": "v1.0.x", "X-A": "1"}
        )
        assert answer.json()["X-A"] == "1"
    finally:
        await callout.close()
    assert stranger.given == [None]


async def test_a_redirect_of_a_peer_is_an_answer_and_is_not_followed(
    start_gateway: StartGateway, stranger: Listener, peer: Listener
) -> None:
    gateway = await start_gateway(auth="token", peers=[peer.address])
    peer.location = f"http://{stranger.address}/x"
    callout = gateway.resources.plugins.services.callout
    try:
        answer = await callout(peer.address, "/away")
    finally:
        await callout.close()
    assert (answer.code, answer.headers["Location"]) == (307, peer.location)
    assert len(peer.given) == 1
    assert peer.given[0]
    assert stranger.given == []


async def test_a_redirect_of_a_stranger_to_us_carries_none(
    start_gateway: StartGateway, stranger: Listener
) -> None:
    gateway = await start_gateway(auth="token")
    stranger.location = f"{gateway.url}/-/events"
    callout = gateway.resources.plugins.services.callout
    try:
        with pytest.raises(HTTPError) as caught:
            await callout(stranger.address, "/away")
    finally:
        await callout.close()
    assert caught.value.code == 401
    assert stranger.given == [None]


async def test_scripts_and_the_journal_see_who_called_but_never_the_credential(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = write_plugin(
        tmp_path / "p",
        """
- name: chain
  event: APIGW.OnFileUploaded
  script: |
    async def chain(event, handle):
        if event["path"] == "/upload/first":
            await callout("%s:%d" % (event["address"], event["port"]), "/upload/second", PUT, b"2")
- name: watch
  event: APIGW.OnFileUploading
  script: |
    async def watch(event, handle):
        assert event.get("X-Gateway-Internal") is None
        state[event["path"]] = event["principal"]
        if event["path"] == "/upload/second" and event["principal"]["kind"] != "internal":
            await handle.terminate(code=401)
""",
    )
    gateway = await start_gateway(auth="token", plugins=[str(folder)])
    answer = await put(gateway, "/upload/first")
    assert answer.status == 201
    rows = await deliveries(gateway, 2)
    assert {(row["path"], row["state"]) for row in rows} == {
        ("/upload/first", "done"),
        ("/upload/second", "done"),
    }
    journal = b"".join(
        file.read_bytes() for file in gateway.resources.base.directory.folder.glob("journal-*")
    )
    assert b"internal" in journal
    assert b"v1.1" not in journal
    assert INTERNAL_HEADER.lower().encode() not in journal.lower()


async def deliveries(gateway: Gateway, count: int) -> list[dict[str, str]]:
    """Wait until there are `count` deliveries and all have come to an end."""
    callout = gateway.resources.plugins.services.callout
    deadline = time.monotonic() + TIMEOUT
    try:
        while time.monotonic() < deadline:
            rows: list[dict[str, str]] = (await callout(path="/-/events")).json()["deliveries"]
            if [row["state"] in {"done", "dead"} for row in rows] == [True] * count:
                return rows
            await asyncio.sleep(0.02)  # the page is the only public sign; its end is what is awaited
    finally:
        await callout.close()
    raise AssertionError(f"not finished: {rows}")


# -- HTTPS


async def test_over_https_a_gateway_trusts_its_own_certificate_for_itself_only(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    cert, key = self_signed_certificate(tmp_path, "files.example.org")
    gateway = await start_gateway(auth="token", tls_cert=cert, tls_key=key)
    (tmp_path / "other").mkdir()
    other_cert, other_key = self_signed_certificate(tmp_path / "other", "files.example.org")
    other = await start_gateway(
        auth="none", directory=str(tmp_path / "d2"), tls_cert=other_cert, tls_key=other_key
    )
    callout = gateway.resources.plugins.services.callout
    try:
        host, port = gateway.address
        for endpoint in (None, f"{host}:{port}", f"https://localhost:{port}"):
            assert (await callout(endpoint, "/-/events")).code == 200
        with pytest.raises(OSError, match="certificate verify failed"):
            await callout(other.url, "/-/health")
    finally:
        await callout.close()
