"""Downloads over real sockets: what is sent, to whom, and what becomes of it in the middle."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import socket
from email.utils import formatdate
from pathlib import Path

import pytest

from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import (
    GatewayProcess,
    RawResponse,
    curl,
    get,
    put,
    raw_connection,
    request_head,
    self_signed_certificate,
    write_plugin,
)

pytestmark = pytest.mark.both_paths

MIB = 1 << 20
CONTENT = os.urandom(3 * MIB + 17)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A file in the directory of the gateway that `start` starts."""
    file = tmp_path / "data" / "upload" / "a.bin"
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    os.utime(file, (1_700_000_000, 1_700_000_000))
    return file


async def fetch(
    gateway: Gateway, target: str, *lines: str, method: str = "GET", source: str = "127.0.0.1"
) -> RawResponse:
    async with raw_connection(gateway, source) as connection:
        await connection.send(request_head(method, target, *lines))
        return await connection.answer(head=method == "HEAD")


async def metric(gateway: Gateway, name: str) -> str:
    lines = (await get(gateway, "/-/metrics")).body.decode().splitlines()
    return next(line.split()[-1] for line in lines if line.startswith(name))


async def until_closed(gateway: Gateway) -> None:
    """Wait until the answers in flight have ended."""
    async with asyncio.timeout(30):
        while gateway.endpoints.downloads.open_files.used:
            await asyncio.sleep(0.01)  # nothing else tells of it


async def test_without_downloads_nothing_is_read(start_gateway: StartGateway, stored: Path) -> None:
    gateway = await start_gateway()
    for method in ("GET", "HEAD"):
        answer = await fetch(gateway, "/upload/a.bin", method=method)
        assert (answer.status, answer.headers["Allow"]) == (405, "PUT, POST")


