"""`files.move`: one name or the other, with all that the file has; events find it at its new path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.cli.check import check
from gateway.domain import failpoints
from gateway.errors import Refusal, Superseded
from gateway.plugins.scripting.temporary_files import TemporaryFiles
from gateway.server.app import Gateway
from tests.conftest import StartGateway, StartProcess
from tests.support.harness import files_below, get, put, wait_settled, wait_until, write_plugin
from tests.support.recorders import write_handler
from tests.support.s3.servers import SeaweedFS

Files = Any


@pytest.fixture(params=["directory", "temporary", pytest.param("s3", marks=pytest.mark.slow)])
async def files(
    request: pytest.FixtureRequest,
    start_gateway: StartGateway,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Files:
    """Each thing that scripts may know as `files`."""
    if request.param == "temporary":
        return TemporaryFiles()
    storage = "file"
    if request.param == "s3":
        server: SeaweedFS = request.getfixturevalue("s3")
        await server.make(bucket)
        server.set_environment(monkeypatch)
        storage = f"s3://{bucket}"
    return (await start_gateway(auth="none", storage=storage)).resources.scripts.files


async def refusal(files: Files, *arguments: Any, **options: Any) -> str:
    with pytest.raises(Refusal) as refused:
        await files.move(*arguments, **options)
    return refused.value.code


async def test_a_moved_file_keeps_what_it_has_and_loses_its_old_name(files: Files) -> None:
    await files.save("/a/b.txt", b"text", mime="text/x-own", metadata={"title": "Grüße"})
    moved = await files.move("/a/b.txt", "c/d.bin")
    assert (moved.path, moved.bytes, moved.mime) == ("/c/d.bin", 4, "text/x-own")
    assert dict(moved.metadata) == {"title": "Grüße"}
    assert [stat.path async for stat in files.list("/")] == ["/c/d.bin"]
    async with files.open_path("/c/d.bin", moved.etag) as file:
        assert await file.read() == b"text"
    assert (await files.move("/c/d.bin", "/c/d.bin")).path == "/c/d.bin"


async def test_what_has_the_name_already_is_treated_as_the_caller_says(files: Files) -> None:
    for name in ("1", "2", "3"):
        await files.save(f"/{name}.txt", name.encode())
    await files.save("/taken.txt", b"taken")
    assert await refusal(files, "/1.txt", "/taken.txt", on_conflict="reject") == "conflict"
    assert (await files.move("/1.txt", "/free.txt", on_conflict="reject")).path == "/free.txt"
    assert (await files.move("/2.txt", "/taken.txt", on_conflict="rename")).path == "/taken-1.txt"
    assert (await files.move("/3.txt", "/taken.txt")).bytes == 1
    names = [stat.path async for stat in files.list("/")]
    assert names == ["/free.txt", "/taken-1.txt", "/taken.txt"]


async def test_another_version_and_a_bad_path_are_refused(files: Files) -> None:
    etag = (await files.save("/a", b"1")) and (await files.stat("/a")).etag
    await files.save("/a", b"newer")
    with pytest.raises(Superseded):
        await files.move("/a", "/b", etag=etag)
    assert await refusal(files, "/none", "/b") == "not_found"
    for path in ("/../b", "/.gateway/b", "/b/", "/b\x00"):
        assert await refusal(files, "/a", path) == "bad_path"
    assert [stat.path async for stat in files.list("/")] == ["/a"]


MOVER = """
    state["runs"] = state.get("runs", 0) + 1
    moved = await files.move(event, "/done/" + event["path"].rpartition("/")[2])
    async with files.open(event) as file:
        content = await file.read()
    if state["runs"] == 1:
        raise RuntimeError("after the move")
    await handle.result({"path": moved.path, "content": content.decode()})
