"""Uploads that cannot be stored now: a client that resumes by itself is cut, others are told when."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.commit.local_open_partial import LocalOpenPartial
from gateway.errors import Refusal
from tests.conftest import StartGateway
from tests.support.harness import files_below, raw_connection, request_head
from tests.support.resumable import PART_TYPE, append, request, target_of

BODY = b"all of the file"
WHOLE, OPEN = "Upload-Complete: ?1", "Upload-Complete: ?0"
INTEROP = "Upload-Draft-Interop-Version: 6"

Fail = Callable[[str], None]


@pytest.fixture
def fail_commit(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Let the next commit fail with an error of the table."""
    commit, codes = LocalOpenPartial.commit, list[str]()

    async def failing(self: LocalOpenPartial, *arguments: Any) -> Any:
        if codes:
            raise Refusal(codes.pop(), "not now")
        return await commit(self, *arguments)

    monkeypatch.setattr(LocalOpenPartial, "commit", failing)
    return codes.append


@pytest.mark.parametrize("code", ["storage_unavailable", "journal_unavailable", "no_space"])
async def test_a_phone_is_cut_where_its_upload_can_go_on_later(
    start_gateway: StartGateway, tmp_path: Path, fail_commit: Fail, code: str
) -> None:
    gateway = await start_gateway()
    fail_commit(code)
    async with raw_connection(gateway) as phone:
        lines = (WHOLE, INTEROP, f"Content-Length: {len(BODY)}")
        await phone.send(request_head("PUT", "/upload/x", *lines))
        resource = target_of((await phone.head()).headers["Location"])
        await phone.send(BODY)
        assert await phone.closed() == b""
    described = await request(gateway, "HEAD", resource, INTEROP)
    assert (described.offset, described.complete) == (len(BODY), "?0")
    fail_commit(code)
    async with raw_connection(gateway) as phone:
        offset = (f"Upload-Offset: {len(BODY)}", "Content-Length: 0")
        await phone.send(request_head("PATCH", resource, PART_TYPE, WHOLE, INTEROP, *offset))
        assert await phone.closed() == b""
    assert files_below(tmp_path / "data/upload") == {}
    assert (await append(gateway, resource, len(BODY), b"", INTEROP, end=True)).status == 201
    assert files_below(tmp_path / "data/upload") == {"x": BODY}


async def test_a_phone_that_sends_nothing_any_more_is_cut_and_goes_on(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(idle_timeout="0.3")
    async with raw_connection(gateway) as phone:
        lines = (WHOLE, INTEROP, f"Content-Length: {len(BODY)}")
        await phone.send(request_head("PUT", "/upload/x", *lines))
        resource = target_of((await phone.head()).headers["Location"])
        await phone.send(BODY[:4])
        assert await phone.closed() == b""
    assert (await append(gateway, resource, 4, BODY[4:], INTEROP, end=True)).status == 201
    assert files_below(tmp_path / "data/upload") == {"x": BODY}


@pytest.mark.parametrize("code", ["storage_unavailable", "no_space"])
async def test_another_client_is_told_when_to_come_back(
    start_gateway: StartGateway, tmp_path: Path, fail_commit: Fail, code: str
) -> None:
    gateway = await start_gateway()
    fail_commit(code)
    first = await request(gateway, "POST", "/upload/x", WHOLE, body=BODY)
    assert first.status in {503, 507}
    assert (first.offset, first.complete) == (len(BODY), "?0")
    assert first.final.json["error"] == code
    assert ("Retry-After" in first.final.headers) == (first.status == 503)
    fail_commit(code)
    second = await append(gateway, first.resource, len(BODY), b"", end=True)
    assert (second.status, second.offset, second.complete) == (first.status, len(BODY), "?0")
    last = await append(gateway, first.resource, len(BODY), b"", end=True)
    assert (last.status, last.complete) == (201, "?1")
    assert files_below(tmp_path / "data/upload") == {"x": BODY}


@pytest.mark.parametrize("lines", [(), (INTEROP,), ("Upload-Draft-Interop-Version: 10",)])
async def test_an_upload_whose_name_is_taken_meanwhile_gets_its_last_answer(
    start_gateway: StartGateway, tmp_path: Path, lines: tuple[str, ...]
) -> None:
    gateway = await start_gateway(on_conflict="reject")
    first = await request(gateway, "POST", "/upload/x", OPEN, *lines, body=BODY[:4])
    assert (await request(gateway, "PUT", "/upload/x", body=b"first")).status == 201
    last = await append(gateway, first.resource, 4, BODY[4:], *lines, end=True)
    assert (last.status, last.complete) == (409, "?1")
    assert last.final.json["error"] == "conflict"
    assert (await request(gateway, "HEAD", first.resource)).status == 404
    assert files_below(tmp_path / "data/upload") == {"x": b"first"}
    assert files_below(tmp_path / "data/.gateway/partials") == {}


async def test_a_range_that_cannot_be_stored_now_is_sent_again_by_its_last_byte(
    start_gateway: StartGateway, tmp_path: Path, fail_commit: Fail
) -> None:
    gateway, size = await start_gateway(), len(BODY)
    fail_commit("storage_unavailable")
    whole = f"Content-Range: bytes 0-{size - 1}/{size}"
    first = await request(gateway, "PUT", "/upload/x", whole, body=BODY)
    assert (first.status, first.offset) == (503, size - 1)
    assert (await request(gateway, "HEAD", "/upload/x")).offset == size - 1
    line = f"Content-Range: bytes {size - 1}-{size - 1}/{size}"
    wrong = await request(gateway, "PUT", "/upload/x", line, body=b"?")
    assert wrong.status == 409
    assert files_below(tmp_path / "data/upload") == {}
    last = await request(gateway, "PUT", "/upload/x", line, body=BODY[-1:])
    assert last.status == 201
    assert files_below(tmp_path / "data/upload") == {"x": BODY}