async def test_a_file_comes_back_as_something_to_save(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(downloads=True)
    assert (await put(gateway, "/upload/r%C3%A9sum%C3%A9.html", CONTENT)).status == 201
    answer = await fetch(gateway, "/upload/r%C3%A9sum%C3%A9.html")
    assert (answer.status, answer.body) == (200, CONTENT)
    assert answer.headers["Content-Type"] == "text/html"
    assert answer.headers["Content-Disposition"] == (
        "attachment; filename=\"r_sum_.html\"; filename*=UTF-8''r%C3%A9sum%C3%A9.html"
    )
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert answer.headers["Accept-Ranges"] == "bytes"
    await until_closed(gateway)
    assert await metric(gateway, 'gateway_downloads_total{outcome="sent"}') == "1.0"
    assert float(await metric(gateway, "gateway_download_bytes_total")) == len(CONTENT)


async def test_the_type_that_an_upload_said_is_kept_through_a_rename(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(downloads=True, on_conflict="rename")
    for _ in range(2):
        assert (await put(gateway, "/upload/a.bin", b"x", "Content-Type: image/x-mine")).status == 201
    kinds = {
        (await fetch(gateway, f"/upload/{name}")).headers["Content-Type"] for name in names(gateway)
    }
    if kinds == {"application/octet-stream"}:
        pytest.skip("this file system keeps no attributes")
    assert kinds == {"image/x-mine"}


def names(gateway: Gateway) -> list[str]:
    found = os.listdir(gateway.resources.settings.directory / "upload")
    assert len(found) == 2
    return [name.replace(" ", "%20") for name in found]


async def test_one_connection_serves_one_file_after_the_other(
    start_gateway: StartGateway, stored: Path
) -> None:
    (stored.parent / "small").write_bytes(b"small")
    (stored.parent / "empty").write_bytes(b"")
    gateway = await start_gateway(downloads=True)
    wanted = [
        ("a.bin", CONTENT),
        ("small", b"small"),
        ("empty", b""),
        ("a.bin", CONTENT),
        ("none", None),
    ]
    async with raw_connection(gateway) as connection:
        # All at once: answers come one behind the other, whichever way they are sent.
        await connection.send(b"".join(request_head("GET", f"/upload/{name}") for name, _ in wanted))
        for _, content in wanted:
            answer = await connection.answer()
            assert answer.body == content if content is not None else answer.status == 404


async def test_a_download_tells_the_digest_of_the_whole_file_while_it_is_that_file(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(downloads=True, digest="sha512")
    stored = await put(gateway, "/upload/a.bin", CONTENT)
    field = stored.headers["Repr-Digest"]
    assert field == f"sha-512=:{base64.b64encode(hashlib.sha512(CONTENT).digest()).decode()}:"
    for method, lines, status in (
        ("GET", (), 200),
        ("GET", (), 200),
        ("HEAD", (), 200),
        ("GET", ("Range: bytes=1-2",), 206),
        ("GET", ("Range: bytes=1-2,5-6",), 206),
    ):
        answer = await fetch(gateway, "/upload/a.bin", *lines, method=method)
        assert (answer.status, answer.headers["Repr-Digest"]) == (status, field)
    fresh = await fetch(gateway, "/upload/a.bin", "If-None-Match: *")
    assert (fresh.status, fresh.headers.get("Repr-Digest")) == (304, None)
    with (tmp_path / "data/upload/a.bin").open("r+b") as file:  # an operator, past the gateway
        file.write(b"changed")
    changed = await fetch(gateway, "/upload/a.bin", method="HEAD")
    assert (changed.status, changed.headers.get("Repr-Digest")) == (200, None)
    small = await put(gateway, "/upload/small", b"small")
    assert small.headers["Repr-Digest"] == (await fetch(gateway, "/upload/small")).headers["Repr-Digest"]


async def test_head_says_the_same_without_the_bytes(start_gateway: StartGateway, stored: Path) -> None:
    gateway = await start_gateway(downloads=True)
    whole = await fetch(gateway, "/upload/a.bin")
    async with raw_connection(gateway) as connection:
        await connection.send(
            request_head("HEAD", "/upload/a.bin", "Range: bytes=0-1") + request_head("GET", "/-/health")
        )
        about = await connection.answer(head=True)
        assert (await connection.answer()).status == 200
    unlike = {"Date", "X-Request-Id"}
    assert {k: v for k, v in about.headers.items() if k not in unlike} == {
        k: v for k, v in whole.headers.items() if k not in unlike
    }


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("0-0", slice(0, 1)),
        ("2000000-", slice(2000000, None)),
        ("-5", slice(-5, None)),
        ("7-99", slice(7, 100)),
    ],
)
async def test_a_part_is_that_part(
    start_gateway: StartGateway, stored: Path, asked: str, part: slice
) -> None:
    gateway = await start_gateway(downloads=True)
    answer = await fetch(gateway, "/upload/a.bin", f"range: bytes={asked}")
    first, last, _ = part.indices(len(CONTENT))
    assert (answer.status, answer.body) == (206, CONTENT[part])
    assert answer.headers["Content-Range"] == f"bytes {first}-{last - 1}/{len(CONTENT)}"


async def test_several_parts_come_in_the_order_asked(start_gateway: StartGateway, stored: Path) -> None:
    gateway = await start_gateway(downloads=True)
    answer = await fetch(gateway, "/upload/a.bin", "Range: bytes=1000000-1999999,0-9,-3")
    assert answer.status == 206
    kind, _, boundary = answer.headers["Content-Type"].partition("; boundary=")
    assert kind == "multipart/byteranges"
    before, *parts, after = answer.body.split(f"\r\n--{boundary}".encode())
    assert (before, after) == (b"", b"--\r\n")
    total = len(CONTENT)
    for text, (start_, end) in zip(
        parts, [(1000000, 2000000), (0, 10), (total - 3, total)], strict=True
    ):
        header, _, content = text.partition(b"\r\n\r\n")
        assert f"Content-Range: bytes {start_}-{end - 1}/{total}".encode() in header
        assert content == CONTENT[start_:end]


async def test_a_range_of_another_version_gets_the_whole_file(
    start_gateway: StartGateway, stored: Path
) -> None:
    gateway = await start_gateway(downloads=True)
    etag = (await fetch(gateway, "/upload/a.bin", method="HEAD")).headers["ETag"]
    for said, status in [
        (etag, 206),
        (f"W/{etag}", 200),
        ('"x"', 200),
        (formatdate(1_700_000_000, usegmt=True), 206),
    ]:
        answer = await fetch(gateway, "/upload/a.bin", "Range: bytes=0-0", f"If-Range: {said}")
        assert answer.status == status
    refused = await fetch(gateway, "/upload/a.bin", "Range: bytes=9999999-")
    assert (refused.status, refused.headers["Content-Range"]) == (416, f"bytes */{len(CONTENT)}")


async def test_who_has_it_already_gets_nothing_and_who_wants_another_is_refused(
    start_gateway: StartGateway, stored: Path
) -> None:
    gateway = await start_gateway(downloads=True)
    known = (await fetch(gateway, "/upload/a.bin", method="HEAD")).headers
    for method in ("GET", "HEAD"):
        fresh = await fetch(gateway, "/upload/a.bin", f"if-none-match: {known['ETag']}", method=method)
        assert (fresh.status, fresh.body, fresh.headers["ETag"]) == (304, b"", known["ETag"])
        assert "Content-Type" not in fresh.headers
    lines = ['If-None-Match: "x"', f"If-None-Match: {known['ETag']}"]
    assert (await fetch(gateway, "/upload/a.bin", *lines)).status == 304
    since = f"If-Modified-Since: {known['Last-Modified']}"
    assert (await fetch(gateway, "/upload/a.bin", since)).status == 304
    assert (await fetch(gateway, "/upload/a.bin", 'If-Match: "x"')).status == 412
    os.utime(stored)
    assert (await fetch(gateway, "/upload/a.bin", since)).status == 200
    assert (await fetch(gateway, "/upload/a.bin", f"If-Match: {known['ETag']}")).status == 412


async def test_curl_resumes_asks_for_parts_and_for_news(
    start_gateway: StartGateway, stored: Path, tmp_path: Path
) -> None:
    gateway = await start_gateway(downloads=True)
    url, copy = f"{gateway.url}/upload/a.bin", tmp_path / "copy"
    copy.write_bytes(CONTENT[: 2 * MIB])
    assert (await curl("-C", "-", "-o", str(copy), url)).status == 206
    assert copy.read_bytes() == CONTENT
    assert (await curl("-r", "5-9", "-o", str(copy), url)).status == 206
    assert copy.read_bytes() == CONTENT[5:10]
    assert (await curl("-z", "Fri, 01 Dec 2023 00:00:00 GMT", url)).status == 304
    assert (await curl("--compressed", "-o", str(copy), url)).status == 200
    assert copy.read_bytes() == CONTENT
    os.unlink(copy)
    assert (await curl("-R", "-o", str(copy), url)).status == 200
    assert int(copy.stat().st_mtime) == 1_700_000_000
    assert (await curl("-OJ", "--output-dir", str(tmp_path), url)).status == 200
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


async def test_over_tls_the_same_bytes_come(
    start_gateway: StartGateway, stored: Path, tmp_path: Path
) -> None:
    cert, key = self_signed_certificate(tmp_path)
    gateway = await start_gateway(downloads=True, tls_cert=cert, tls_key=key)
    url, copy = f"{gateway.url}/upload/a.bin", tmp_path / "copy"
    assert (await curl("-k", "-o", str(copy), url)).status == 200
    assert copy.read_bytes() == CONTENT
    assert (await curl("-k", "-r", "100-2000000", "-o", str(copy), url)).status == 206
    assert copy.read_bytes() == CONTENT[100:2000001]


# -- what was never published


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/upload/none", 404),
        ("/upload/folder", 404),
        ("/upload/link", 404),
        ("/upload/linked/file", 400),
        ("/upload/%2e%2e/.gateway/journal.db", 400),
        ("/upload/plugins/p.yaml", 403),
        ("/upload/fifo", 404),
    ],
)
async def test_what_was_never_uploaded_is_not_read(
    start_gateway: StartGateway, tmp_path: Path, target: str, status: int
) -> None:
    upload = tmp_path / "data" / "upload"
    (upload / "folder").mkdir(parents=True)
    (upload / "folder" / "file").write_text("x")
    (upload / "link").symlink_to("folder/file")
    (upload / "linked").symlink_to("folder")
    os.mkfifo(upload / "fifo")
    write_plugin(upload / "plugins", "name: c\nconfig: {}\n", "p.yaml")
    gateway = await start_gateway(downloads=True, plugins=[str(upload / "plugins")])
    assert (await fetch(gateway, target)).status == status


