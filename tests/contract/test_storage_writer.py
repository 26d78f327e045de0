"""What every storage promises to whoever stores: the directory's, and the bucket's on two servers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.model import OBJECT_CREATED, UPLOADED
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import get, handlers_done, put, raw_connection, request_head
from tests.support.recorders import recording_events, write_handler

LARGE = 20_000_000
"""Three parts of a multipart upload, the last one smaller."""


async def visible(gateway: Gateway) -> dict[str, bytes]:
    """Return what can be read, by path."""
    storage, found = gateway.resources.parts.storage, {}
    paths = [stat.path async for stat in storage.list("/upload/")]
    for path in paths:
        async with storage.open(path) as opened:
            found[path] = b"".join([bytes(piece) async for piece in opened])
    return found


async def unfinished(gateway: Gateway) -> list[str]:
    """Return what lies about of uploads that did not end well."""
    if gateway.resources.parts.backend is None:
        return list(gateway.resources.base.disk.incoming.upload_ids())
    return [
        key async for key, _, _ in gateway.resources.parts.backend.objects.list_multiparts("a prefix/")
    ]


@pytest.mark.parametrize("size", [0, 1000, 200_000, LARGE])
@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
async def test_a_body_is_stored_whole_and_then_replaced(
    begin: StartGateway, size: int, chunked: bool
) -> None:
    gateway = await begin()
    for status in (201, 200):
        body = os.urandom(size)
        answer = await _send(gateway, "/upload/a/x.bin", body, chunked=chunked)
        assert (answer.status, answer.json["bytes"]) == (status, size)
        assert await visible(gateway) == {"/upload/a/x.bin": body}
    assert await unfinished(gateway) == []


async def test_names_keep_every_letter(begin: StartGateway) -> None:
    gateway = await begin()
    target = "/upload/h%C3%A9%20llo+1%2541%20&=%23/%C3%BC~'(x)[y].txt"
    assert (await put(gateway, target, b"odd")).status == 201
    assert await visible(gateway) == {"/upload/hé llo+1%41 &=#/ü~'(x)[y].txt": b"odd"}


@pytest.mark.parametrize("size", [200_000, LARGE])
async def test_nothing_is_visible_before_all_of_it_is_there(begin: StartGateway, size: int) -> None:
    gateway = await begin()
    body = os.urandom(size)
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", "/upload/x", f"Content-Length: {size}") + body[:-1])
        assert await visible(gateway) == {}
        await connection.send(body[-1:])
        assert (await connection.answer()).status == 201
    assert await visible(gateway) == {"/upload/x": body}


@pytest.mark.parametrize("size", [200_000, LARGE])
async def test_a_client_that_goes_away_leaves_nothing(begin: StartGateway, size: int) -> None:
    gateway = await begin()
    async with raw_connection(gateway) as connection:
        await connection.send(
            request_head("PUT", "/upload/x", f"Content-Length: {size}") + os.urandom(size - 1)
        )
        connection.reset()
    while len(gateway.endpoints.inflight):
        await asyncio.sleep(0.01)  # it ends by itself
    assert await visible(gateway) == {}
    assert await unfinished(gateway) == []


@pytest.mark.parametrize("size", [1000, LARGE])
async def test_a_wrong_digest_leaves_nothing(begin: StartGateway, size: int) -> None:
    gateway = await begin()
    right = base64.b64encode(hashlib.sha256(b"x" * size).digest()).decode()
    line = f"Content-Digest: sha-256=:{right}:"
    refused = await put(gateway, "/upload/x", b"y" * size, line)
    assert (refused.status, refused.json["error"]) == (400, "digest_mismatch")
    assert await visible(gateway) == {}
    assert await unfinished(gateway) == []
    taken = await put(gateway, "/upload/x", b"x" * size, line)
    assert (taken.status, taken.json["digest"]) == (201, f"sha-256=:{right}:")


@pytest.mark.parametrize("size", [0, 1000, 200_000, LARGE])
@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
async def test_a_digest_is_computed_of_every_upload_and_known_wherever_it_is_asked_for(
    begin: StartGateway, size: int, chunked: bool, tmp_path: Path
) -> None:
    with recording_events() as recorder:
        events = recorder.write_handler(tmp_path / "plugins", UPLOADED, "watch")
        gateway = await begin(digest="sha256", downloads=True, plugins=events)
        body = os.urandom(size)
        right = base64.b64encode(hashlib.sha256(body).digest()).decode()
        answer = await _send(gateway, "/upload/x", body, chunked=chunked)
        assert answer.headers["Repr-Digest"] == answer.json["digest"] == f"sha-256=:{right}:"
        _, event = await recorder.next_event()
        assert event["digests"] == {"sha-256": right}
        status = await get(gateway, answer.headers["Location"])
        assert status.json["digests"] == {"sha-256": right}
        stat = await gateway.resources.parts.storage.stat("/upload/x")
        one_request = gateway.resources.parts.backend is None or size < 8 << 20
        keeps_metadata = "gateway-upload-id" in stat.metadata or gateway.resources.parts.backend is None
        assert stat.digests == ({"sha-256": right} if one_request and keeps_metadata else {})


async def test_a_digest_of_the_client_is_verified_and_kept_beside_the_one_of_the_setting(
    begin: StartGateway,
) -> None:
    gateway = await begin(digest="sha256")
    md5, sha = (base64.b64encode(h(b"x").digest()).decode() for h in (hashlib.md5, hashlib.sha256))
    for line in (f"Content-MD5: {md5}", f"Content-Digest: sha-256=:{sha}:"):
        answer = await put(gateway, "/upload/x", b"x", line)
        own = {f"md5=:{md5}:"} if "MD5" in line else set()
        assert {*answer.json["digest"].split(", ")} == own | {f"sha-256=:{sha}:"}
    assert (await put(gateway, "/upload/x", b"y", f"Content-MD5: {md5}")).status == 400


async def test_a_body_beyond_the_limit_leaves_nothing(begin: StartGateway) -> None:
    gateway = await begin(max_bytes=str(LARGE - 1))
    answer = await _send(gateway, "/upload/x", bytes(LARGE), chunked=True)
    assert (answer.status, answer.json["error"]) == (413, "too_large")
    assert await visible(gateway) == {}
    assert await unfinished(gateway) == []


async def test_a_silent_client_leaves_nothing(begin: StartGateway) -> None:
    gateway = await begin(idle_timeout="0.2")
    async with raw_connection(gateway) as connection:
        await connection.send(
            request_head("PUT", "/upload/x", f"Content-Length: {LARGE}") + bytes(9_000_000)
        )
        answer = await connection.answer()
    assert (answer.status, answer.json["error"]) == (408, "idle_timeout")
    assert await unfinished(gateway) == []


@pytest.mark.parametrize(
    ("values", "lines", "error"),
    [
        ({"on_conflict": "reject"}, (), "conflict"),
        ({}, ("If-None-Match: *",), "already_exists"),
    ],
)
@pytest.mark.parametrize("size", [1000, LARGE])
async def test_a_name_that_is_taken_is_refused_before_the_body(
    begin: StartGateway, values: dict[str, str], lines: tuple[str, ...], error: str, size: int
) -> None:
    gateway = await begin(**values)
    assert (await put(gateway, "/upload/x", b"first")).status == 201
    async with raw_connection(gateway) as connection:
        length = (f"Content-Length: {size}", "Expect: 100-continue")
        await connection.send(request_head("PUT", "/upload/x", *length, *lines))
        answer = await connection.answer()
    assert answer.json["error"] == error
    assert (await put(gateway, "/upload/x", b"small and here", *lines)).json["error"] == error
    assert await visible(gateway) == {"/upload/x": b"first"}


@pytest.mark.parametrize("size", [1000, 9_000_000])
async def test_of_uploads_that_may_not_replace_one_wins(begin: StartGateway, size: int) -> None:
    gateway = await begin(on_conflict="reject")
    bodies = [bytes([number]) * size for number in range(4)]
    answers = await asyncio.gather(*(put(gateway, "/upload/x", body) for body in bodies))
    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409]
    (winner,) = (body for body, answer in zip(bodies, answers, strict=True) if answer.status == 201)
    assert await visible(gateway) == {"/upload/x": winner}
    assert await unfinished(gateway) == []


@pytest.mark.parametrize("size", [1000, 9_000_000])
async def test_uploads_that_are_renamed_all_stay(begin: StartGateway, size: int) -> None:
    gateway = await begin(on_conflict="rename")
    bodies = [bytes([number]) * size for number in range(4)]
    answers = await asyncio.gather(*(put(gateway, "/upload/x.bin", body) for body in bodies))
    told = {answer.json["path"]: body for body, answer in zip(bodies, answers, strict=True)}
    assert set(told) == {"/upload/x.bin", *(f"/upload/x-{number}.bin" for number in (1, 2, 3))}
    assert await visible(gateway) == told


@pytest.mark.parametrize("size", [1000, LARGE])
async def test_type_and_metadata_stay_with_the_bytes(begin: StartGateway, size: int) -> None:
    gateway = await begin()
    lines = ("Content-Type: image/x-odd", "X-Amz-Meta-Color: blue", "X-Amz-Meta-Title: für dich")
    await put(gateway, "/upload/x", bytes(size), *lines)
    stat = await gateway.resources.parts.storage.stat("/upload/x")
    assert stat.mime == "image/x-odd"
    assert dict(stat.metadata) | {"color": "blue", "title": "für dich"} == stat.metadata


@pytest.mark.parametrize("size", [1000, LARGE])
async def test_handlers_are_told_and_can_read_the_very_file(
    begin: StartGateway, tmp_path: Path, size: int
) -> None:
    reading = """
        async with files.open(event) as reader:
            content = await reader.read()
        assert len(content) == event["bytes"] == %d
        await files.remove(event)
    """
    with recording_events() as recorder:
        folder = tmp_path / "plugins"
        plugins = recorder.write_handler(folder, OBJECT_CREATED, "hears")
        write_handler(folder, reading % size, name="reads", event=UPLOADED)
        gateway = await begin(plugins=plugins)
        answer = await put(gateway, "/upload/a/x", os.urandom(size))
        _, event = await recorder.next_event()
        await handlers_done(gateway, answer.json["upload_id"])
    on_disk = gateway.resources.settings.storage == "file"
    assert (event["key"], event["path"], event["bytes"]) == ("upload/a/x", "/upload/a/x", size)
    assert event["filepath"] == (str(tmp_path / "data/upload/a/x") if on_disk else None)
    assert event["etag"]
    assert await visible(gateway) == {}


async def test_a_handler_never_reads_a_newer_file(begin: StartGateway, tmp_path: Path) -> None:
    reading = """
        from gateway.errors import Superseded
        import os
        while not os.path.exists(%r):
            await asyncio.sleep(0.01)
        try:
            async with files.open(event) as reader:
                await reader.read()
        except Superseded:
            return
        assert event["headers"]["X-Tag"] == "new"
    """
    mark = tmp_path / "go"
    plugins = write_handler(tmp_path / "p", reading % str(mark), event=UPLOADED)
    gateway = await begin(plugins=plugins)
    old = await put(gateway, "/upload/x", b"old", "X-Tag: old")
    new = await put(gateway, "/upload/x", b"new", "X-Tag: new")
    mark.touch()
    for answer in (old, new):
        story: Any = await handlers_done(gateway, answer.json["upload_id"])
        assert [run["outcome"] for run in story["handlers"][0]["runs"]] == ["done"]


async def _send(gateway: Gateway, target: str, body: bytes, *, chunked: bool) -> Any:
    if not chunked:
        return await put(gateway, target, body)
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", target, "Transfer-Encoding: chunked"))
        for start in range(0, len(body), 1 << 20):
            piece = body[start : start + (1 << 20)]
            await connection.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        await connection.send(b"0\r\n\r\n")
        return await connection.answer()
