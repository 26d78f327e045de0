"""Uploads into folders that are not there yet: how many are made, and who waits for it."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.support.harness import files_below, leftovers, put, raw_connection, request_head
from tests.support.recorders import write_handler

pytestmark = pytest.mark.both_paths

DEEP = "/".join("abcdefghijklmnopq")


async def test_a_path_that_needs_too_many_new_folders_is_refused_before_its_body(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        lines = ("Content-Length: 1000", "Expect: 100-continue")
        await connection.send(request_head("PUT", f"/upload/{DEEP}/f", *lines))
        text = await connection.closed()
    assert text.startswith(b"HTTP/1.1 400 ")
    assert b'"bad_path"' in text
    assert b"needs 18 new folders, at most 16" in text
    small = await put(gateway, f"/upload/{DEEP}/f", b"1")
    assert (small.status, small.json["error"]) == (400, "bad_path")
    assert not (tmp_path / "data/upload").exists()
    assert leftovers(tmp_path / "data") == []

    (tmp_path / "data/upload/a").mkdir(parents=True)
    assert (await put(gateway, f"/upload/{DEEP}/f", b"1")).status == 201


async def test_a_handler_that_rewrites_into_too_many_new_folders_has_failed(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    script = f"event['path'] = '/{DEEP}/f'"
    gateway = await start_gateway(plugins=write_handler(tmp_path / "plugins", script), max_new_folders=3)
    for body in (b"1", b"x" * 100_000):
        answer = await put(gateway, "/upload/f", body)
        assert (answer.status, answer.json["error"]) == (503, "hook_failed")
    assert not (tmp_path / "data/a").exists()


async def test_uploads_of_others_do_not_wait_for_new_folders(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start_gateway()
    assert (await put(gateway, "/upload/first", b"1")).status == 201
    making, goes_on, mkdir = threading.Event(), threading.Event(), os.mkdir

    def slow(name: Any, *arguments: Any, **named: Any) -> None:
        if name == "slow":
            making.set()
            assert goes_on.wait(60)
        mkdir(name, *arguments, **named)

    monkeypatch.setattr(os, "mkdir", slow)
    waiting = [asyncio.create_task(put(gateway, f"/upload/slow/{n}", b"1")) for n in range(10)]
    try:
        assert await asyncio.to_thread(making.wait, 60)
        for number in range(10):
            assert (await put(gateway, f"/upload/flat{number}", b"1")).status == 201
        assert not any(task.done() for task in waiting)
    finally:
        goes_on.set()
    assert {answer.status for answer in await asyncio.gather(*waiting)} == {201}
    assert len(files_below(tmp_path / "data/upload")) == 21


async def test_a_folder_that_was_removed_meanwhile_is_made_anew(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    assert (await put(gateway, "/upload/a/b/one", b"1")).status == 201
    (tmp_path / "data/upload/a/b/one").unlink()
    (tmp_path / "data/upload/a/b").rmdir()
    assert (await put(gateway, "/upload/a/b/two", b"2")).status == 201
    assert files_below(tmp_path / "data/upload") == {"a/b/two": b"2"}