# -- who may


DECIDING = """
name: decide
event: APIGW.OnFileDownloading
script: |
  async def decide(event, handle):
      state["seen"] = dict(event)
      name = event["path"].rpartition("/")[2]
      if name == "secret":
          await handle.terminate(code=404, output="nothing here")
      if name == "fails":
          raise ValueError(name)
      if name == "out":
          event["path"] = "/upload/../.gateway/journal.db"
      if name == "other":
          event["path"] = "upload/a.bin"
          event["filename"] = "nice name.bin"
          event["cache_control"] = "public, max-age=60"
      if name == "junk":
          event["filename"] = 7
"""


async def test_a_token_is_asked_for(start_gateway: StartGateway, stored: Path) -> None:
    token = {"name": "me", "sha256": hashlib.sha256(b"T").hexdigest()}
    gateway = await start_gateway(
        downloads=True, auth="token", tokens=[f"{token['name']}:{token['sha256']}"]
    )
    assert (await fetch(gateway, "/upload/a.bin")).status == 401
    assert (await fetch(gateway, "/upload/none")).status == 401
    assert (await fetch(gateway, "/upload/a.bin", "X-Auth-Token: T")).body == CONTENT


async def test_handlers_decide_instead(
    start_gateway: StartGateway, stored: Path, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "p", DECIDING)
    gateway = await start_gateway(downloads=True, auth="token", plugins=[str(folder)])
    (stored.parent / "secret").write_text("x")
    assert (await fetch(gateway, "/upload/a.bin")).body == CONTENT
    refused = await fetch(gateway, "/upload/secret")
    assert (refused.status, refused.body) == (404, b"nothing here")
    for name in ("fails", "out", "junk"):
        failed = await fetch(gateway, f"/upload/{name}")
        assert (failed.status, failed.json["error"]) == (503, "hook_failed")
    other = await fetch(gateway, "/upload/other")
    assert other.body == CONTENT
    assert 'filename="nice name.bin"' in other.headers["Content-Disposition"]
    assert other.headers["Cache-Control"] == "public, max-age=60"


