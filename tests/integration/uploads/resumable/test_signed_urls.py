"""A URL that was signed for a PUT begins an upload that goes on with its own secret, and no token."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import curl, files_below, raw_connection, request_head, wait_until
from tests.support.resumable import append, offset_of, request, target_of, wait_begun, wait_received

BODY = os.urandom(1 << 20)
OPEN, WHOLE = "Upload-Complete: ?0", "Upload-Complete: ?1"
PART = "Content-Type: application/partial-upload"


async def sign(gateway: Gateway, path: str = "/upload/x", **terms: Any) -> str:
    url = await gateway.resources.plugins.services.sign_url("PUT", path, **terms)
    return target_of(str(url))


async def test_curl_uploads_to_a_signed_url_in_pieces(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="token")
    url = f"{gateway.url}{await sign(gateway, length=len(BODY), once=True)}"
    pieces = [tmp_path / "first", tmp_path / "second"]
    pieces[0].write_bytes(BODY[:400_000])
    pieces[1].write_bytes(BODY[400_000:])
    first = await curl(
        "-T", str(pieces[0]), "-H", OPEN, "-H", f"Upload-Length: {len(BODY)}", "-D", "-", url
    )
    assert first.status == 201
    [location] = [line.split()[1] for line in first.body.splitlines() if line.startswith("Location")]
    last = await curl(
        "-X",
        "PATCH",
        "-T",
        str(pieces[1]),
        "-H",
        PART,
        "-H",
        "Upload-Offset: 400000",
        "-H",
        WHOLE,
        location,
    )
    assert last.status == 201
    assert files_below(tmp_path / "data/upload") == {"x": BODY}
    again = await curl("-T", str(pieces[0]), "-H", OPEN, "-H", f"Upload-Length: {len(BODY)}", url)
    assert again.status == 403  # it was signed for one upload


async def test_a_phone_goes_on_with_a_signed_upload(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway(auth="token")
    target = await sign(gateway, max_length=len(BODY))
    async with raw_connection(gateway) as connection:
        lines = (WHOLE, "Upload-Draft-Interop-Version: 6", f"Content-Length: {len(BODY)}")
        await connection.send(request_head("PUT", target, *lines))
        resource = target_of((await connection.head()).headers["Location"])
        await connection.send(BODY[:300_000])
        await wait_received(gateway, resource.partition("=")[2].partition(".")[0], 300_000)
        connection.reset()
    assert await offset_of(gateway, resource) == 300_000
    assert (await append(gateway, resource, 300_000, BODY[300_000:], end=True)).status == 201
    assert files_below(tmp_path / "data/upload") == {"x": BODY}


@pytest.mark.parametrize(
    ("terms", "length"), [({"length": 10}, 11), ({"max_length": 10}, 11), ({"length": 10}, 9)]
)
async def test_the_length_of_the_file_is_that_of_the_signature(
    start_gateway: StartGateway, tmp_path: Path, terms: dict[str, Any], length: int
) -> None:
    gateway = await start_gateway(auth="token")
    target = await sign(gateway, **terms)
    answer = await request(gateway, "PUT", target, OPEN, f"Upload-Length: {length}", body=b"x")
    assert answer.status in {403, 413}
    assert files_below(tmp_path / "data/.gateway/partials") == {}


async def test_a_length_that_is_told_late_is_held_to_the_signature(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="token")
    target = await sign(gateway, max_length=10)
    first = await request(gateway, "PUT", target, OPEN, body=b"12345")
    assert first.status == 201
    last = await append(gateway, first.resource, 5, b"123456", end=True)
    assert last.status in {400, 413}


@pytest.mark.parametrize(
    "terms", [{"max_length": len(BODY)}, {"length": len(BODY)}, {"length": len(BODY), "once": True}]
)
async def test_a_put_to_a_signed_url_goes_on_by_its_offset(
    start_gateway: StartGateway, tmp_path: Path, terms: dict[str, Any]
) -> None:
    gateway = await start_gateway(auth="token")
    target, size = await sign(gateway, **terms), len(BODY)
    async with raw_connection(gateway) as connection:
        lines = (f"Content-Range: bytes 0-{size - 1}/{size}", f"Content-Length: {size}")
        await connection.send(request_head("PUT", target, *lines) + BODY[:300_000])
        await wait_begun(gateway)
    line = f"Content-Range: bytes {size - 1}-{size - 1}/{size}"

    async def told() -> bool:
        refused = await request(gateway, "PUT", target, line, body=BODY[-1:])
        return refused.status == 409 and refused.final.headers.get("Upload-Offset") == "300000"

    await wait_until(told)  # HEAD is another method than the one that was signed
    line = f"Content-Range: bytes 300000-{size}/{size + 1}"
    assert (await request(gateway, "PUT", target, line, body=BODY[300_000:] + b"x")).status in {403, 409}
    line = f"Content-Range: bytes 300000-{size - 1}/{size}"
    assert (await request(gateway, "PUT", target, line, body=BODY[300_000:])).status == 201
    assert files_below(tmp_path / "data/upload") == {"x": BODY}


async def test_the_signature_alone_begins_an_upload(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="token")
    target = await sign(gateway)
    for wrong in ("/upload/x", target.replace("/upload/x", "/upload/y")):
        answer = await request(gateway, "PUT", wrong, OPEN, body=b"x")
        assert answer.status in {401, 403}
    assert (await request(gateway, "POST", target, OPEN, body=b"x")).status == 403


async def test_a_page_of_any_origin_goes_on_with_an_upload_that_a_signed_url_has_begun(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="token")
    origin = "Origin: https://page.test"
    first = await request(
        gateway, "PUT", await sign(gateway, "/album/x"), OPEN, origin, body=BODY[:1000]
    )
    resource = target_of(first.final.headers["Location"])
    assert resource.startswith("/-/objects/album/x?upload=")
    asked = "Access-Control-Request-Method: PATCH"
    answers = [
        first,
        await request(gateway, "OPTIONS", resource, origin, asked),
        await request(gateway, "HEAD", resource, origin),
        await append(gateway, resource, 1000, BODY[1000:], origin, end=True),
    ]
    assert [answer.status for answer in answers] == [201, 204, 204, 201]
    for answer in answers:
        assert answer.final.headers["Access-Control-Allow-Origin"] == "*"
    assert files_below(tmp_path / "data/album") == {"x": BODY}
    foreign = await request(gateway, "OPTIONS", "/upload/x?upload=", origin, asked)
    assert "Access-Control-Allow-Origin" not in foreign.final.headers
