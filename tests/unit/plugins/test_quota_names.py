"""`quota` of scripts: what it tells, and quotas that a handler gives to its upload."""

from __future__ import annotations

import pytest

from gateway.domain.quotas import BoundQuota, QuotaLeft, QuotaLimits
from gateway.plugins.scripting.decision import InvalidResult, read_changes
from gateway.plugins.scripting.quotas import MAX_QUOTAS, nothing_used, quota_function
from gateway.plugins.scripting.values import Event


async def half_used(key: str, limits: QuotaLimits) -> QuotaLeft:
    return QuotaLeft(BoundQuota(key, limits), {"bytes": 512, "files": 9})


async def test_what_is_used_and_left_is_told_with_sizes_in_units() -> None:
    q = await quota_function(half_used)("acme", bytes="1K", files=4)
    assert (q.name, q.bytes, q.bytes_used, q.bytes_left) == ("acme", 1024, 512, 512)
    assert (q.files_used, q.files_left) == (9, 0)
    assert (q.bytes_per_day, q.bytes_per_day_used, q.bytes_per_day_left) == (None, 0, None)


async def test_an_upload_counts_for_a_quota_that_its_handler_names() -> None:
    event = Event({"path": "/x"})
    quota = quota_function(nothing_used)
    (await quota("acme", bytes="1K")).count(event)
    (await quota("day", bytes_per_day=7)).count(event)
    assert read_changes(event).quotas == {
        "quota acme": {"bytes": 1024},
        "quota day": {"bytes_per_day": 7},
    }


async def test_a_quota_of_the_settings_can_be_read_and_counts_by_itself() -> None:
    q = await quota_function(half_used)("per principal acme (token)")
    assert q.bytes_used == 512
    with pytest.raises(ValueError, match="counts by itself"):
        q.count(Event({}))
    with pytest.raises(ValueError, match="needs a limit"):
        (await quota_function(half_used)("acme")).count(Event({}))


@pytest.mark.parametrize(
    "limits", [{"bytes": -1}, {"bytes": "much"}, {"files": True}, {"files": "3"}, {"bytes": 1.5}]
)
async def test_a_limit_is_a_whole_number_or_a_size(limits: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        await quota_function(nothing_used)("acme", **limits)


@pytest.mark.parametrize(
    "quotas",
    ["acme", {"acme": 3}, {"": {"bytes": 1}}, {"a": {}}, {"a": {"size": 1}},
     {f"{n}": {"bytes": 1} for n in range(MAX_QUOTAS + 1)}],
)  # fmt: skip
def test_what_a_script_writes_itself_is_checked(quotas: object) -> None:
    with pytest.raises(InvalidResult, match="quotas"):
        read_changes(Event({"path": "/x", "quotas": quotas}))
