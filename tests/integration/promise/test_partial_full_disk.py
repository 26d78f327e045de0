"""Partial uploads on a full disk, a real one: what was told stays, and it goes on once there is room."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.commit import partial_expiry
from gateway.commit.partials import OpenPartial
from gateway.errors import Refusal
from tests.conftest import StartGateway
from tests.support.harness import files_below, leftovers
from tests.support.partials import StorePartials, partial_head
from tests.support.small_disk import MIB, fill, mounted_disk

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted_disk(tmp_path / "disk") as folder:
        yield folder


@pytest.fixture
async def partials(start_gateway: StartGateway, disk: Path) -> StorePartials:
    return StorePartials(await start_gateway(directory=str(disk), min_free_bytes=str(MIB)))


async def write_in_pieces(opened: OpenPartial, content: bytes) -> None:
    for start in range(0, len(content), MIB // 4):
        await opened.write(content[start : start + MIB // 4])
    await opened.finish()


async def test_a_length_that_does_not_fit_is_refused_at_the_creation(partials: StorePartials) -> None:
    with pytest.raises(Refusal) as caught:
        await partials.store.create(partial_head(length=30 * MIB))
    assert caught.value.code == "no_space"
    assert await partials.left() == []


async def test_a_disk_that_fills_meanwhile_costs_nothing_that_was_told(
    partials: StorePartials, disk: Path
) -> None:
    body = os.urandom(8 * MIB)
    opened = await partials.store.create(partial_head(length=len(body)))
    await opened.begin(None)
    await opened.write(body[: 3 * MIB])
    assert await opened.settle() == 3 * MIB
    filler = fill(disk, 2 * MIB)
    await opened.begin(None)
    with pytest.raises(Refusal) as caught:
        await write_in_pieces(opened, body[3 * MIB :])
    assert caught.value.code == "no_space"
    told = await opened.settle()
    assert 3 * MIB <= told < len(body)
    await opened.close()
    with pytest.raises(Refusal):
        await partials.store.create(partial_head(length=MIB))
    opened = await partials.store.open(opened.head.upload.id)
    assert opened.offset == told
    with pytest.raises(Refusal):
        await opened.begin(len(body) - told)
    filler.unlink()
    await opened.begin(len(body) - told)
    await opened.write(body[told:])
    await opened.settle()
    await opened.commit({})
    assert files_below(disk / "upload") == {"x.bin": body}
    assert leftovers(disk) == []


async def test_what_is_whole_is_committed_below_the_watermark_too(
    partials: StorePartials, disk: Path
) -> None:
    body = os.urandom(MIB)
    opened = await partials.store.create(partial_head(length=len(body)))
    await opened.begin(len(body))
    await opened.write(body)
    await opened.settle()
    filler = fill(disk, MIB // 2)
    await opened.begin(0)
    await opened.commit({})
    assert files_below(disk / "upload") == {"x.bin": body}
    filler.unlink()


async def test_below_the_watermark_idle_ones_make_room(
    partials: StorePartials, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial_expiry, "MIN_IDLE", 0.0)
    ids = []
    for number in range(4):
        opened = await partials.store.create(partial_head(length=9 * MIB))
        await opened.begin(2 * MIB)
        await opened.write(os.urandom(2 * MIB))
        await opened.settle()
        await opened.close()
        ids.append(opened.head.upload.id)
        base = partials.gateway.resources.base.partials
        latest = time.time() - 100 + number
        os.utime(opened.head.upload.id, (latest, latest), dir_fd=base.fd)
    filler = fill(disk, MIB // 2)

    async def sweep() -> list[str]:
        removing = partials.store.remove_expired(time.time())
        return [status.head.upload.id async for status in removing]

    assert await sweep() == [ids[0]]
    filler.unlink()
    assert await sweep() == []
    assert [status.head.upload.id async for status in partials.store.list()] != []
