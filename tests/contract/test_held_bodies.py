"""What every storage promises of held uploads: private until decided, then published or gone."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest

from gateway.domain.digests import named_digests
from gateway.domain.grant import Grant
from gateway.events.held_log import HeldUpload
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.contract.test_staged_bodies import content_of, staged
from tests.contract.test_staged_partials import whole
from tests.contract.test_storage_writer import LARGE, unfinished, visible
from tests.support.harness import get, put, wait_until
from tests.support.partials import StorePartials

SIZES = pytest.mark.parametrize("size", [0, 1000, LARGE])

HANDLERS = ["nobody"]
"""No plugin has this handler: what waits for it waits for an operator."""


async def hold(gateway: Gateway, body: bytes, **fields: Any) -> str:
    """Hold a body that came in one request; return the id of the upload."""
    upload, pending = await staged(gateway, body, **fields)
    await pending.stage()
    held = await pending.hold({}, HANDLERS)
    assert (held.upload_id, held.path, held.bytes) == (upload.id, upload.path, len(body))
    return upload.id


async def hold_partial(gateway: Gateway, body: bytes, **fields: Any) -> str:
    """Hold a body that came in several requests."""
    opened = await whole(StorePartials(gateway), body, **fields)
    computed = await opened.digest_of_whole(["sha256"]) if opened.can_digest("sha256") else {}
    held = await opened.hold(named_digests(computed), HANDLERS)
    await opened.close()
    assert held.bytes == len(body)
    return held.upload_id


WAYS = pytest.mark.parametrize("hold", [hold, hold_partial], ids=["at once", "in several requests"])


async def row_of(gateway: Gateway, upload_id: str) -> HeldUpload | None:
    rows = await asyncio.wrap_future(gateway.resources.journal.held_log.window("Z", ""))
    return next((row for row in rows if row.id == upload_id), None)


async def state_of(gateway: Gateway, upload_id: str) -> str:
    return str((await get(gateway, f"/-/uploads/{upload_id}")).json["state"])


async def held_bodies(gateway: Gateway) -> list[str]:
    """Return the uploads that have a private body."""
    backend = gateway.resources.parts.backend
    if backend is None:
        return os.listdir(gateway.resources.settings.state / "held")
    return [entry.name async for entry in backend.staging.private.list()]


async def is_clean(gateway: Gateway) -> bool:
    """Tell whether no private body is left, nor a partial upload, nor a row of a private object."""
    rows = gateway.resources.journal.private_objects
    left = [*await held_bodies(gateway), *await unfinished(gateway)]
    return [
        *left,
        *await StorePartials(gateway).left(),
        *(await asyncio.wrap_future(rows.unneeded(""))).rows,
    ] == []


async def ends_clean(gateway: Gateway) -> None:
    """Wait until nothing is left of what was held."""
    await wait_until(lambda: is_clean(gateway))


async def ends_as(gateway: Gateway, upload_id: str, state: str) -> None:
    """Wait for the state of an upload, which follows what is done with its file."""

    async def is_so() -> bool:
        return await state_of(gateway, upload_id) == state

    await wait_until(is_so)


@WAYS
@SIZES
async def test_a_held_upload_is_private_until_it_is_accepted(
    begin: StartGateway, hold: Any, size: int
) -> None:
    gateway = await begin(digest="sha256")
    body = os.urandom(size)
    upload_id = await hold(gateway, body, metadata={"a": "für dich"})
    row = await row_of(gateway, upload_id)
    assert row is not None
    assert (row.state, row.bytes) == ("undecided", size)
    decisions = gateway.resources.parts.held
    assert await content_of(gateway, decisions.store.private_file(row)) == body
    assert (await held_bodies(gateway), await visible(gateway)) == ([upload_id], {})
    assert await StorePartials(gateway).left() == []
    await decisions.release(upload_id, "somebody")
    await ends_as(gateway, upload_id, "stored")
    assert await visible(gateway) == {"/upload/x.bin": body}
    stat = await gateway.resources.parts.storage.stat("/upload/x.bin")
    assert stat.metadata["a"] == "für dich"
    assert list(stat.digests) == ["sha-256"]
    await ends_clean(gateway)
    assert await row_of(gateway, upload_id) is None


@WAYS
@pytest.mark.parametrize("size", [1000, LARGE])
async def test_a_rejected_upload_leaves_its_story(begin: StartGateway, hold: Any, size: int) -> None:
    gateway = await begin()
    upload_id = await hold(gateway, os.urandom(size))
    await gateway.resources.parts.held.reject(upload_id, "not wanted", "somebody")
    await ends_clean(gateway)
    assert await visible(gateway) == {}
    await ends_as(gateway, upload_id, "rejected")


@WAYS
@pytest.mark.parametrize(
    ("on_conflict", "ends"),
    [("reject", "rejected"), ("rename", "/upload/x-1.bin"), ("replace", "/upload/x.bin")],
)
async def test_conflicts_are_those_of_the_moment_of_publishing(
    begin: StartGateway, hold: Any, on_conflict: str, ends: str
) -> None:
    gateway = await begin()
    body = os.urandom(1000)
    upload_id = await hold(gateway, body, on_conflict=on_conflict)
    assert (await put(gateway, "/upload/x.bin", b"first")).status == 201
    await gateway.resources.parts.held.release(upload_id, "somebody")
    await ends_clean(gateway)
    kept = {} if on_conflict == "replace" else {"/upload/x.bin": b"first"}
    stored = {} if ends == "rejected" else {ends: body}
    assert await visible(gateway) == {**kept, **stored}
    await ends_as(gateway, upload_id, "stored" if stored else "rejected")


async def test_many_are_published_at_once(begin: StartGateway) -> None:
    gateway = await begin()
    bodies = {f"/upload/{number}": os.urandom(1000) for number in range(30)}
    for path, body in bodies.items():
        upload_id = await hold(gateway, body, path=path)
        await gateway.resources.parts.held.release(upload_id, "somebody")
    await ends_clean(gateway)
    assert await visible(gateway) == bodies


@WAYS
async def test_a_one_time_url_is_used_up_while_its_upload_is_held(
    begin: StartGateway, hold: Any
) -> None:
    gateway = await begin()
    marks = gateway.resources.base.state.one_time_marks
    for number, is_accepted in enumerate((True, False)):
        once, path = f"once-{number}", f"/upload/{number}"
        grant = Grant(method="PUT", path=path, expires=int(time.time()) + 60, once=once)
        upload_id = await hold(gateway, b"x", path=path, grant=grant)
        assert marks._consumer(once) == upload_id
        if is_accepted:
            await gateway.resources.parts.held.release(upload_id, "somebody")
        else:
            await gateway.resources.parts.held.reject(upload_id, "no", "somebody")
        await ends_clean(gateway)
        assert marks._consumer(once) == (upload_id if is_accepted else None)
