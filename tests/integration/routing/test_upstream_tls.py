"""TLS to upstreams: private authorities, and certificates that the gateway shows."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.server.app import Gateway
from tests.support.harness import curl
from tests.support.routing.authority import Authority
from tests.support.routing.proxying import Serve as ServeConnection
from tests.support.routing.proxying import read_request, respond, upstream
from tests.support.routing.scripted import Serve, route


def tell_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Return the name in the certificate of the client."""
    certificate = writer.get_extra_info("peercert") or {}
    names = dict(pair for part in certificate.get("subject", ()) for pair in part)
    return str(names.get("commonName", "nobody")).encode()


def answers(name: Callable[[asyncio.StreamReader, asyncio.StreamWriter], bytes]) -> ServeConnection:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(respond(name(reader, writer)))
            await writer.drain()

    return serve


def leads(authority: str, more: str = "") -> str:
    port = authority.rpartition(":")[2]
    text = route("/r", more=f"target: {{scheme: https}}\n{more}")
    return text.replace("[]", f"['localhost:{port}']", 1)


async def asked(gateway: Gateway) -> tuple[int, str]:
    got = await curl(f"{gateway.url}/r")
    return got.status, got.body if got.status == 200 else ""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "plugins" / "tls")


async def test_a_private_authority_is_trusted_where_the_route_names_it(
    serve: Serve, authority: Authority
) -> None:
    trusted = "upstream_tls: {ca: tls/ca.pem}\n"
    async with upstream(answers(tell_client), authority.server_context()) as up:
        gateway = await serve(
            leads(up.authority, trusted), leads(up.authority).replace("/r", "/untrusted")
        )
        assert await asked(gateway) == (200, "nobody")
        assert (await curl(f"{gateway.url}/untrusted")).status == 502


async def test_another_authority_is_not_trusted(
    serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other", "Other CA")
    async with upstream(answers(tell_client), other.server_context()) as up:
        gateway = await serve(leads(up.authority, "upstream_tls: {ca: tls/ca.pem}\n"))
        assert (await asked(gateway))[0] == 502
        assert up.received == [] or b"".join(up.received) == b""


@pytest.mark.parametrize("together", [False, True])
async def test_the_certificate_of_the_route_is_shown_to_a_server_that_asks_for_it(
    serve: Serve, authority: Authority, *, together: bool
) -> None:
    cert, key = authority.issue("gateway", "client")
    files = "cert: tls/client.pem, key: tls/client.key"
    if together:
        cert.write_bytes(cert.read_bytes() + key.read_bytes())
        files = "cert: tls/client.pem"
    async with upstream(answers(tell_client), authority.server_context(asks_client=True)) as up:
        gateway = await serve(
            leads(up.authority, f"upstream_tls: {{ca: tls/ca.pem, {files}}}\n"),
            leads(up.authority, "upstream_tls: {ca: tls/ca.pem}\n").replace("/r", "/without"),
        )
        assert await asked(gateway) == (200, "gateway")
        assert (await curl(f"{gateway.url}/without")).status == 502
        sent = await curl(
            *("-X", "PUT", "-H", "Transfer-Encoding: chunked", "--data-binary", "@-"),
            f"{gateway.url}/r",
            stdin=b"x" * 100_000,
        )
        assert (sent.status, sent.body) == (200, "gateway")


async def test_probes_show_the_certificate_too(serve: Serve, authority: Authority) -> None:
    authority.issue("gateway", "client")
    probed = asyncio.Event()

    async def serve_probes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _ = await read_request(reader)
            if head.startswith(b"GET /health"):
                assert tell_client(reader, writer) == b"gateway"
                probed.set()
            writer.write(respond(b"ok"))

    async with upstream(serve_probes, authority.server_context(asks_client=True)) as up:
        more = "upstream_tls: {ca: tls/ca.pem, cert: tls/client.pem, key: tls/client.key}\n"
        gateway = await serve(leads(up.authority, f"{more}health: {{path: /health, every: 50ms}}\n"))
        await probed.wait()
        assert await asked(gateway) == (200, "ok")


async def test_a_reload_reads_the_files_anew_and_a_bad_file_keeps_what_is_in_force(
    serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other", "Other CA")
    folder = authority.ca.parent
    authority.issue("first", "client")
    context = authority.server_context(asks_client=True)
    context.load_verify_locations(other.ca)
    more = "upstream_tls: {ca: tls/ca.pem, cert: tls/client.pem, key: tls/client.key}\n"
    async with upstream(answers(tell_client), context) as up:
        gateway = await serve(leads(up.authority, more))
        assert await asked(gateway) == (200, "first")
        for file in other.issue("second", "client"):
            shutil.copy(file, folder)
        (folder / "client.key").rename(folder / "away.key")
        outcome = await gateway.reload()
        assert len(outcome.faults) == 1
        assert "client.key cannot be read: No such file" in outcome.faults[0]
        assert "0.yaml:4: " in outcome.faults[0]
        assert await asked(gateway) == (200, "first")
        (folder / "away.key").rename(folder / "client.key")
        assert not (await gateway.reload()).faults
        assert await asked(gateway) == (200, "second")


async def test_the_protocol_is_http_1_and_the_version_is_new(serve: Serve, authority: Authority) -> None:
    told = list[tuple[str | None, str | None]]()

    def tell_version(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
        told.append((connection.selected_alpn_protocol(), connection.version()))
        return b"ok"

    context = authority.server_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with upstream(answers(tell_version), context) as up:
        gateway = await serve(leads(up.authority, "upstream_tls: {ca: tls/ca.pem}\n"))
        assert await asked(gateway) == (200, "ok")
    assert told == [("http/1.1", "TLSv1.3")]
