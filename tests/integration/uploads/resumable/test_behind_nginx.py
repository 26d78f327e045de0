"""Resumable uploads through a real nginx: with buffering off they keep what came, and doctor tells."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.cli.doctor.buffering import request_buffering
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import files_below, raw_connection, request_head
from tests.support.ports import reserved_ports
from tests.support.resumable import PART_TYPE, answers, append, offset_of, request, wait_received
from tests.support.routing.nginx import Nginx, nginx

needs_nginx = pytest.mark.skipif(
    shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") is None,
    reason="nginx is not installed",
)
pytestmark = needs_nginx

BODY = os.urandom(4 << 20)
SENT = 2 << 20
INTEROP = "Upload-Draft-Interop-Version: 6"


@contextlib.asynccontextmanager
async def behind_nginx(
    start_gateway: StartGateway, folder: Path, buffering: str
) -> AsyncIterator[tuple[Gateway, Nginx]]:
    """Start nginx, and the gateway behind it."""
    with reserved_ports(1) as (port,), nginx(folder / "nginx", port, buffering=buffering) as proxy:
        settings = {
            "auth": "none",
            "trusted_proxies": "127.0.0.1/32",
            "public_url": f"http://{proxy.authority}",
        }
        yield await start_gateway(port=str(port), **settings), proxy


@pytest.mark.parametrize("buffering", ["off", "on"])
async def test_what_was_sent_before_a_cut_is_kept_unless_nginx_buffers_it(
    start_gateway: StartGateway, tmp_path: Path, buffering: str
) -> None:
    async with behind_nginx(start_gateway, tmp_path, buffering) as (gateway, proxy):
        created = await request(proxy, "POST", "/upload/x", "Upload-Complete: ?0", INTEROP, body=b"")
        assert created.status == 201
        assert created.interim == []  # nginx would take a 104 for the final response
        assert created.final.headers["Location"].startswith(f"http://{proxy.authority}/upload/x?")
        async with raw_connection(proxy) as connection:
            lines = (
                PART_TYPE,
                "Upload-Offset: 0",
                "Upload-Complete: ?1",
                f"Content-Length: {len(BODY)}",
            )
            await connection.send(request_head("PATCH", created.resource, *lines) + BODY[:SENT])
            if buffering == "off":
                await wait_received(gateway, created.upload_id, SENT)
        offset = await offset_of(proxy, created.resource)
        assert offset == (SENT if buffering == "off" else 0)
        last = await append(proxy, created.resource, offset, BODY[offset:], end=True)
        assert last.status == 201
    assert files_below(tmp_path / "data/upload") == {"x": BODY}


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
async def test_a_phone_behind_nginx_uploads_in_one_request(
    start_gateway: StartGateway, tmp_path: Path, version: str
) -> None:
    async with (
        behind_nginx(start_gateway, tmp_path, "off") as (_, proxy),
        raw_connection(proxy) as phone,
    ):
        lines = ("Upload-Complete: ?1", INTEROP, f"Content-Length: {len(BODY)}")
        head = request_head("PUT", "/upload/x", *lines).replace(b"HTTP/1.1", version.encode())
        await phone.send(head + BODY)
        whole = await answers(phone)
    assert (whole.status, whole.complete, whole.interim) == (201, "?1", [])
    assert files_below(tmp_path / "data/upload") == {"x": BODY}
    assert files_below(tmp_path / "data/.gateway/partials") == {}


@pytest.mark.parametrize(("buffering", "level"), [("off", "ok"), ("on", "warn")])
async def test_doctor_finds_a_proxy_that_buffers(
    start_gateway: StartGateway, tmp_path: Path, buffering: str, level: str
) -> None:
    async with behind_nginx(start_gateway, tmp_path, buffering) as (gateway, _):
        settings = gateway.resources.settings
        [finding] = await asyncio.to_thread(lambda: list(request_buffering(settings)))
    assert finding.level == level, finding
    assert ("proxy_request_buffering off" in finding.advice) == (level == "warn")


async def test_doctor_says_that_the_gateway_behind_a_proxy_does_not_answer(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    async with behind_nginx(start_gateway, tmp_path, "off") as (gateway, _):
        settings = gateway.resources.settings
        elsewhere = settings.model_copy(update={"file_upload_api_path": "/echo/{filepath}"})
        [finding] = await asyncio.to_thread(lambda: list(request_buffering(elsewhere)))
        assert finding.level == "warn"
        assert "not by a gateway" in finding.text
        away = settings.model_copy(update={"public_url": "http://127.0.0.1:1"})
        [finding] = await asyncio.to_thread(lambda: list(request_buffering(away)))
        assert finding.level == "warn"
        for quiet in ({"public_url": None}, {"resumable": False}):
            changed = settings.model_copy(update=quiet)
            assert await asyncio.to_thread(lambda: list(request_buffering(changed))) == []  # noqa: B023