async def test_handlers_that_keep_the_authorization_only_add_to_it(
    start_gateway: StartGateway, stored: Path, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "p", DECIDING.replace("script:", "authorization: keep\nscript:"))
    gateway = await start_gateway(downloads=True, auth="token", plugins=[str(folder)])
    assert (await fetch(gateway, "/upload/a.bin")).status == 401


# -- in the middle


class Slow:
    """A client with a small buffer that reads only when it is told to."""

    def __init__(self, gateway: Gateway | GatewayProcess) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 10)
        self.socket.setblocking(False)
        self.address = gateway.address

    async def ask(self, target: str) -> bytes:
        """Send a request and read the first piece of the answer."""
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, self.address)
        await loop.sock_sendall(self.socket, request_head("GET", target, "Connection: close"))
        return await loop.sock_recv(self.socket, 4096)

    async def some(self) -> bytes:
        """Read more than any headers have."""
        loop, pieces = asyncio.get_running_loop(), b""
        while len(pieces) < 8192:
            piece = await loop.sock_recv(self.socket, 4096)
            assert piece, "the connection ended at its beginning"
            pieces += piece
        return pieces

    async def rest(self) -> bytes:
        loop, pieces = asyncio.get_running_loop(), []
        async with asyncio.timeout(60):
            while piece := await loop.sock_recv(self.socket, MIB):
                pieces.append(piece)
        self.socket.close()
        return b"".join(pieces)


LARGE = 24 * MIB
"""More than all buffers between two sockets of one machine."""


