"""What every store of partial uploads promises: offsets that never fall, one commit, nothing left."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.commit.partials import OpenPartial, PartialBusy
from gateway.domain.model import UPLOADED, id_prefix
from gateway.domain.partial import MAX_PARTIALS_PER_CLIENT, DigestOfWhole
from gateway.errors import Refusal
from tests.conftest import StartGateway
from tests.support.harness import put
from tests.support.partials import StorePartials, partial_head
from tests.support.recorders import recording_events

LARGE = 20_000_000
"""More than two parts of an object, and not a multiple of their size."""

SIZES = pytest.mark.parametrize("size", [1, 1000, 200_000, LARGE])


@pytest.fixture
async def partials(begin: StartGateway) -> StorePartials:
    """A gateway on one of the storages, and its store."""
    return StorePartials(await begin())


async def receive(opened: OpenPartial, body: bytes, *, piece: int = 70_000) -> int:
    """Append a body as a request does; return the offset that is told."""
    await opened.begin(len(body))
    for start in range(0, len(body), piece):
        await opened.write(body[start : start + piece])
    return await opened.settle()


async def create(partials: StorePartials, body: bytes = b"", **fields: Any) -> str:
    """Create a partial upload with the first bytes of it, and let go of it; return its id."""
    opened = await partials.store.create(partial_head(**fields))
    if body:
        assert await receive(opened, body) == len(body)
    await opened.close()
    return opened.head.upload.id


@SIZES
async def test_what_came_in_several_requests_is_one_file(partials: StorePartials, size: int) -> None:
    body = os.urandom(size)
    upload_id = await create(partials, length=size)
    middle = size // 2
    for start, end in ((0, middle), (middle, size)):
        opened = await partials.store.open(upload_id)
        assert (opened.offset, opened.received, opened.length) == (start, start, size)
        assert await receive(opened, body[start:end]) == end
        await opened.close()
    assert await partials.visible() == {}
    opened = await partials.store.open(upload_id)
    stored = await opened.commit({})
    assert (stored.upload_id, stored.bytes, stored.replaced) == (upload_id, size, False)
    assert await partials.visible() == {"/upload/x.bin": body}
    assert await partials.left() == []


async def test_the_last_byte_is_that_of_all_that_came_or_is_not_told(partials: StorePartials) -> None:
    for body in (b"", b"a", b"ab"):
        opened = await partials.store.create(partial_head(length=None))
        await receive(opened, body)
        assert await opened.last_byte() in {body[-1:], None}
        await opened.remove()


async def test_a_file_of_no_bytes_is_stored(partials: StorePartials) -> None:
    opened = await partials.store.create(partial_head(length=0))
    assert (await opened.commit({})).bytes == 0
    assert await partials.visible() == {"/upload/x.bin": b""}
    assert await partials.left() == []


async def test_it_can_be_described_while_it_is_open_and_when_it_is_not(partials: StorePartials) -> None:
    before = time.time()
    opened = await partials.store.create(partial_head(length=10))
    upload_id = opened.head.upload.id
    status = await partials.status(upload_id)
    assert (status.head, status.offset, status.length) == (opened.head, 0, 10)
    await receive(opened, b"12345")
    assert (await partials.status(upload_id)).offset == 5
    await opened.close()
    status = await partials.status(upload_id)
    assert (status.offset, status.is_whole) == (5, False)
    assert before - 1 <= status.latest <= time.time() + 1


async def test_the_head_is_read_as_it_was_created(partials: StorePartials) -> None:
    head = partial_head(
        length=3, identity="who", metadata_text="filename eA==", metadata={"a": "ü"}, part_of_concat=True
    )
    opened = await partials.store.create(head)
    await opened.close()
    reopened = await partials.store.open(head.upload.id)
    assert reopened.head == head
    await reopened.close()


@pytest.mark.parametrize("upload_id", ["", "..", "x", "../x", "A" * 26 + "-0", "0" * 300])
async def test_what_is_not_there_is_not_found(partials: StorePartials, upload_id: str) -> None:
    assert await partials.store.status(upload_id) is None
    with pytest.raises(Refusal) as caught:
        await partials.store.open(upload_id)
    assert caught.value.code == "not_found"


async def test_it_is_open_once_at_a_time(partials: StorePartials) -> None:
    opened = await partials.store.create(partial_head(length=10))
    upload_id = opened.head.upload.id
    if partials.is_exclusive:
        with pytest.raises(PartialBusy):
            await partials.store.open(upload_id)
    await receive(opened, b"12345")
    await opened.close()
    await opened.close()
    again = await partials.store.open(upload_id)
    assert again.offset == 5
    await again.close()


async def test_bytes_that_came_without_being_settled_are_kept_or_asked_for_again(
    partials: StorePartials,
) -> None:
    body = os.urandom(200_000)
    upload_id = await create(partials, body[:1000], length=len(body))
    opened = await partials.store.open(upload_id)
    await opened.begin(None)
    await opened.write(body[1000:150_000])
    assert (opened.offset, opened.received) == (1000, 150_000)
    await opened.close()
    opened = await partials.store.open(upload_id)
    assert 1000 <= opened.offset <= 150_000
    await receive(opened, body[opened.offset :])
    await opened.commit({})
    assert await partials.visible() == {"/upload/x.bin": body}


@pytest.mark.parametrize("size", [5, LARGE])
async def test_what_is_reverted_leaves_no_byte(partials: StorePartials, size: int) -> None:
    upload_id = await create(partials, b"first", length=5 + size)
    opened = await partials.store.open(upload_id)
    await opened.begin(size)
    await opened.write(b"z" * size)
    await opened.revert()
    assert (opened.offset, opened.received) == (5, 5)
    assert await receive(opened, b"y" * size) == 5 + size
    await opened.commit({})
    assert await partials.visible() == {"/upload/x.bin": b"first" + b"y" * size}


@pytest.mark.parametrize("size", [5, LARGE])
async def test_a_body_that_is_to_be_verified_counts_wholly_or_not_at_all(
    partials: StorePartials, size: int
) -> None:
    upload_id, body = await create(partials, b"first", length=5 + size), os.urandom(size)
    opened = await partials.store.open(upload_id)
    opened.expect_body_digests(["sha1", "crc32"])
    await opened.begin(size, all_or_nothing=True)
    await opened.write(body[:-1])
    await opened.close()
    opened = await partials.store.open(upload_id)
    assert (opened.offset, opened.received) == (5, 5)
    opened.expect_body_digests(["sha1"])
    await opened.begin(size, all_or_nothing=True)
    await opened.write(body)
    await opened.finish()
    assert opened.digest("sha1") == hashlib.sha1(body, usedforsecurity=False).digest()
    assert (await partials.status(upload_id)).offset == 5
    assert await opened.settle() == 5 + size
    await opened.close()
    assert (await partials.status(upload_id)).offset == 5 + size
    opened = await partials.store.open(upload_id)
    await opened.commit({})
    assert await partials.visible() == {"/upload/x.bin": b"first" + body}


async def test_an_ordinary_body_may_follow_a_verified_one(partials: StorePartials) -> None:
    opened = await partials.store.create(partial_head(length=6))
    for piece, checked in ((b"ab", True), (b"cd", False), (b"ef", True)):
        opened.expect_body_digests(["md5"] if checked else [])
        await opened.begin(2, all_or_nothing=checked)
        await opened.write(piece)
        await opened.settle()
    await opened.commit({})
    assert await partials.visible() == {"/upload/x.bin": b"abcdef"}


async def test_a_length_that_is_told_later_stays(partials: StorePartials) -> None:
    upload_id = await create(partials, b"12345", length=None)
    assert (await partials.status(upload_id)).length is None
    opened = await partials.store.open(upload_id)
    assert [opened.length] == [None]
    await opened.set_length(10)
    assert opened.length == 10
    await opened.close()
    status = await partials.status(upload_id)
    assert (status.offset, status.length) == (5, 10)
    opened = await partials.store.open(upload_id)
    assert opened.length == 10
    await receive(opened, b"67890")
    assert (await opened.commit({})).bytes == 10


@SIZES
async def test_the_digest_of_the_setting_is_known_of_what_came_in_several_requests(
    begin: StartGateway, size: int
) -> None:
    partials, body = StorePartials(await begin(digest="sha256")), os.urandom(size)
    upload_id = await create(partials, body[: size // 2], length=size)
    opened = await partials.store.open(upload_id)
    await receive(opened, body[size // 2 :])
    computed = await opened.digest_of_whole(["sha256"])
    assert computed == {"sha256": hashlib.sha256(body).digest()}
    named = {"sha-256": base64.b64encode(computed["sha256"]).decode()}
    assert (await opened.commit(named)).digests == named
    stat = await partials.gateway.resources.parts.storage.stat("/upload/x.bin")
    if partials.gateway.resources.parts.backend is None:
        assert stat.digests == named


async def test_a_commit_emits_one_event_and_keeps_type_metadata_and_digests(
    begin: StartGateway, tmp_path: Path
) -> None:
    with recording_events() as recorder:
        plugins = recorder.write_handler(tmp_path / "plugins", UPLOADED, "hears")
        partials = StorePartials(await begin(plugins=plugins))
        digest = base64.b64encode(hashlib.sha256(b"abc").digest()).decode()
        head = partial_head(length=3, content_type="image/x-odd", metadata={"color": "blue"})
        opened = await partials.store.create(head)
        await receive(opened, b"abc")
        stored = await opened.commit({"sha-256": digest})
        _, event = await recorder.next_event()
    assert (stored.mime, stored.digests["sha-256"]) == ("image/x-odd", digest)
    assert (event["upload_id"], event["bytes"]) == (head.upload.id, 3)
    stat = await partials.gateway.resources.parts.storage.stat("/upload/x.bin")
    assert stat.mime == "image/x-odd"
    assert dict(stat.metadata) | {"color": "blue"} == stat.metadata


async def test_a_refused_commit_keeps_every_byte(partials: StorePartials) -> None:
    upload_id, body = await create(partials, length=LARGE, on_conflict="reject"), os.urandom(LARGE)
    opened = await partials.store.open(upload_id)
    await receive(opened, body)
    assert (await put(partials.gateway, "/upload/x.bin", b"first")).status == 201
    with pytest.raises(Refusal) as caught:
        await opened.commit({})
    assert caught.value.code == "conflict"
    assert (opened.offset, opened.received) == (LARGE, LARGE)
    await opened.close()
    assert await partials.visible() == {"/upload/x.bin": b"first"}
    assert (await partials.status(upload_id)).offset == LARGE
    await partials.gateway.resources.parts.storage.delete("/upload/x.bin")
    opened = await partials.store.open(upload_id)
    assert (await opened.commit({})).bytes == LARGE
    assert await partials.visible() == {"/upload/x.bin": body}
    assert await partials.left() == []


async def test_what_is_removed_is_gone(partials: StorePartials) -> None:
    upload_id = await create(partials, b"12345", length=10, identity="mine")
    opened = await partials.store.open(upload_id)
    await opened.begin(5)
    await opened.write(b"678")
    await opened.remove()
    await opened.close()
    assert await partials.store.status(upload_id) is None
    assert await partials.store.resolve("mine") is None
    with pytest.raises(Refusal):
        await partials.store.open(upload_id)
    assert await partials.left() == []
    assert await partials.visible() == {}


async def test_all_are_listed(partials: StorePartials) -> None:
    created = {
        await create(partials, b"1", length=2, path=f"/upload/{n}", client=f"c{n}") for n in range(120)
    }
    listed = {status.head.upload.id: status.offset async for status in partials.store.list()}
    assert listed == dict.fromkeys(created, 1)


async def test_an_identity_does_not_pass_to_a_delayed_older_request(partials: StorePartials) -> None:
    delayed = partial_head(length=2, identity="mine")
    older_id = id_prefix(time.time() - 1) + delayed.upload.id[10:]
    delayed = replace(delayed, upload=replace(delayed.upload, id=older_id))
    upload_id = await create(partials, b"1", length=2, identity="mine")
    with pytest.raises(Refusal) as caught:
        await partials.store.create(delayed)
    assert caught.value.code == "locked"
    assert await partials.store.resolve("mine") == upload_id
    assert (await partials.status(upload_id)).offset == 1
    opened = await partials.store.open(upload_id)
    await opened.remove()
    assert await partials.left() == []


async def test_an_identity_passes_to_the_latest_and_survives_completion(partials: StorePartials) -> None:
    assert await partials.store.resolve("mine") is None
    first = await create(partials, b"1", length=2, identity="mine")
    assert await partials.store.resolve("mine") == first
    second = await create(partials, b"1", length=2, identity="mine")
    assert await partials.store.resolve("mine") == second
    opened = await partials.store.open(second)
    await receive(opened, b"2")
    await opened.commit({})
    assert await partials.store.resolve("mine") == second
    assert await partials.store.status(second) is None
    assert await partials.store.resolve("other") is None


@pytest.mark.parametrize("known", [True, False], ids=["declared", "deferred"])
@pytest.mark.parametrize("size", [0, 1, 70_000, LARGE])
async def test_parts_are_appended_in_order(partials: StorePartials, size: int, known: bool) -> None:
    bodies = [os.urandom(size), b"middle", os.urandom(size)]
    ids = [
        await create(partials, body, length=len(body) if known else None, part_of_concat=True)
        for body in bodies
    ]
    whole = await partials.store.create(partial_head(length=2 * size + 6))
    parts = [await partials.store.open(upload_id) for upload_id in ids]
    for part in parts:
        await part.set_length(part.offset)
    await whole.append_parts(parts)
    assert whole.offset == 2 * size + 6
    await whole.commit({})
    for part in parts:
        await part.remove()
    assert await partials.visible() == {"/upload/x.bin": b"".join(bodies)}
    assert await partials.left() == []


@pytest.mark.parametrize("reopened", [False, True])
async def test_the_digest_is_of_all_bytes(partials: StorePartials, reopened: bool) -> None:
    body = os.urandom(LARGE)
    whole = tuple(DigestOfWhole(name, b"", "Repr-Digest") for name in ("sha256", "md5"))
    opened = await partials.store.create(partial_head(length=LARGE, digests=whole))
    for start in range(0, LARGE, 7_000_000):
        await receive(opened, body[start : start + 7_000_000])
        if reopened:
            await opened.close()
            opened = await partials.store.open(opened.head.upload.id)
    found = await opened.digest_of_whole(["sha256", "md5"])
    assert found == {
        "sha256": hashlib.sha256(body).digest(),
        "md5": hashlib.md5(body, usedforsecurity=False).digest(),
    }
    await opened.close()


async def test_a_digest_is_right_where_bytes_were_reverted(partials: StorePartials) -> None:
    whole = (DigestOfWhole("sha256", b"", "Repr-Digest"),)
    opened = await partials.store.create(partial_head(length=4, digests=whole))
    await receive(opened, b"ab")
    await opened.begin(2, all_or_nothing=True)
    await opened.write(b"xx")
    await opened.finish()
    await opened.revert()
    await receive(opened, b"cd")
    assert await opened.digest_of_whole(["sha256"]) == {"sha256": hashlib.sha256(b"abcd").digest()}
    await opened.close()


async def test_an_expired_one_is_removed_once_that_is_certain(
    partials: StorePartials, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id = await create(partials, b"1", length=2, identity="mine")
    kept = await create(partials, b"1", length=2, path="/upload/y")
    opened = await partials.store.open(kept)
    now = time.time() + 2 * 24 * 3600
    assert await partials.expire(time.time(), monkeypatch) == []
    first = await partials.expire(now, monkeypatch, sweeps=1)
    assert first == ([] if partials.confirms_expiry else [upload_id])
    assert first + await partials.expire(now, monkeypatch) == [upload_id]
    assert await partials.store.status(upload_id) is None
    assert await partials.store.resolve("mine") is None
    await receive(opened, b"2")  # it was open, and goes on
    await opened.commit({})
    assert await partials.left() == []


async def test_targets_and_space_are_checked_before_anything_is_created(partials: StorePartials) -> None:
    assert (await put(partials.gateway, "/upload/x.bin", b"first")).status == 201
    for fields, code in (
        ({"on_conflict": "reject"}, "conflict"),
        ({"must_be_new": True}, "already_exists"),
        ({"path": "/upload/none", "must_exist": True}, "precondition_failed"),
        ({"path": "/upload/../x"}, "bad_path"),
    ):
        with pytest.raises(Refusal) as caught:
            await partials.store.create(partial_head(length=5, **fields))
        assert caught.value.code == code
    assert await partials.left() == []


async def test_a_client_has_a_bounded_number_of_them(partials: StorePartials) -> None:
    ids = [await create(partials, length=1) for _ in range(MAX_PARTIALS_PER_CLIENT)]
    with pytest.raises(Refusal) as caught:
        await create(partials, length=1)
    assert caught.value.code == "too_many_requests"
    await create(partials, length=1, client="another")
    opened = await partials.store.open(ids[0])
    await opened.remove()
    await create(partials, length=1)


async def test_a_cancelled_request_keeps_what_came(partials: StorePartials) -> None:
    body = os.urandom(3_000_000)
    opened = await partials.store.create(partial_head(length=len(body)))
    await opened.begin(len(body))
    writing = asyncio.create_task(opened.write(body[:2_000_000]))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.wait({writing})
    offset = await opened.settle()
    assert offset in (0, 2_000_000)
    await receive(opened, body[offset:])
    await opened.commit({})
    assert await partials.visible() == {"/upload/x.bin": body}
