"""Requests that are not of resumable uploads are answered alike, whether those are on or off."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import StartGateway
from tests.support.harness import files_below, raw_connection, request_head

pytestmark = pytest.mark.both_paths

MASKS = (
    (rb"[0-9A-HJKMNP-TV-Z]{26}-\d+", b"ID"),
    (rb"X-Request-Id: [0-9a-f]{16}", b"X-Request-Id: R"),
    (rb"(Date|Last-Modified): [^\r]*", b"Date: D"),
    (rb"http://127.0.0.1:\d+/", b"http://H/"),
    (rb'ETag: "[^"]*"', b"ETag: E"),
)

EXPECT = "Expect: 100-continue"

REQUESTS: list[tuple[str, str, bytes | None, tuple[str, ...]]] = [
    ("PUT", "/upload/x", b"hello", ()),
    ("PUT", "/upload/x", b"again", ()),
    ("PUT", "/upload/a/b/c", b"hello", ("Content-Type: text/plain",)),
    ("PUT", "/upload/x?a=b&uploaded=1", b"hello", ()),
    ("PUT", "/upload/x?upload=1", b"hello", ()),
    ("PUT", "/upload/x", b"x" * 100_000, (EXPECT,)),
    ("PUT", "/upload/x", b"", ()),
    ("PUT", "/upload/x", b"hello", ("Upload-Length: 5",)),
    ("PUT", "/upload/x", b"hello", ("Upload-Length: 6",)),
    ("PUT", "/upload/x", b"hello", ("Upload-Complete: true",)),
    ("PUT", "/upload/x", b"hello", ("Upload-Offset: 0",)),
    ("PUT", "/upload/x", b"hello", ("Upload-Draft-Interop-Version: 6",)),
    ("PUT", "/upload/x", b"hello", ("Upload-Incomplete: ?0",)),
    ("PUT", "/upload/x", b"hello", ("Upload-Incomplete: ?1",)),
    ("PUT", "/upload/x", b"hello", ("OC-Total-Length: 20",)),
    ("PUT", "/upload/x", b"hello", ("Content-MD5: x",)),
    ("PUT", "/upload/x", b"hello", ("If-None-Match: *",)),
    ("PUT", "/upload/x", b"hello", ("Transfer-Encoding: gzip",)),
    ("PUT", "/upload/x", b"hello", ("Expect: a-pony",)),
    ("PUT", "/upload/", b"hello", ()),
    ("PUT", "/upload/..%2fx", b"hello", ()),
    ("PUT", "/nowhere", b"hello", ()),
    ("PUT", "/nowhere", b"hello", ("Upload-Complete: ?0",)),
    ("PUT", "/nowhere", b"hello", ("Content-Range: bytes 4-9/10",)),
    ("PUT", "/-/objects/upload/x", b"hello", ()),
    ("POST", "/upload/x", b"hello", ()),
    ("POST", "/upload/", b"hello", ()),
    ("PATCH", "/upload/x", b"hello", ()),
    (
        "PATCH",
        "/upload/x",
        b"hello",
        (
            "Content-Type: application/partial-upload",
            "Upload-Offset: 0",
        ),
    ),
    ("DELETE", "/upload/x", None, ()),
    ("PROPFIND", "/upload/", None, ()),
    ("GET", "/upload/x", None, ()),
    ("GET", "/upload/x", None, ("Range: bytes=1-2",)),
    ("GET", "/upload/x?uploads=1", None, ()),
    ("GET", "/upload/none", None, ()),
    ("GET", "/upload/", None, ()),
    ("HEAD", "/upload/x", None, ()),
    ("HEAD", "/upload/none", None, ()),
    ("HEAD", "/upload/", None, ()),
    ("HEAD", "/", None, ()),
    ("OPTIONS", "/nowhere", None, ()),
    ("GET", "/-/health", None, ()),
]


async def _run(start_gateway: StartGateway, folder: Path, **settings: str) -> list[bytes]:
    """Send all requests, each on a connection of its own; return the answers, without what differs."""
    gateway = await start_gateway(directory=str(folder), **settings)
    texts = []
    for method, target, body, lines in REQUESTS:
        length = [] if body is None else [f"Content-Length: {len(body)}"]
        if any(line.startswith("Transfer-Encoding") for line in lines):
            length = []
        async with raw_connection(gateway) as connection:
            await connection.send(
                request_head(method, target, "Connection: close", *length, *lines) + (body or b"")
            )
            text = await connection.closed()
        for pattern, mask in MASKS:
            text = re.sub(pattern, mask, text)
        texts.append(text)
    return texts


@pytest.mark.parametrize("settings", [{}, {"downloads": "on"}, {"auth": "token"}])
async def test_every_other_request_is_answered_as_without_resumable_uploads(
    start_gateway: StartGateway, tmp_path: Path, settings: dict[str, str]
) -> None:
    with_them = await _run(start_gateway, tmp_path / "with", resumable="on", **settings)
    without = await _run(start_gateway, tmp_path / "without", resumable="off", **settings)
    for request, text, expected in zip(REQUESTS, with_them, without, strict=True):
        assert text == expected, request
    assert files_below(tmp_path / "with/upload") == files_below(tmp_path / "without/upload")
    assert files_below(tmp_path / "with/.gateway/partials") == {}
