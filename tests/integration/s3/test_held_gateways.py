"""Two gateways on one bucket: neither removes, opens or decides what the other one holds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.commit.held.holder import HeldBody, Holder
from gateway.commit.objects.backend import ObjectBackend
from gateway.commit.partials import PartialBusy
from gateway.domain.held import Held
from gateway.errors import Refusal, UnknownOutcome
from gateway.server.app import Gateway
from gateway.storage.s3.private_objects import PrivateObjects
from tests.conftest import StartGateway
from tests.contract.test_held_bodies import HANDLERS, hold, is_clean, row_of
from tests.contract.test_staged_bodies import content_of, staged
from tests.contract.test_staged_partials import whole
from tests.contract.test_storage_writer import visible
from tests.support.harness import wait_until
from tests.support.partials import StorePartials

pytestmark = pytest.mark.slow

LARGE = 20_000_000


@pytest.fixture
async def pair(start_gateway: StartGateway, s3_storage: str, tmp_path: Path) -> tuple[Gateway, Gateway]:
    """Two gateways with directories of their own."""
    first, second = [
        await start_gateway(storage=s3_storage, directory=str(tmp_path / name))
        for name in ("first", "second")
    ]
    return first, second


def backend_of(gateway: Gateway) -> ObjectBackend:
    backend = gateway.resources.parts.backend
    assert backend is not None
    return backend


async def sweep(*gateways: Gateway) -> None:
    for gateway in gateways:
        await backend_of(gateway).staging.ends.sweep()


async def private(gateway: Gateway) -> list[str]:
    return [entry.name async for entry in backend_of(gateway).staging.private.list()]


async def test_a_sweep_keeps_what_another_gateway_has_staged_or_holds(
    pair: tuple[Gateway, Gateway],
) -> None:
    first, second = pair
    body = os.urandom(1000)
    upload, pending = await staged(first, body)
    file = await pending.stage()
    upload_id = await hold(first, body, path="/upload/y")
    await sweep(second, first)
    assert sorted(await private(second)) == sorted([upload.id, upload_id])
    assert await content_of(second, file) == body
    await pending.commit({}, from_client=True)
    await first.resources.parts.held.release(upload_id, "somebody")
    await wait_until(lambda: is_clean(first))
    assert await visible(second) == {"/upload/x.bin": body, "/upload/y": body}


async def test_a_claim_whose_hold_failed_halfway_is_withdrawn_by_its_own_gateway_only(
    pair: tuple[Gateway, Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot tell whether the row is there: until it is known nobody goes on with the upload."""
    first, second = pair
    body = os.urandom(LARGE)
    opened = await whole(StorePartials(first), body)
    upload_id = opened.head.upload.id

    async def doubt(self: Holder, body: HeldBody) -> Held:
        raise UnknownOutcome("the journal does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(Holder, "record", doubt)
        with pytest.raises(UnknownOutcome):
            await opened.hold({}, HANDLERS)
        await sweep(second)
        with pytest.raises(PartialBusy):
            await StorePartials(second).store.open(upload_id)
    await opened.close()
    await sweep(first)
    again = await StorePartials(second).store.open(upload_id)
    await again.hold({}, HANDLERS)
    await again.close()
    await sweep(first, second)
    assert await private(first) == [upload_id]
    assert await row_of(first, upload_id) is None
    await second.resources.parts.held.release(upload_id, "somebody")
    await wait_until(lambda: is_clean(second))
    assert await visible(first) == {"/upload/x.bin": body}


async def test_a_partial_upload_that_is_held_is_ended_by_a_sweep_before_it_is_published(
    pair: tuple[Gateway, Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bucket is away when the row is there: the state still names the claim."""
    first, second = pair
    body = os.urandom(LARGE)
    opened = await whole(StorePartials(first), body)
    upload_id, delete = opened.head.upload.id, PrivateObjects.delete

    async def is_away(self: PrivateObjects, name: str) -> None:
        raise Refusal("storage_unavailable", "try again")

    with monkeypatch.context() as patched:
        patched.setattr(PrivateObjects, "delete", is_away)
        await opened.hold({}, HANDLERS)
        await opened.close()
        decisions = first.resources.parts.held
        await decisions.release(upload_id, "somebody")
        await wait_until(lambda: upload_id in decisions._delayed)
        with pytest.raises(PartialBusy):
            await StorePartials(second).store.open(upload_id)
        await sweep(second)
        assert await visible(second) == {}
    assert PrivateObjects.delete is delete
    await wait_until(lambda: is_clean(first))
    assert await visible(second) == {"/upload/x.bin": body}
    with pytest.raises(Refusal) as caught:
        await StorePartials(second).store.open(upload_id)
    assert caught.value.code == "not_found"
