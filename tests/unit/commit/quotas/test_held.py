"""Held uploads stay reserved, and have to fit where their handlers have moved them."""

from __future__ import annotations

import pytest

from gateway.domain.held import Decision, Held
from gateway.errors import RecordsUnavailable
from tests.support.committer import CommitterHarness
from tests.support.counted_committer import ALICE, KEY, Counted
from tests.support.held import HeldHarness
from tests.support.quotas import CountersInMemory

MOVE = Decision(path="/few/moved")


@pytest.fixture
async def counted(harness: CommitterHarness, held: HeldHarness) -> Counted:
    counted = Counted(harness)
    held.decisions.ends = counted.quotas
    held.writer = counted.writer  # type: ignore[assignment]  # as in a gateway
    return counted


async def hold(held: HeldHarness) -> Held:
    return await held.hold("/a", principal=dict(ALICE), remote="192.0.2.1", content_length=4)


async def test_a_held_upload_counts_where_its_handlers_have_moved_it(
    counted: Counted, held: HeldHarness
) -> None:
    await hold(held)
    assert counted.usage() == {KEY: (4, 1)}
    await held.decide(MOVE)
    await held.settled()
    assert (counted.usage(), counted.reserved()) == ({KEY: (4, 1), "prefix /few/": (4, 1)}, 0)
    assert counted.quotas.active == set()


async def test_a_held_upload_is_rejected_where_a_quota_has_no_room_for_its_new_path(
    counted: Counted, held: HeldHarness
) -> None:
    for name in "abc":
        await counted.put(f"/few/{name}", b"")
    told = await hold(held)
    await held.decide(MOVE)
    await held.settled()
    assert (held.state(told), held.bodies()) == ("rejected", [])
    assert held.rejected == [(told.upload_id, "quota_exceeded", 4)]
    assert sorted(counted.harness.stored()) == ["few/a", "few/b", "few/c"]
    assert (counted.usage(), counted.reserved()) == ({KEY: (0, 3), "prefix /few/": (0, 3)}, 0)


async def test_a_held_upload_stays_reserved_and_held_while_its_quota_is_not_known(
    counted: Counted, held: HeldHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = await hold(held)
    tries = 0
    run = CountersInMemory.run

    async def fail_first(self: CountersInMemory, operation: object) -> object:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise RecordsUnavailable("gone")
        return await run(self, operation)  # type: ignore[arg-type]

    monkeypatch.setattr(CountersInMemory, "run", fail_first)
    await held.decide(MOVE)
    await held.settled()
    assert (held.state(told), counted.quotas.unsettled) == (None, {})
    assert sorted(counted.harness.stored()) == ["few/moved"]
    assert (counted.usage(), counted.reserved()) == ({KEY: (4, 1), "prefix /few/": (4, 1)}, 0)
    assert counted.quotas.active == set()
