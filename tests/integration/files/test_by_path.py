"""`files` by path: from scripts, on their loops, with the promise of every upload."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.commit.writer import PendingWrite, StorageWriter
from gateway.domain.model import Upload
from gateway.errors import Refusal, Superseded
from gateway.plugins import Plugins
from gateway.plugins.scripting.namespace import Services
from gateway.plugins.scripting.temporary_files import TemporaryFiles
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import (
    failing_open,
    files_below,
    get,
    leftovers,
    put,
    wait_settled,
    write_plugin,
)
from tests.support.s3.servers import SeaweedFS

Files = Any


@pytest.fixture(params=["directory", "temporary"])
async def files(request: pytest.FixtureRequest, start_gateway: StartGateway) -> Files:
    """Each thing that scripts may know as `files`."""
    if request.param == "temporary":
        return TemporaryFiles()
    return (await start_gateway(auth="none")).resources.scripts.files


async def pieces() -> AsyncIterator[bytes]:
    for number in range(3):
        yield bytes([number]) * 1_500_000


async def test_what_is_saved_can_be_read_described_listed_and_removed(
    files: Files, tmp_path: Path
) -> None:
    (tmp_path / "local").write_bytes(b"local")
    stored = await files.save("/made/a.txt", b"bytes", metadata={"title": "Grüße"})
    assert (stored.path, stored.bytes, stored.mime, stored.replaced) == (
        "/made/a.txt", 5, "text/plain", False,
    )  # fmt: skip
    await files.save("made/b", str(tmp_path / "local"), mime="image/x-mine")
    await files.save("/made/c", pieces())
    await files.save("/made/d", tmp_path / "local")
    found = [(stat.path, stat.bytes) async for stat in files.list("/made/")]
    assert found == [("/made/a.txt", 5), ("/made/b", 5), ("/made/c", 4_500_000), ("/made/d", 5)]
    assert [stat.path async for stat in files.list("/made/", after="/made/b")] == ["/made/c", "/made/d"]
    async with files.open_path("/made/c") as file:
        assert await file.read() == b"".join([piece async for piece in pieces()])
    await files.delete("/made/b")
    with pytest.raises(Refusal) as refused:
        await files.stat("/made/b")
    assert refused.value.code == "not_found"


async def test_an_existing_file_is_kept_with_on_conflict_reject(files: Files) -> None:
    first = await files.save("/a", b"1")
    assert (await files.save("/a", b"2")).replaced
    with pytest.raises(Refusal) as refused:
        await files.save("/a", b"3", on_conflict="reject")
    assert refused.value.code == "conflict"
    etag = (await files.stat("/a")).etag
    await files.save("/a", b"4 and more")
    with pytest.raises(Superseded):
        async with files.open_path("/a", etag):
            pass
    with pytest.raises(Superseded):
        await files.delete("/a", etag)
    assert first.path == "/a"


class Meanwhile:
    """A writer; when something is about to be stored, `happens` is called first."""

    def __init__(self, writer: StorageWriter, happens: Callable[[], object]) -> None:
        self._writer, self._happens = writer, happens
        self.store = writer.store

    async def begin(
        self,
        upload: Upload,
        algorithms: Sequence[str] = (),
        *,
        must_exist: bool = False,
        staged: bool = False,
    ) -> PendingWrite:
        self._happens()
        return await self._writer.begin(upload, algorithms, must_exist=must_exist, staged=staged)


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.slow)])
async def gateway(
    request: pytest.FixtureRequest,
    start_gateway: StartGateway,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Gateway:
    """A gateway on each storage."""
    if request.param == "file":
        return await start_gateway(auth="none")
    server: SeaweedFS = request.getfixturevalue("s3")
    await server.make(bucket)
    server.set_environment(monkeypatch)
    return await start_gateway(auth="none", storage=f"s3://{bucket}")


async def read(gateway: Gateway, path: str) -> bytes:
    async with gateway.resources.scripts.files.open_path(path) as file:
        return bytes(await file.read())


@pytest.mark.parametrize("size", [1000, 2_500_000])
async def test_a_file_that_grows_or_has_no_size_is_saved_and_delays_no_upload(
    gateway: Gateway, tmp_path: Path, size: int
) -> None:
    def grows() -> None:
        with growing.open("ab") as file:
            file.write(b"appended" * 1000)

    files, growing, content = gateway.resources.scripts.files, tmp_path / "growing", os.urandom(size)
    growing.write_bytes(content)
    files.saver.store_with_writer(Meanwhile(gateway.resources.parts.writer, grows))
    assert (await files.save("/growing", growing)).bytes == size
    assert await read(gateway, "/growing") == content

    files.saver.store_with_writer(gateway.resources.parts.writer)
    await files.save("/machine", "/proc/cpuinfo")
    assert (await read(gateway, "/machine")).startswith(b"processor")
    (tmp_path / "empty").touch()
    assert (await files.save("/empty", tmp_path / "empty")).bytes == 0
    assert (await put(gateway, "/upload/a", b"x")).status == 201


@pytest.mark.parametrize("fate", ["cut short", "replaced"])
async def test_a_file_that_loses_what_it_had_is_not_saved(
    gateway: Gateway, tmp_path: Path, fate: str
) -> None:
    def loses() -> None:
        if fate == "cut short":
            os.truncate(local, 1_500_000)
        else:
            (tmp_path / "other").write_bytes(b"y" * 3_000_000)
            os.replace(tmp_path / "other", local)

    local = tmp_path / "local"
    local.write_bytes(b"x" * 2_500_000)
    gateway.resources.scripts.files.saver.store_with_writer(
        Meanwhile(gateway.resources.parts.writer, loses)
    )
    with pytest.raises(OSError, match=fate):
        await gateway.resources.scripts.files.save("/a", local)
    with pytest.raises(Refusal, match="no such file"):
        await gateway.resources.scripts.files.stat("/a")


@pytest.mark.parametrize("path", ["/../a", "/.gateway/a", "/a//b", "/a\x00", ""])
async def test_a_bad_path_is_refused(files: Files, path: str) -> None:
    with pytest.raises(Refusal) as refused:
        await files.save(path, b"x")
    assert refused.value.code == "bad_path"


async def test_what_is_old_expires(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="none")
    files = gateway.resources.scripts.files
    for name in ("old", "new"):
        await files.save(f"/exports/{name}", b"x")
    long_ago = time.time() - 1000
    os.utime(gateway.resources.settings.directory / "exports" / "old", (long_ago, long_ago))
    assert await files.expire("/exports/", 900) == 1
    assert [stat.path async for stat in files.list("/exports/")] == ["/exports/new"]
    with pytest.raises(ValueError, match="takes a folder"):
        await files.expire("/", 1)


async def test_a_list_for_a_script_ends_only_where_every_folder_could_be_read(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = (await start_gateway(auth="none")).resources.scripts.files
    for path in ("/box/a", "/box/later/b"):
        await files.save(path, b"x")
    monkeypatch.setattr("os.open", failing_open("later"))
    with pytest.raises(OSError, match="Input/output"):
        [stat.path async for stat in files.list("/box/")]


async def test_a_source_that_fails_leaves_nothing(start_gateway: StartGateway) -> None:
    async def fails() -> AsyncIterator[bytes]:
        yield b"x" * 2_000_000
        raise LookupError("no more")

    gateway = await start_gateway(auth="none")
    with pytest.raises(LookupError):
        await gateway.resources.scripts.files.save("/a", fails())
    assert leftovers(gateway.resources.settings.directory) == []
    assert not (gateway.resources.settings.directory / "a").exists()
    assert gateway.resources.base.disk.space.reserved == 0


async def test_protected_places_are_not_written(start_gateway: StartGateway, tmp_path: Path) -> None:
    folder = write_plugin(tmp_path / "data" / "plugins", "name: c\nconfig: {}\n")
    gateway = await start_gateway(auth="none", plugins=[str(folder)])
    with pytest.raises(Refusal, match="belongs to the gateway"):
        await gateway.resources.scripts.files.save("/plugins/evil.yaml", b"x")


COPY = """
- name: copy
  event: APIGW.OnObjectCreated
  prefix: upload/
  script: |
    async def copy(event, handle):
        async with files.open(event) as file:
            content = await file.read()
        await files.save("/copies/" + event["key"], content, metadata={"of": event["upload_id"]})
