"""Errors of one cause are one group: how they are read, grouped, and changed as a whole."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.events import error_groups
from gateway.events.error_groups import (
    change_group,
    error_kind,
    group_errors,
    group_page,
)
from gateway.events.journal import Journal
from gateway.events.protocols import INVALID_CURSOR, ChunkResult, Selection, Verb, run_chunks
from tests.support.records import claim_deliveries, delivery_states, publish_uploads, settle_run

DEAD = Selection("dead")
TRACEBACK = '\nTraceback (most recent call last):\n  File "p.yaml", line 7, in h\nValueError: again\n'


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (
            "ValueError: row 17 of 'a.csv' has 3 fields" + TRACEBACK,
            "ValueError: row … of … has … fields",
        ),
        ("ConnectionError: the other system is away", "ConnectionError: the other system is away"),
        ("OSError: can't open the file's copy", "OSError: can't open the file's copy"),
        ("HTTPError: 503 Service Unavailable", "HTTPError: 503 Service Unavailable"),
        ("the receiver answered 404", "the receiver answered 404"),
        ("terminated with 422", "terminated with 422"),
        ("OSError: [Errno 28] No space: '/data/x'", "OSError: [Errno 28] No space: …"),
        ("cannot connect to host 10.0.0.5:9000", "cannot connect to host …"),
        ("no answer of https://user@example.com/a?b=1", "no answer of …"),
        ("<Foo object at 0x7f33aa11>", "<Foo object at …>"),
        ("key 550e8400-e29b-41d4-a716-446655440000 is there", "key … is there"),
        ("no upload 01J9ZK3M2N4P5Q6R7S8T9V0W1X-0", "no upload …"),
        ("mail to ada@example.org bounced", "mail to … bounced"),
        ("/var/data/2026/x.txt is missing", "… is missing"),
        (
            "not finished within 30 s, waiting at /plugins/a.yaml:12",
            "not finished within … s, waiting at …",
        ),
        ("due at 2026-11-30T18:00:00Z", "due at …"),
        ("sha256 stays, row-3 does not", "sha256 stays, row… does not"),
        ("\n\n  second line \n", "second line"),
        ("", ""),
        (None, ""),
    ],
)
def test_what_differs_from_case_to_case_is_left_out_of_an_error(error: str | None, kind: str) -> None:
    assert error_kind(error) == kind


@given(st.text(max_size=600))
def test_the_kind_of_an_error_is_one_bounded_line_that_stays_what_it_is(error: str) -> None:
    kind = error_kind(error)
    assert len(kind) <= error_groups.MAX_LENGTH
    assert len(kind.splitlines()) <= 1
    assert error_kind(kind) == kind


def fail(journal: Journal, outcome: str, errors: dict[str, str], handler: str = "h") -> None:
    """Publish an upload for each name, and let its handler fail with the error."""
    for name, error in errors.items():
        publish_uploads(journal, name, handlers=(handler,))
        settle_run(journal, claim_deliveries(journal, handler)[0], outcome, error, 900)


@pytest.fixture
def failed(journal: Journal) -> Journal:
    fail(journal, "dead", {"a": "row 1", "b": "row 22", "c": "away", "d": "row 333"})
    fail(journal, "dead", {"e": "row 1"}, "i")
    fail(journal, "retry", {"f": "row 9", "g": "late"})
    return journal


async def test_the_dead_are_grouped_by_handler_and_error_the_largest_group_first(
    failed: Journal,
) -> None:
    groups = await group_errors(failed.ledger, DEAD)
    counted = [(group.handler, group.error, group.count) for group in groups.groups]
    assert counted == [("h", "row …", 3), ("h", "away", 1), ("i", "row …", 1)]
    assert (groups.read, groups.other, groups.complete) == (5, 0, True)
    [first, *_] = groups.groups
    assert (first.event_id, first.sample) == ("e-d", "row 333")
    assert first.oldest <= first.newest


async def test_what_is_retried_can_be_grouped_too(failed: Journal) -> None:
    groups = await group_errors(failed.ledger, Selection("delayed", "h"))
    assert {group.error for group in groups.groups} == {"row …", "late"}


async def test_grouping_ends_at_its_bounds_and_says_so(
    failed: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(error_groups, "PAGE_ROWS", 2)
    groups = await group_errors(failed.ledger, DEAD, max_rows=3)
    assert (groups.read, groups.complete) == (4, False)
    seconds = itertools.count()
    groups = await group_errors(failed.ledger, DEAD, None, 2, clock=lambda: float(next(seconds)))
    assert (groups.read, groups.complete) == (4, False)


async def test_more_groups_than_are_listed_are_counted(
    failed: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(error_groups, "MAX_GROUPS", 1)
    groups = await group_errors(failed.ledger, DEAD)
    assert ([group.error for group in groups.groups], groups.other) == (["row …"], 2)
    monkeypatch.setattr(error_groups, "MAX_TRACKED", 1)
    groups = await group_errors(failed.ledger, DEAD)
    assert ([group.count for group in groups.groups], groups.other) == ([3], 2)


async def test_a_group_is_listed_page_by_page(failed: Journal) -> None:
    names, after = [], None
    while True:
        page = await group_page(failed.ledger, Selection("dead", "h"), "row …", after, 2)
        names += [row.upload_id for row in page.rows]
        after = page.next
        if after is None:
            break
    assert names == ["a", "b", "d"]


@pytest.mark.parametrize(("verb", "states"), [("retry", ["ready"] * 3), ("drop", [])])
async def test_one_group_is_changed_and_nothing_else(
    failed: Journal, verb: Verb, states: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(error_groups, "PAGE_ROWS", 2)

    async def chunk(after: str | None) -> ChunkResult:
        return await change_group(failed.ledger, verb, Selection("dead", "h"), "row …", after)

    assert await run_chunks(chunk) == 3
    after = delivery_states(failed)
    assert [after[key] for key in (("e-a", "h"), ("e-b", "h"), ("e-d", "h")) if key in after] == states
    assert after["e-c", "h"] == after["e-e", "i"] == "dead"
    assert await run_chunks(chunk) == 0


async def test_what_fails_again_meanwhile_is_left_alone(
    failed: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(error_groups, "PAGE_ROWS", 1)
    selection, total = Selection("dead", "h"), 0
    after: str | None = None
    while True:
        chunk = await change_group(failed.ledger, "retry", selection, "row …", after)
        total, after = total + chunk.count, chunk.next
        for delivery in claim_deliveries(failed):
            settle_run(failed, delivery, "dead", "row 7")
        if after is None:
            break
    assert total == 3


@pytest.mark.parametrize("cursor", ["", "12", "x/12", "1.5/", "1.500000/zzz", "9" * 30 + ".000000/1"])
async def test_a_cursor_of_another_kind_is_refused(failed: Journal, cursor: str) -> None:
    with pytest.raises(ValueError, match=INVALID_CURSOR):
        await change_group(failed.ledger, "retry", DEAD, "row …", cursor)
