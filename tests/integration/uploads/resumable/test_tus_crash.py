"""tus across a `kill -9`, and beside the IETF draft: what a client is told is true."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.server.app import Gateway
from tests.conftest import StartGateway, StartProcess
from tests.support.harness import GatewayProcess, files_below, raw_connection, request_head
from tests.support.tus import (
    BYTES,
    VERSION,
    create,
    offset_of,
    patch,
    store_part,
    target_of,
    tus,
)

SETTLED = ["after partial cell", "before partial move", "after partial move", "before journal commit"]
"""Where all bytes of a file are durable, and its commit has not been recorded."""

RECORDED = ["after rename", "before partial end", "after answer"]


def stored(data: Path) -> dict[str, bytes]:
    """Return the files that are visible."""
    return {path: body for path, body in files_below(data).items() if not path.startswith(".gateway/")}


async def killed_by(gateway: GatewayProcess, method: str, url: str, *lines: str, body: bytes) -> None:
    """Send a request during which the gateway kills itself."""
    head = request_head(method, target_of(url), VERSION, f"Content-Length: {len(body)}", *lines)
    async with raw_connection(gateway) as connection:
        await connection.send(head + body)
        await connection.closed()
    assert await asyncio.to_thread(gateway.wait) == -9


def public(gateway: GatewayProcess, url: str) -> str:
    """Return a URL of the gateway that was killed, at the one that runs."""
    return gateway.url + target_of(url)


@pytest.mark.parametrize("point", [*SETTLED, *RECORDED])
async def test_the_whole_length_is_told_of_a_stored_file_only(
    gateway_process: StartProcess, data: Path, point: str
) -> None:
    first = gateway_process()
    url = await create(first, "/upload/a", length=11, body=b"hello")
    first.kill()
    dying = gateway_process(die_at=point)
    await killed_by(dying, "PATCH", public(dying, url), BYTES, "Upload-Offset: 5", body=b" world")
    again = gateway_process()
    visible = stored(data)
    assert visible == ({} if point in SETTLED else {"upload/a": b"hello world"})
    assert await offset_of(again, public(again, url)) == 11
    assert stored(data) == {"upload/a": b"hello world"}
    assert files_below(data / ".gateway/partials") == {}


@pytest.mark.parametrize("point", [*SETTLED, *RECORDED])
async def test_a_kill_in_a_concatenation_leaves_a_file_or_its_parts(
    gateway_process: StartProcess, data: Path, point: str
) -> None:
    first = gateway_process()
    urls = [await store_part(first, body) for body in (b"hello ", b"world")]
    first.kill()
    dying = gateway_process(die_at=point)
    here = [public(dying, url) for url in urls]
    line = f"Upload-Concat: final;{' '.join(here)}"
    await killed_by(dying, "POST", f"{dying.url}/upload/a", line, body=b"")
    again = gateway_process()
    if point in RECORDED:
        assert stored(data) == {"upload/a": b"hello world"}
        return
    assert stored(data) == {}
    for url, length in zip(urls, (6, 5), strict=True):
        assert await offset_of(again, public(again, url)) == length
    assert (await tus(again, "POST", "/upload/a", line)).status == 201
    assert stored(data) == {"upload/a": b"hello world"}


async def test_every_offset_that_was_told_outlives_a_kill(
    gateway_process: StartProcess, data: Path
) -> None:
    gateway = gateway_process()
    url, body = await create(gateway, "/upload/a", "Upload-Defer-Length: 1"), b""
    for turn in range(4):
        answer = await patch(gateway, public(gateway, url), len(body), bytes([65 + turn]) * 100_000)
        body += bytes([65 + turn]) * 100_000
        assert answer.headers["Upload-Offset"] == str(len(body))
        gateway.kill()
        gateway = gateway_process()
        assert await offset_of(gateway, public(gateway, url)) == len(body)
    length = f"Upload-Length: {len(body)}"
    assert (await patch(gateway, public(gateway, url), len(body), b"", length)).status == 204
    assert stored(data) == {"upload/a": body}


async def draft(
    gateway: Gateway, method: str, url: str, *lines: str, body: bytes = b""
) -> tuple[int, dict[str, str]]:
    """Send one request of the IETF draft."""
    head = request_head(method, target_of(url), f"Content-Length: {len(body)}", *lines)
    async with raw_connection(gateway) as connection:
        await connection.send(head + body)
        answer = await connection.answer(head=method == "HEAD")
    return answer.status, answer.headers


async def test_tus_goes_on_with_an_upload_of_the_draft(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway()
    lines = ("Upload-Complete: ?0", "Upload-Length: 11")
    status, headers = await draft(gateway, "POST", f"{gateway.url}/upload/a", *lines, body=b"hello")
    assert status == 201
    url = headers["Location"]
    assert await offset_of(gateway, url) == 5
    assert (await patch(gateway, url, 5, b" world")).status == 204
    assert stored(data) == {"upload/a": b"hello world"}


async def test_what_the_draft_leaves_open_is_stored_before_tus_is_told_the_whole_length(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway()
    lines = ("Upload-Complete: ?0", "Upload-Length: 5")
    _, headers = await draft(gateway, "POST", f"{gateway.url}/upload/a", *lines, body=b"hello")
    assert stored(data) == {}
    assert await offset_of(gateway, headers["Location"]) == 5
    assert stored(data) == {"upload/a": b"hello"}


async def test_the_draft_goes_on_with_an_upload_of_tus(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway()
    url = await create(gateway, "/upload/a", length=11, body=b"hello")
    status, headers = await draft(gateway, "HEAD", url)
    assert (status, headers["Upload-Offset"], headers["Upload-Complete"]) == (204, "5", "?0")
    lines = ("Content-Type: application/partial-upload", "Upload-Offset: 5", "Upload-Complete: ?1")
    status, _ = await draft(gateway, "PATCH", url, *lines, body=b" world")
    assert status == 201
    assert stored(data) == {"upload/a": b"hello world"}


async def test_the_draft_does_not_store_a_part(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway()
    url = await create(gateway, "/upload/", "Upload-Concat: partial", length=5)
    lines = ("Content-Type: application/partial-upload", "Upload-Offset: 0", "Upload-Complete: ?1")
    await draft(gateway, "PATCH", url, *lines, body=b"hello")
    assert stored(data) == {}
    assert (await tus(gateway, "POST", "/upload/a", f"Upload-Concat: final;{url}")).status == 201
    assert stored(data) == {"upload/a": b"hello"}


async def test_a_signature_is_of_the_method_that_was_sent(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway(auth="token")
    services = gateway.resources.plugins.services
    url = str(await services.sign_url("PUT", "/upload/a", length=5))
    lines = ("X-HTTP-Method-Override: PUT", "Upload-Length: 5")
    assert (await tus(gateway, "POST", url, *lines)).status in {400, 403}
    answer = await tus(gateway, "POST", url, "X-HTTP-Method-Override: PATCH", "Upload-Length: 5")
    assert answer.status in {400, 403}
    assert stored(data) == files_below(data / ".gateway/partials") == {}
