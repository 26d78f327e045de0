"""tus 1.0.0 by hand: one request after the other, right or wrong."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from urllib.parse import urlsplit

from gateway.auth.tokens import token_digest
from tests.support.harness import Addressed, RawResponse, files_below, raw_connection, request_head

VERSION = "Tus-Resumable: 1.0.0"
BYTES = "Content-Type: application/offset+octet-stream"


TOKENS: dict[str, object] = {
    "auth": "token",
    "tokens": [f"{name}:{token_digest(f'secret-{name}')}" for name in ("alice", "bob")],
}
ALICE, BOB = (f"Authorization: Bearer secret-{name}" for name in ("alice", "bob"))


def stored(data: Path) -> dict[str, bytes]:
    """Return the files that are visible."""
    return {path: body for path, body in files_below(data).items() if not path.startswith(".gateway/")}


def kept(data: Path) -> dict[str, bytes]:
    """Return the private files of partial uploads."""
    return files_below(data / ".gateway/partials")


def b64(value: str | bytes) -> str:
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()


def metadata(**values: str) -> str:
    """Return the header that tells about a file."""
    pairs = (f"{key} {b64(value)}" if value else key for key, value in values.items())
    return f"Upload-Metadata: {','.join(pairs)}"


def checksum(name: str, body: bytes) -> str:
    """Return the header that has the checksum of a body."""
    return f"Upload-Checksum: {name} {b64(hashlib.new(name, body).digest())}"


def target_of(url: str) -> str:
    """Return the request target of an absolute URL."""
    split = urlsplit(url)
    assert split.scheme, url
    return f"{split.path}?{split.query}" if split.query else split.path


async def tus(
    gateway: Addressed, method: str, target: str, *lines: str, body: bytes | None = None
) -> RawResponse:
    """Send one request of tus; every answer must say the version, and may not be cached."""
    if body is not None:
        lines = (BYTES, f"Content-Length: {len(body)}", *lines)
    if target.startswith("http"):
        target = target_of(target)
    async with raw_connection(gateway) as connection:
        await connection.send(request_head(method, target, VERSION, *lines) + (body or b""))
        answer = await connection.answer(head=method == "HEAD")
    assert answer.headers["Tus-Resumable"] == "1.0.0", answer
    assert answer.headers["Cache-Control"] == "no-store", answer
    return answer


async def create(
    gateway: Addressed, target: str, *lines: str, length: int | None = None, body: bytes | None = None
) -> str:
    """Create an upload and return its URL."""
    if length is not None:
        lines = (f"Upload-Length: {length}", *lines)
    answer = await tus(gateway, "POST", target, *lines, body=body)
    assert answer.status == 201, answer
    return answer.headers["Location"]


async def patch(gateway: Addressed, url: str, offset: int, body: bytes, *lines: str) -> RawResponse:
    """Append to an upload."""
    return await tus(gateway, "PATCH", url, f"Upload-Offset: {offset}", *lines, body=body)


async def offset_of(gateway: Addressed, url: str) -> int:
    """Return how many bytes of an upload are here."""
    answer = await tus(gateway, "HEAD", url)
    assert answer.status in {200, 204}, answer
    return int(answer.headers["Upload-Offset"])


async def store_part(gateway: Addressed, body: bytes, *lines: str) -> str:
    """Upload a part of a file, and return its URL."""
    url = await create(gateway, "/upload/", "Upload-Concat: partial", *lines, length=len(body))
    answer = await patch(gateway, url, 0, body, *lines)
    assert answer.status == 204, answer
    return url
