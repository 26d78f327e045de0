"""GETs of small files on the short path: the bytes of the ordinary path, to the same clients."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gateway.errors import Refusal
from gateway.server.app import Gateway, running_gateway
from gateway.server.resources import open_resources
from gateway.settings import load
from gateway.storage.local import cached_read
from gateway.storage.local.cached_read import CachedReader
from gateway.storage.local.storage import LocalStorage
from gateway.storage.local.xattrs import encode_xattr, write_digest, write_xattr
from gateway.storage.protocols import SinglePassRead, Stat
from tests.conftest import StartGateway
from tests.support.harness import RawConnection, get, put, raw_connection, request_head, write_plugin

FILES = {
    "small.txt": b"small",
    "empty": b"",
    "longest": b"x" * (64 << 10),
    "too-long": b"y" * ((64 << 10) + 1),
    "n\u00e4me \u65e5": b"named",
    "typed.bin": b"typed",
}
REQUESTS: Sequence[tuple[str, str, Sequence[str]]] = (
    ("GET", "/upload/small.txt", ()),
    ("GET", "/upload/empty", ()),
    ("GET", "/upload/longest", ()),
    ("GET", "/upload/too-long", ()),
    ("GET", "/upload/n%C3%A4me%20%E6%97%A5", ("Accept: */*", "User-Agent: test")),
    ("GET", "/upload/typed.bin", ("X-Auth-Token: whoever",)),
    ("GET", "/upload/small.txt", ("If-None-Match: *",)),
    ("GET", "/upload/small.txt", ('If-None-Match: "other"',)),
    ("GET", "/upload/small.txt", ("If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT",)),
    ("GET", "/upload/small.txt", ("If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT",)),
    ("GET", "/upload/small.txt", ('If-Match: "other"',)),
    ("GET", "/upload/small.txt", ("If-Match: *",)),
    ("GET", "/upload/small.txt", ("Range: bytes=1-2",)),
    ("GET", "/upload/small.txt", ("If-Range: x",)),
    ("GET", "/upload/small.txt", ("Origin: https://example.org",)),
    ("GET", "/upload/small.txt", ("Content-Length: 0",)),
    ("GET", "/upload/small.txt", ("Host: b",)),
    ("GET", "/upload/small.txt?archive=zip", ()),
    ("GET", "/upload/small.txt?X-Gateway-Signature=00", ()),
    ("HEAD", "/upload/small.txt", ()),
    ("GET", "/upload/none", ()),
    ("GET", "/upload/", ()),
    ("GET", "/upload/folder", ()),
    ("GET", "/upload/link", ()),
    ("GET", "/upload/../upload/small.txt", ()),
    ("GET", "/upload//small.txt", ()),
    ("GET", "/upload/small.txt/x", ()),
    ("DELETE", "/upload/small.txt", ()),
)

ALLOWING = """
name: allow
event: APIGW.OnFileDownloading
script: |
  async def allow(event, handle):
      pass
"""


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files, and readers that work on every file system and with young files."""
    monkeypatch.setattr(cached_read, "MIN_AGE", -1.0)
    monkeypatch.setattr(CachedReader, "where_supported", plain_reader)
    folder = tmp_path / "data" / "upload"
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    with (folder / "typed.bin").open("rb") as typed:
        write_xattr(typed.fileno(), encode_xattr("/typed.bin", "image/x-mine", {"a": "b"}) or b"")
        write_digest(typed.fileno(), "sha256", hashlib.sha256(b"typed").digest())
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("small.txt")
    return folder


def plain_reader(tree: object) -> CachedReader:
    return CachedReader(tree, in_memory=True, writes_access_time=False)  # type: ignore[arg-type]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of all reads on the loop that gave a result, and the codes of refusals."""
    results: list[str] = []
    really = LocalStorage.read_parts_now

    def read(
        self: LocalStorage, path: str, choose: Callable[[Stat], Sequence[tuple[int, int]]]
    ) -> SinglePassRead | None:
        try:
            found = really(self, path, choose)
        except Refusal as refusal:
            results.append(refusal.code)
            raise
        if found is not None:
            results.append(path)
        return found

    monkeypatch.setattr(LocalStorage, "read_parts_now", read)
    return results


async def ask(connection: RawConnection, method: str, target: str, lines: Sequence[str]) -> object:
    await connection.send(request_head(method, target, *lines))
    answer = await connection.answer(head=method == "HEAD")
    unlike = {"Date", "X-Request-Id"}
    headers = [(name, "" if name in unlike else value) for name, value in answer.headers.items()]
    return answer.status, headers, answer.body


async def answers(gateway: Gateway) -> Sequence[object]:
    found = []
    for method, target, lines in REQUESTS:
        async with raw_connection(gateway) as connection:
            found.append([await ask(connection, "GET", "/upload/small.txt", ())])
            found[-1].append(await ask(connection, method, target, lines))
    return found


async def counted(gateway: Gateway) -> list[str]:
    lines = (await get(gateway, "/-/metrics")).body.decode().splitlines()
    words, apart = ("downloads", "sent_bytes", "requests"), ("/-/", "_seconds")  # times differ
    return [
        line
        for line in lines
        if any(word in line for word in words) and not any(word in line for word in apart)
    ]


async def test_both_paths_send_the_same_bytes_and_count_the_same(
    stored: Path, at_once: list[str]
) -> None:
    results = []
    for short_path in (True, False):
        given = {"directory": str(stored.parent), "port": "0", "downloads": True}
        resources = await asyncio.to_thread(
            open_resources, load({**given, "short_path": short_path}, {})
        )
        async with running_gateway(resources) as gateway:
            first = await answers(gateway)
            assert await answers(gateway) == first
            results.append((first, await counted(gateway)))
        if short_path:
            small = {"/upload/" + name for name in FILES if name != "too-long"}
            assert set(at_once) == small | {"precondition_failed"}
            at_once.clear()
    assert results[0] == results[1]
    assert at_once == []


async def test_nothing_is_opened_before_the_request_is_authorized(
    start_gateway: StartGateway, stored: Path, at_once: list[str]
) -> None:
    token = "me:" + hashlib.sha256(b"T").hexdigest()
    gateway = await start_gateway(downloads=True, auth="token", tokens=[token])
    async with raw_connection(gateway) as connection:
        right = ("Authorization: Bearer T",)
        for lines, status in ((right, 200), (right, 200), ((), 401), (("X-Auth-Token: x",), 401)):
            answer = await ask(connection, "GET", "/upload/small.txt", lines)
            assert answer[0] == status  # type: ignore[index]
    assert at_once == ["/upload/small.txt"]


async def test_where_a_handler_decides_no_file_is_read_at_once(
    start_gateway: StartGateway, stored: Path, at_once: list[str], tmp_path: Path
) -> None:
    plugins = write_plugin(tmp_path / "plugins", ALLOWING)
    gateway = await start_gateway(downloads=True, plugins=[str(plugins)])
    for _ in range(3):
        assert (await get(gateway, "/upload/small.txt")).body == b"small"
    assert at_once == []


async def test_a_file_that_was_replaced_is_sent_in_its_new_version(
    start_gateway: StartGateway, stored: Path, at_once: list[str]
) -> None:
    gateway = await start_gateway(downloads=True)
    for content in (b"first", b"second", b"third"):
        await put(gateway, "/upload/replaced", content)
        for _ in range(3):
            assert (await get(gateway, "/upload/replaced")).body == content
    assert at_once == ["/upload/replaced"] * 6
    os.unlink(stored / "replaced")
    assert (await get(gateway, "/upload/replaced")).status == 404