async def test_a_file_that_is_replaced_meanwhile_comes_whole_and_old(
    start_gateway: StartGateway, stored: Path
) -> None:
    old = os.urandom(MIB) * (LARGE // MIB)
    stored.write_bytes(old)
    gateway = await start_gateway(downloads=True)
    client = Slow(gateway)
    begun = await client.ask("/upload/a.bin")
    assert (await put(gateway, "/upload/a.bin", b"new")).status == 200
    assert (begun + await client.rest()).partition(b"\r\n\r\n")[2] == old
    assert (await fetch(gateway, "/upload/a.bin")).body == b"new"


async def test_a_file_that_is_cut_short_meanwhile_breaks_the_connection(
    start_gateway: StartGateway, stored: Path
) -> None:
    os.truncate(stored, LARGE)
    gateway = await start_gateway(downloads=True)
    client = Slow(gateway)
    begun = await client.ask("/upload/a.bin")
    os.truncate(stored, LARGE // 2)
    received = len(begun)
    with contextlib.suppress(ConnectionError):
        received += len(await client.rest())
    assert received < LARGE
    await until_closed(gateway)
    assert await metric(gateway, 'gateway_downloads_total{outcome="broken"}') == "1.0"


async def test_who_takes_nothing_for_too_long_is_cut_off(
    start_gateway: StartGateway, stored: Path
) -> None:
    os.truncate(stored, LARGE)
    gateway = await start_gateway(downloads=True, idle_timeout="0.3")
    client = Slow(gateway)
    begun = await client.ask("/upload/a.bin")
    await until_closed(gateway)
    with contextlib.suppress(ConnectionError):
        assert len(begun + await client.rest()) < LARGE
    assert await metric(gateway, 'gateway_downloads_total{outcome="broken"}') == "1.0"


async def test_who_leaves_in_the_middle_leaves_nothing_open(
    start_gateway: StartGateway, stored: Path
) -> None:
    os.truncate(stored, LARGE)
    gateway = await start_gateway(downloads=True)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        client = Slow(gateway)
        await client.ask("/upload/a.bin")
        client.socket.close()
    await until_closed(gateway)
    async with asyncio.timeout(30):
        while len(os.listdir("/proc/self/fd")) > before:
            await asyncio.sleep(0.01)  # the loop closes its sockets a little later


async def test_many_at_once_all_get_their_bytes(start_gateway: StartGateway, stored: Path) -> None:
    gateway = await start_gateway(downloads=True)
    answers = await asyncio.gather(*(fetch(gateway, "/upload/a.bin") for _ in range(60)))
    assert all(answer.body == CONTENT for answer in answers)


async def test_of_a_huge_file_its_end_comes_at_once(start_gateway: StartGateway, stored: Path) -> None:
    with stored.open("r+b") as file:
        file.seek(6 << 30)
        file.write(b"the end")
    gateway = await start_gateway(downloads=True)
    answer = await fetch(gateway, "/upload/a.bin", "Range: bytes=-7")
    assert answer.body == b"the end"
    assert answer.headers["Content-Range"] == f"bytes {6 << 30}-{(6 << 30) + 6}/{(6 << 30) + 7}"


async def test_a_client_that_has_its_share_of_downloads_leaves_the_rest_to_others(
    start_gateway: StartGateway, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.endpoints.downloads.handler.MAX_OPEN_FILES", 2)
    os.truncate(stored, LARGE)
    gateway = await start_gateway(downloads=True)
    client = Slow(gateway)
    await client.ask("/upload/a.bin")
    refused = await fetch(gateway, "/upload/a.bin")
    assert (refused.status, refused.json["error"]) == (429, "too_many_requests")
    assert "downloads" in refused.json["message"]
    other = await fetch(gateway, "/upload/a.bin", "Range: bytes=0-0", source="127.0.0.2")
    assert other.status == 206
    await client.rest()
    await until_closed(gateway)
    assert (await fetch(gateway, "/upload/a.bin", "Range: bytes=0-0")).status == 206


@pytest.mark.slow
async def test_two_hundred_at_once_stay_within_bounds(start_gateway: StartGateway, stored: Path) -> None:
    gateway = await start_gateway(downloads=True)

    async def digest() -> bytes:
        """Read in small pieces: so many bodies at once are more than a small machine can hold."""
        reader, writer = await asyncio.open_connection(*gateway.address)
        writer.write(request_head("GET", "/upload/a.bin", "Connection: close"))
        await reader.readuntil(b"\r\n\r\n")
        found = hashlib.sha256()
        while piece := await reader.read(64 << 10):
            found.update(piece)
        writer.close()
        return found.digest()

    async with asyncio.timeout(100):
        digests = await asyncio.gather(*(digest() for _ in range(200)))
    assert set(digests) == {hashlib.sha256(CONTENT).digest()}
