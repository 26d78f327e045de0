"""plugins/exports: what may be asked, whose folder is whose, when an export is no answer any more."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Refusal
from gateway.records.collection import Records
from tests.support.export_modules import (
    Asked,
    Rules,
    TooManyQueued,
    Wrong,
    asked,
    bounds,
    finished,
    folder_of,
    is_id,
    is_over,
    revive,
    share,
)

RULES = Rules()
ADA = {"name": "ada", "kind": "token"}


def days(first: str, last: str) -> Asked:
    return asked({"from": [first], "to": [last]}, ADA, RULES)


def test_a_range_goes_from_the_first_midnight_to_the_one_behind_the_last_day() -> None:
    item = {"from": "2026-02-27", "to": "2026-02-28"}
    assert bounds(item) == (datetime(2026, 2, 27, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, "from is needed"),
        ({"from": ["2026-01-01"]}, "to is needed"),
        ({"from": ["2026-01-01", "2026-01-02"], "to": ["2026-01-03"]}, "from is needed, once"),
        ({"from": ["20260101"], "to": ["2026-01-03"]}, "no date"),
        ({"from": ["2026-W01-1"], "to": ["2026-01-03"]}, "no date"),
        ({"from": ["2026-01-01"], "to": ["2026-13-01"]}, "to='2026-13-01' is no date"),
        ({"from": ["٢٠٢٦-01-01"], "to": ["2026-01-03"]}, "no date"),
        ({"from": ["2026-01-01T00:00"], "to": ["2026-01-03"]}, "no date"),
        ({"from": ["2026-01-03"], "to": ["2026-01-01"]}, "lies before"),
        ({"from": ["2025-01-01"], "to": ["2026-01-03"]}, "longer than 366 days"),
        ({"from": ["9999-12-31"], "to": ["9999-12-31"]}, "last possible date"),
    ],
)
def test_what_is_no_range_is_told_in_words(params: dict[str, list[str]], words: str) -> None:
    with pytest.raises(Wrong, match=words):
        asked(params, None, RULES)


@given(st.dates(), st.dates())
def test_any_two_days_are_a_range_or_told_not_to_be(first: date, last: date) -> None:
    params = {"from": [first.isoformat()], "to": [last.isoformat()]}
    try:
        question = asked(params, None, RULES)
    except Wrong:
        assert not (first <= last < date.max and (last - first).days < 366)
    else:
        assert (question.first, question.last) == (first, last)
        assert is_id(question.id(RULES))


PRINCIPALS = st.one_of(
    st.none(),
    st.fixed_dictionaries({"name": st.text(), "kind": st.sampled_from(["token", "jwt", "internal"])}),
)


@given(PRINCIPALS, PRINCIPALS)
def test_every_caller_has_a_folder_of_their_own_with_a_safe_name(one: Any, other: Any) -> None:
    folders = [folder_of(one), folder_of(other)]
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", folder) for folder in folders)
    assert (folders[0] == folders[1]) == (one == other)
    assert "orders" not in folders


def test_who_is_called_anonymous_is_not_everybody() -> None:
    assert folder_of(None) == "anonymous"
    assert folder_of({"name": "anonymous", "kind": "token"}).startswith("anonymous-")


@pytest.mark.parametrize(
    ("state", "age", "over"),
    [
        ("waiting", 5, False), ("waiting", 91, True), ("building", 5, False), ("building", 91, True),
        ("done", 59, False), ("done", 61, True), ("failed", 59, False), ("failed", 61, True),
    ],
)  # fmt: skip
def test_when_an_export_is_no_answer_any_more(state: str, age: float, over: bool) -> None:
    assert is_over({"state": state, "beat": time.time() - age}, RULES) == over


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"colection": "a"}, "colection"),
        ({"reuse": -1}, "reuse"),
        ({"max_days": True}, "max_days"),
        ({"expire_after": 900}, "expire_after must be longer"),
        ({"expire_after": {"/exports/": 900}}, "expire_after must be longer"),
        ({"expire_after": {"/a/": "1h"}}, "expire_after of /a/"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Rules.of(config)


class Orders:
    """Notes what is saved, as `files` would store it."""

    def __init__(self) -> None:
        self.saved: list[str] = []

    async def save(self, path: str, source: bytes, *, mime: str) -> None:
        assert source
        assert mime == "application/json"
        self.saved.append(path)


async def test_an_export_that_nobody_speaks_of_is_ordered_again_by_one_of_those_who_see_it() -> None:
    kept, files = Records()("exports"), Orders()
    question = days("2026-01-01", "2026-01-02")
    first = await share(question, RULES, kept, files)
    assert (await share(question, RULES, kept, files))["run"] == 1
    assert await kept.put(first["key"], {**first, "state": "building", "beat": 1.0})
    seen = await kept.get(first["key"])
    assert seen
    revived = [await revive(seen, RULES, kept, files) for _ in range(3)]
    assert [item["run"] for item in revived] == [2, 2, 2]
    assert files.saved == [f"/exports/orders/{first['key']}-{run}.json" for run in (1, 2)]


async def test_an_order_that_cannot_be_stored_is_told_and_the_next_one_may_succeed() -> None:
    class Full(Orders):
        async def save(self, path: str, source: bytes, *, mime: str) -> None:
            raise Refusal("no_space", "there is no room")

    kept, question = Records()("exports"), days("2026-01-01", "2026-01-02")
    with pytest.raises(Refusal):
        await share(question, RULES, kept, Full())
    item = await kept.get(question.id(RULES))
    assert item
    assert (item["state"], item["message"]) == ("failed", "it could not be ordered")
    files = Orders()
    assert (await share(question, RULES, kept, files))["run"] == 2
    assert len(files.saved) == 1


async def test_a_fresh_answer_is_used_again_and_an_old_one_is_made_anew() -> None:
    kept, files = Records()("exports"), Orders()
    question = days("2026-01-01", "2026-01-02")
    item = await share(question, RULES, kept, files)
    done = {**item, "state": "done", "beat": time.time()}
    await kept.put(item["key"], done)
    assert (await share(question, RULES, kept, files))["state"] == "done"
    await kept.put(item["key"], {**done, "beat": time.time() - 61})
    assert (await share(question, RULES, kept, files))["run"] == 2
    assert (await share(days("2026-01-01", "2026-01-03"), RULES, kept, files))["run"] == 1


async def test_a_caller_has_only_so_many_unfinished_exports_and_others_have_their_own() -> None:
    kept, files = Records()("exports"), Orders()
    items = [
        await share(days("2026-01-01", f"2026-01-{day:02}"), RULES, kept, files)
        for day in range(1, RULES.max_queued + 1)
    ]
    another = days("2026-02-01", "2026-02-02")
    with pytest.raises(TooManyQueued, match="4 of your exports are not finished"):
        await share(another, RULES, kept, files)
    assert len(files.saved) == RULES.max_queued
    assert (await share(days("2026-01-01", "2026-01-01"), RULES, kept, files))["run"] == 1
    bob = asked({"from": ["2026-02-01"], "to": ["2026-02-02"]}, {"name": "bob", "kind": "token"}, RULES)
    assert (await share(bob, RULES, kept, files))["run"] == 1
    stalled = {**items[1], "beat": 1.0}
    assert await kept.put(stalled["key"], stalled)  # an unfinished one is ordered again in its own place
    assert (await share(days("2026-01-01", "2026-01-02"), RULES, kept, files))["run"] == 2
    await kept.put(items[0]["key"], finished({**items[0], "state": "done"}))
    assert (await share(another, RULES, kept, files))["run"] == 1


async def test_requests_at_the_same_instant_do_not_exceed_what_a_caller_may_have() -> None:
    kept, files = Records()("exports"), Orders()
    asked_for = [days("2026-01-01", f"2026-01-{day:02}") for day in range(1, 17)]
    answers = await asyncio.gather(
        *(share(question, RULES, kept, files) for question in asked_for), return_exceptions=True
    )
    begun = [answer for answer in answers if isinstance(answer, dict)]
    assert all(isinstance(answer, dict | TooManyQueued) for answer in answers)
    assert len(begun) == len(files.saved) <= RULES.max_queued
    unfinished = await kept.query(index="queued", equals=folder_of(ADA))
    assert len(unfinished.items) == len(begun)
