"""What every store promises of partial uploads that handlers read whole before they are visible."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from gateway.commit.partials import OpenPartial
from gateway.domain.partial import PARTIAL_TTL
from gateway.errors import Refusal
from tests.conftest import StartGateway
from tests.contract.test_partials import LARGE, SIZES, create, receive
from tests.contract.test_staged_bodies import content_of, private_bodies
from tests.support.harness import put
from tests.support.partials import StorePartials


@pytest.fixture
async def partials(begin: StartGateway) -> StorePartials:
    """A gateway on one of the storages, and its store."""
    return StorePartials(await begin())


async def whole(partials: StorePartials, body: bytes, **fields: Any) -> OpenPartial:
    """Create a partial upload, bring all bytes of it in two requests, and open it."""
    fields = {"length": len(body), "staged": True, **fields}
    upload_id = await create(partials, body[: len(body) // 2], **fields)
    opened = await partials.store.open(upload_id)
    await receive(opened, body[len(body) // 2 :])
    return opened


async def leaves_nothing(partials: StorePartials) -> None:
    """Check that no private body is left."""
    assert await partials.left() == []
    if not partials.confirms_expiry:  # in a bucket they lie beside the states
        assert await private_bodies(partials.gateway) == []


@SIZES
@pytest.mark.parametrize("known", [True, False], ids=["declared", "deferred"])
async def test_a_whole_partial_upload_is_read_by_handlers_and_published_as_they_leave_it(
    partials: StorePartials, size: int, known: bool
) -> None:
    body = os.urandom(size)
    opened = await whole(partials, body, length=size if known else None, metadata={"a": "1"})
    if not known:
        await opened.set_length(size)
    private = await opened.stage()
    assert private == await opened.stage()
    assert await content_of(partials.gateway, private) == body
    assert await partials.visible() == {}
    upload = opened.head.upload
    upload.path, upload.metadata = "/upload/other.bin", {"b": "für dich"}
    stored = await opened.commit({})
    assert (stored.path, stored.bytes, stored.replaced) == ("/upload/other.bin", size, False)
    assert await partials.visible() == {"/upload/other.bin": body}
    stat = await partials.gateway.resources.parts.storage.stat("/upload/other.bin")
    assert stat.metadata["b"] == "für dich"
    await leaves_nothing(partials)


@SIZES
async def test_one_that_is_staged_can_be_opened_again_as_it_was_created(
    partials: StorePartials, size: int
) -> None:
    body = os.urandom(size)
    opened = await whole(partials, body)
    await opened.stage()
    opened.head.upload.path = "/upload/other.bin"
    await opened.close()
    status = await partials.status(opened.head.upload.id)
    assert (status.is_whole, status.head.upload.path) == (True, "/upload/x.bin")
    opened = await partials.store.open(opened.head.upload.id)
    assert (opened.offset, opened.head.upload.path) == (size, "/upload/x.bin")
    private = await opened.stage()
    assert await content_of(partials.gateway, private) == body
    await opened.commit({})
    assert await partials.visible() == {"/upload/x.bin": body}
    await leaves_nothing(partials)


@SIZES
async def test_one_that_began_staged_may_be_committed_unread(partials: StorePartials, size: int) -> None:
    body = os.urandom(size)
    opened = await whole(partials, body)
    await opened.commit({})
    assert await partials.visible() == {"/upload/x.bin": body}
    await leaves_nothing(partials)


@SIZES
async def test_one_that_began_unstaged_is_read_or_has_to_begin_anew(
    partials: StorePartials, size: int
) -> None:
    body = os.urandom(size)
    opened = await whole(partials, body, staged=False)
    has_parts = size == LARGE and not partials.confirms_expiry
    if has_parts:
        with pytest.raises(Refusal, match="begin it anew") as caught:
            await opened.stage()
        assert caught.value.code == "superseded"
    else:
        assert await content_of(partials.gateway, await opened.stage()) == body
    assert await partials.visible() == {}
    assert await opened.remove()
    await leaves_nothing(partials)


@pytest.mark.parametrize("size", [1000, LARGE])
async def test_one_that_handlers_refuse_leaves_nothing(partials: StorePartials, size: int) -> None:
    opened = await whole(partials, os.urandom(size))
    await opened.stage()
    assert await opened.remove()
    assert await partials.visible() == {}
    await leaves_nothing(partials)


@pytest.mark.parametrize("size", [1000, LARGE])
async def test_one_that_is_refused_at_its_commit_stays_whole(partials: StorePartials, size: int) -> None:
    body = os.urandom(size)
    opened = await whole(partials, body, on_conflict="reject")
    await opened.stage()
    assert (await put(partials.gateway, "/upload/x.bin", b"first")).status == 201
    with pytest.raises(Refusal) as caught:
        await opened.commit({})
    assert caught.value.code == "conflict"
    assert await partials.visible() == {"/upload/x.bin": b"first"}
    opened.head.upload.on_conflict = "rename"
    assert (await opened.commit({})).path == "/upload/x-1.bin"
    assert await partials.visible() == {"/upload/x.bin": b"first", "/upload/x-1.bin": body}
    await leaves_nothing(partials)


async def test_one_that_expires_after_it_was_staged_leaves_nothing(
    partials: StorePartials, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = await whole(partials, os.urandom(LARGE))
    await opened.stage()
    await opened.close()
    later = time.time() + PARTIAL_TTL + 3600
    assert await partials.expire(later, monkeypatch) == [opened.head.upload.id]
    await leaves_nothing(partials)
