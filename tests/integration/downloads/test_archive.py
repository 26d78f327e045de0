"""Archives over real sockets: exact names and bytes, or a connection that breaks."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import zipfile
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.domain.path_template import UploadPathTemplate
from gateway.endpoints.downloads.archive import _members_below
from gateway.endpoints.folders import requested_folder
from gateway.server.app import Gateway
from gateway.storage.local.storage import LIST_PAGE_SIZE
from tests.conftest import StartGateway, StartProcess
from tests.integration.downloads.test_downloads import LARGE, MIB, Slow, metric, until_closed
from tests.support.harness import (
    curl,
    failing_open,
    get,
    raw_connection,
    request_head,
    write_plugin,
)
from tests.support.incoming import head_of

FILES = {
    "upload/reports/a.txt": b"text " * 50_000,
    "upload/reports/b.bin": os.urandom(2 * MIB + 5),
    "upload/reports/empty": b"",
    "upload/reports/2026/05/Grüße 😀.csv": b"x;y\n",
    "upload/reports-2025/c": b"other folder",
    "upload/d": b"d",
}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        os.utime(file, (1_700_000_000, 1_700_000_000))
    return tmp_path / "data" / "upload"


async def fetched(gateway: Gateway, target: str, into: Path) -> tuple[int, str]:
    """Fetch with curl; return the status and its exit code."""
    done = await curl("-o", str(into), f"{gateway.url}{target}")
    return done.status, str(done.code)


def content_of(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


async def test_a_folder_comes_as_a_zip_with_exact_names_and_bytes(
    start_gateway: StartGateway, stored: Path, tmp_path: Path
) -> None:
    gateway = await start_gateway(downloads=True)
    target = tmp_path / "reports.zip"
    done = await curl("-OJ", "--output-dir", str(tmp_path), f"{gateway.url}/upload/reports/?format=zip")
    assert done.status == 200
    below = "upload/reports/"
    assert content_of(target) == {k.removeprefix(below): v for k, v in FILES.items() if below in k}
    with zipfile.ZipFile(target) as archive:
        assert archive.getinfo("a.txt").date_time == (2023, 11, 14, 22, 13, 20)
        assert archive.getinfo("a.txt").compress_size < len(FILES["upload/reports/a.txt"]) // 10
    await until_closed(gateway)
    assert await metric(gateway, 'gateway_downloads_total{outcome="sent"}') == "1.0"


async def test_everything_comes_as_a_zip(
    start_gateway: StartGateway, stored: Path, tmp_path: Path
) -> None:
    gateway = await start_gateway(downloads=True)
    target = tmp_path / "all.zip"
    assert await fetched(gateway, "/upload/?format=zip", target) == (200, "0")
    assert content_of(target) == {name.removeprefix("upload/"): data for name, data in FILES.items()}
    tested = subprocess.run(["unzip", "-t", str(target)], capture_output=True, text=True, check=False)
    assert "No errors detected" in tested.stdout


async def test_some_files_come_in_the_order_asked(
    start_gateway: StartGateway, stored: Path, tmp_path: Path
) -> None:
    gateway = await start_gateway(downloads=True)
    target = tmp_path / "some.zip"
    asked = "/upload/?format=zip&file=reports/b.bin&file=d"
    assert await fetched(gateway, asked, target) == (200, "0")
    with zipfile.ZipFile(target) as archive:
        assert archive.namelist() == ["reports/b.bin", "d"]
        assert archive.read("reports/b.bin") == FILES["upload/reports/b.bin"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("file=none", 404),
        ("file=reports", 404),
        ("file=../.gateway/journal.db", 400),
        ("file=/etc/passwd", 400),
        ("file=", 400),
        ("file=d&file=d", 400),
        ("&".join(f"file={number}" for number in range(501)), 400),
    ],
)
async def test_what_cannot_be_had_is_refused_before_the_first_byte(
    start_gateway: StartGateway, stored: Path, query: str, status: int
) -> None:
    gateway = await start_gateway(downloads=True)
    assert (await get(gateway, f"/upload/?format=zip&{query}")).status == status


async def test_an_empty_folder_is_none_and_links_are_not_followed(
    start_gateway: StartGateway, stored: Path
) -> None:
    gateway = await start_gateway(downloads=True)
    (stored / "links").mkdir()
    (stored / "links" / "out").symlink_to("/etc")
    (stored / "linked").symlink_to("reports")
    for folder, status in [("links", 404), ("linked", 400), ("none", 404), ("d", 404), ("%2e%2e", 400)]:
        assert (await get(gateway, f"/upload/{folder}/?format=zip")).status == status


async def test_off_is_off_and_head_has_no_body(start_gateway: StartGateway, stored: Path) -> None:
    assert (await get(await start_gateway(), "/upload/reports/?format=zip")).status == 400
    gateway = await start_gateway(downloads=True, directory=str(stored.parent.parent / "data2"))
    (gateway.resources.settings.directory / "upload").mkdir()
    (gateway.resources.settings.directory / "upload" / "a").write_bytes(b"a")
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("HEAD", "/upload/?format=zip"))
        answer = await connection.answer(head=True)
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/zip")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        await connection.send(request_head("GET", "/-/health"))
        assert (await connection.answer()).status == 200


@pytest.mark.parametrize(
    ("template", "raw_path", "path"),
    [
        ("/upload/{filepath}", "/upload/", "/upload/"),
        ("/upload/{filepath}", "/upload/a/b%20c/", "/upload/a/b c/"),
        ("/files/{tenant}/{filepath}", "/files/t/a/", "/upload/a/"),
        ("/in/{filename}", "/in/", "/upload/"),
        ("/in/{anything}", "/in/", None),
        ("/upload/{filepath}", "/other/", None),
        ("/upload/{filepath}", "/upload/a", None),
    ],
)
def test_a_folder_is_where_its_files_would_be(template: str, raw_path: str, path: str | None) -> None:
    parsed = UploadPathTemplate.parse(template)
    found = requested_folder(parsed, head_of({}, "GET", f"{raw_path}?format=zip"))
    assert (found and found.path) == path


DECIDING = """
name: decide
event: APIGW.OnFileDownloading
script: |
  async def decide(event, handle):
      if event["archive"] and event["path"] == "/upload/reports/":
          event["allow_archive"] = event["files"] is None
          event["filename"] = "all reports.zip"