"""


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.slow)])
async def gateway(
    request: pytest.FixtureRequest,
    start_gateway: StartGateway,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Gateway:
    """A gateway on each storage, whose handler moves what was uploaded and fails once."""
    storage = "file"
    if request.param == "s3":
        server: SeaweedFS = request.getfixturevalue("s3")
        await server.make(bucket)
        server.set_environment(monkeypatch)
        storage = f"s3://{bucket}"
    retry = "retry: {attempts: 3, backoff: 0.01}\n"
    plugins = write_handler(tmp_path / "p", MOVER, event="APIGW.OnFileUploaded", more=retry)
    return await start_gateway(auth="none", plugins=plugins, storage=storage)


async def test_the_event_of_a_moved_upload_finds_it_again(gateway: Gateway) -> None:
    answer = await put(gateway, "/upload/a.txt", b"text")
    await wait_settled(gateway)
    status = (await get(gateway, f"/-/uploads/{answer.json['upload_id']}")).json
    assert status["handlers"][0]["attempt"] == 2
    assert status["result"] == {"path": "/done/a.txt", "content": "text"}
    assert (status["path"], status["state"]) == ("/done/a.txt", "stored")
    files = gateway.resources.scripts.files
    assert [stat.path async for stat in files.list("/")] == ["/done/a.txt"]
    with pytest.raises(Superseded):
        async with files.open({"upload_id": answer.json["upload_id"] + "x"}):
            pass


async def test_a_move_to_a_free_name_that_broke_off_is_completed_by_the_next_attempt(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = 'await files.move(event, "/done/a.txt", on_conflict="rename")'
    retry = "retry: {attempts: 3, backoff: 0.01}\n"
    plugins = write_handler(tmp_path / "p", body, event="APIGW.OnFileUploaded", more=retry)
    gateway = await start_gateway(auth="none", plugins=plugins)
    files = gateway.resources.scripts.files
    await files.save("/done/a.txt", b"taken")
    broken: list[str] = []

    def break_off(name: str) -> None:
        if name == "after file moved" and not broken:
            broken.append(name)
            raise ConnectionError(name)

    monkeypatch.setattr(failpoints, "listeners", [break_off])
    answer = await put(gateway, "/upload/a.txt", b"text")
    await wait_settled(gateway)
    status = (await get(gateway, f"/-/uploads/{answer.json['upload_id']}")).json
    assert (broken, status["handlers"][0]["state"]) == (["after file moved"], "done")
    assert (status["path"], status["state"]) == ("/done/a-1.txt", "stored")
    assert [stat.path async for stat in files.list("/")] == ["/done/a-1.txt", "/done/a.txt"]


async def test_a_move_that_a_crash_interrupts_is_completed_by_the_next_attempt(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    body = """
        await files.move(event, "/done/a.bin")
        await records("moved").put("a", {"attempt": event["attempt"]})
    """
    (folder,) = write_handler(tmp_path / "p", body, event="APIGW.OnFileUploaded")
    flags = ("--plugins", folder, "--records", "file")
    dying = gateway_process(*flags, die_at="after file moved")
    assert (await put(dying, "/upload/a.bin", b"bytes")).status == 201
    assert dying.wait() == -9
    stored = {path: text for path, text in files_below(dying.directory).items() if path[0] != "."}
    assert stored == {"done/a.bin": b"bytes"}  # one of both names, never none or both
    alive = gateway_process(*flags)
    await wait_settled(alive)
    await wait_until(lambda: (alive.directory / "done/a.bin").exists())
    stored = {path: text for path, text in files_below(alive.directory).items() if path[0] != "."}
    assert stored == {"done/a.bin": b"bytes"}
    assert "dead" not in alive.log()


def test_a_route_for_moves_is_checked_with_files_of_its_test(tmp_path: Path) -> None:
    text = """
upstreams: []
proxy: {path: /quarantine, authorization: {auth: none}}
spec: [{method: POST}]
request_script: |
  await files.move(request.body.decode(), "/quarantine/a.bin")
tests:
- name: moves
  files: {/upload/a.bin: bytes}
  request: {method: POST, body: /upload/a.bin}
  expect: {status: 204, files: {/upload/a.bin: null, /quarantine/a.bin: bytes}}
"""
    assert check([write_plugin(tmp_path / "p", text)]) == 0


@pytest.mark.slow
async def test_in_a_bucket_a_move_that_broke_off_is_completed_by_the_same_call(
    s3_storage: str, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = (await start_gateway(auth="none", storage=s3_storage)).resources.scripts.files
    await files.save("/a", b"bytes")

    def break_off(name: str) -> None:
        if name == "after object copied":
            raise ConnectionError(name)

    with monkeypatch.context() as broken:
        broken.setattr(failpoints, "listeners", [break_off])
        with pytest.raises(ConnectionError):
            await files.move("/a", "/b", on_conflict="reject")
    assert [stat.path async for stat in files.list("/")] == ["/a", "/b"]
    assert (await files.move("/a", "/b", on_conflict="reject")).path == "/b"
    assert [stat.path async for stat in files.list("/")] == ["/b"]