"""
COPIES = (
    COPY
    + """\
- name: note
  event: APIGW.OnObjectCreated
  prefix: copies/
  script: |
    async def note(event, handle):
        stat = await files.stat(event["path"])
        assert stat.bytes == event["bytes"] and stat.etag == event["etag"]
        async with files.open(event) as file:
            assert await file.read() == b"content"
        await files.save("/notes/" + event["metadata"]["of"], json.dumps(event["principal"]).encode())
- name: uploaded
  event: APIGW.OnFileUploaded
  script: |
    async def uploaded(event, handle):
        await files.save("/uploaded/" + event["upload_id"], b"")
"""
)


async def test_what_a_script_saves_is_an_event_of_an_object_and_not_of_an_upload(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "p", COPIES)
    gateway = await start_gateway(auth="none", plugins=[str(folder)])
    upload_id = (await put(gateway, "/upload/a.txt", b"content")).json["upload_id"]
    async with asyncio.timeout(30):
        while not (gateway.resources.settings.directory / "notes" / upload_id).exists():
            await wait_settled(gateway)
    await wait_settled(gateway)
    found = files_below(gateway.resources.settings.directory)
    assert found["copies/upload/a.txt"] == b"content"
    assert found[f"notes/{upload_id}"] == b'{"name": "script", "kind": "script"}'
    assert [name for name in found if name.startswith("uploaded/")] == [f"uploaded/{upload_id}"]
    metrics = (await get(gateway, "/-/metrics")).body.decode()
    assert 'state="dead"' not in metrics


async def test_a_hundred_saves_at_once_from_a_script_all_arrive(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    many = """
name: many
event: APIGW.OnFileUploaded
script: |
  async def many(event, handle):
      await asyncio.gather(*(files.save(f"/many/{n}", str(n).encode()) for n in range(100)))
"""
    gateway: Gateway = await start_gateway(
        auth="none", plugins=[str(write_plugin(tmp_path / "p", many))]
    )
    await put(gateway, "/upload/a")
    await wait_settled(gateway)
    found = files_below(gateway.resources.settings.directory / "many")
    assert found == {str(number): str(number).encode() for number in range(100)}


def test_in_a_check_nothing_is_stored(tmp_path: Path) -> None:
    folder = write_plugin(tmp_path / "p", "name: c\nconfig: {}\n")
    plugins = Plugins((folder,), Services())
    plugins.load()
    assert isinstance(plugins.services.files, TemporaryFiles)
    plugins.close()