"""


async def test_handlers_must_allow_an_archive(
    start_gateway: StartGateway, stored: Path, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "p", DECIDING)
    gateway = await start_gateway(downloads=True, plugins=[str(folder)])
    assert (await get(gateway, "/upload/d")).body == b"d"
    assert (await get(gateway, "/upload/?format=zip")).status == 403
    assert (await get(gateway, "/upload/reports/?format=zip&file=a.txt")).status == 403
    answer = await get(gateway, "/upload/reports/?format=zip")
    assert answer.status == 200
    assert 'filename="all reports.zip"' in answer.headers["Content-Disposition"]


async def test_a_token_is_asked_for(start_gateway: StartGateway, stored: Path) -> None:
    gateway = await start_gateway(downloads=True, auth="token")
    assert (await get(gateway, "/upload/reports/?format=zip")).status == 401


# -- in the middle


async def test_a_file_that_is_cut_short_breaks_the_archive(
    start_gateway: StartGateway, stored: Path, tmp_path: Path
) -> None:
    os.truncate(stored / "reports" / "b.bin", LARGE)
    gateway = await start_gateway(downloads=True)
    client = Slow(gateway)
    begun = await client.ask("/upload/reports/?format=zip&file=b.bin")
    begun += await client.some()  # the file is open by now
    os.truncate(stored / "reports" / "b.bin", LARGE // 2)
    try:
        received = begun + await client.rest()
    except ConnectionError:
        received = begun
    assert not received.endswith(b"0\r\n\r\n")
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(received.partition(b"\r\n\r\n")[2]))
    await until_closed(gateway)
    assert await metric(gateway, 'gateway_downloads_total{outcome="broken"}') == "1.0"


async def test_a_folder_that_cannot_be_read_breaks_the_archive(
    start_gateway: StartGateway, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(LIST_PAGE_SIZE):
        (stored / "reports" / f"3-{number}").touch()  # so many that the archive has begun by then
    (stored / "reports" / "later").mkdir()
    (stored / "reports" / "later" / "file").touch()
    gateway = await start_gateway(downloads=True)
    monkeypatch.setattr("os.open", failing_open("later"))
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("GET", "/upload/reports/?format=zip"))
        received = await connection.closed()
    assert received.startswith(b"HTTP/1.1 200 ")
    assert not received.endswith(b"0\r\n\r\n"), "an archive without a folder looks whole"
    await until_closed(gateway)
    assert await metric(gateway, 'gateway_downloads_total{outcome="broken"}') == "1.0"


async def test_who_leaves_in_the_middle_leaves_nothing_open(
    start_gateway: StartGateway, stored: Path
) -> None:
    os.truncate(stored / "reports" / "b.bin", LARGE)
    gateway = await start_gateway(downloads=True)
    (await get(gateway, "/upload/reports/?format=zip&file=a.txt"))
    await until_closed(gateway)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(4):
        client = Slow(gateway)
        await client.ask("/upload/?format=zip")
        client.socket.close()
    await until_closed(gateway)
    async with asyncio.timeout(30):
        while len(os.listdir("/proc/self/fd")) > before:
            await asyncio.sleep(0.01)  # the loop closes its sockets a little later


async def test_what_is_removed_meanwhile_is_left_out(
    start_gateway: StartGateway, stored: Path, tmp_path: Path
) -> None:
    os.truncate(stored / "reports" / "b.bin", LARGE)
    gateway = await start_gateway(downloads=True)
    client = Slow(gateway)
    begun = await client.ask("/upload/reports/?format=zip")
    os.unlink(stored / "reports" / "empty")
    received = begun + await client.rest()
    assert received.endswith(b"0\r\n\r\n")
    assert b"empty" not in received[-1000:]


@pytest.mark.slow
async def test_more_than_four_gigabytes_and_many_files_make_a_good_zip64(
    start_gateway: StartGateway, stored: Path, tmp_path: Path
) -> None:
    huge = stored / "huge" / "sparse"
    huge.parent.mkdir()
    with huge.open("wb") as file:
        file.truncate((4 << 30) + 12345)
        file.seek(4 << 30)
        file.write(b"behind four gigabytes")
    (stored / "huge" / "z").write_bytes(b"last")
    gateway = await start_gateway(downloads=True)
    url = f"{gateway.url}/upload/huge/?format=zip"
    # Nothing of it is kept: the end of the archive is enough for its directory.
    count = 0
    tail = b""
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "--max-time", "100", url, stdout=asyncio.subprocess.PIPE, limit=1 << 22
    )
    assert process.stdout is not None
    while piece := await process.stdout.read(1 << 20):
        count += len(piece)
        tail = (tail + piece)[-4096:]
    assert await process.wait() == 0
    assert count > 4 << 30
    directory = zipfile.ZipFile(_Sparse(count, tail))
    found = {info.filename: info.file_size for info in directory.infolist()}
    assert found == {"sparse": (4 << 30) + 12345, "z": 4}
    assert directory.read("z") == b"last"


class _Sparse(io.RawIOBase):
    """A file of which only the end is known."""

    def __init__(self, size: int, tail: bytes) -> None:
        self._size, self._tail, self._at = size, tail, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        start = self._at - (self._size - len(self._tail))
        assert start >= 0
        end = len(self._tail) if size < 0 else start + size
        self._at += len(self._tail[start:end])
        return self._tail[start:end]


async def test_a_client_that_has_its_share_of_archives_leaves_the_rest_to_others(
    start_gateway: StartGateway, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.endpoints.downloads.archive.MAX_ARCHIVES", 2)
    os.truncate(stored / "reports" / "b.bin", LARGE)
    gateway = await start_gateway(downloads=True)
    client = Slow(gateway)
    await client.ask("/upload/reports/?format=zip")
    refused = await get(gateway, "/upload/?format=zip")
    assert (refused.status, refused.json["error"]) == (429, "too_many_requests")
    assert (await get(gateway, "/upload/d")).status == 200
    async with raw_connection(gateway, "127.0.0.2") as other:
        await other.send(request_head("GET", "/upload/?format=zip&file=d"))
        assert b" 200 " in await other.line()
    client.socket.close()
    await until_closed(gateway)
    assert await fetched(gateway, "/upload/?format=zip&file=d", tmp_path / "d.zip") == (200, "0")


@pytest.mark.slow
async def test_an_archive_that_is_on_its_way_does_not_keep_the_gateway_from_stopping(
    gateway_process: StartProcess, stored: Path
) -> None:
    os.truncate(stored / "reports" / "b.bin", LARGE)
    running = gateway_process("--downloads", "--auth", "none", "--grace", "0.2")
    client = Slow(running)
    begun = await client.ask("/upload/?format=zip")
    assert b"200" in begun.partition(b"\r\n")[0]
    assert await asyncio.to_thread(running.terminate) == 0
    try:
        received = begun + await client.rest()
    except ConnectionError:
        received = begun
    assert not received.endswith(b"0\r\n\r\n"), "half an archive looks whole"


async def test_the_list_of_an_archive_that_broke_off_leaves_no_folder_open(
    start_gateway: StartGateway, stored: Path
) -> None:
    for number in range(LIST_PAGE_SIZE + 1):
        (stored / "reports" / f"n{number}").touch()
    gateway = await start_gateway(downloads=True)

    def held() -> list[str]:
        links = (Path(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd"))
        return [
            str(one)
            for link in links
            if link.exists() and (one := link.readlink()).is_relative_to(stored)
        ]

    async with AsyncExitStack() as until:
        members = await _members_below(gateway.resources.parts.storage, "/upload/", until)
        await anext(members)
        assert held()
    assert held() == []  # although somebody, such as a traceback, still holds the archive
    del members
