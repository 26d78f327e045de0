"""The rows of private objects: what is needed is not told as what may go, in whichever journal it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.events.journal import Journal
from gateway.events.private_objects import MAX_ROWS, PrivateObjectRow
from tests.support.journal import journal

__all__ = ["journal"]


def unneeded(journal: Journal) -> list[str]:
    """Return all uploads whose rows a sweep looks at."""
    ids: list[str] = []
    after: str | None = ""
    while after is not None:
        window = journal.private_objects.unneeded(after).result()
        ids += [row.upload_id for row in window.rows]
        after = window.last
    return ids


def hold(journal: Journal, upload_id: str, state: str) -> None:
    """Write the row of a held upload."""
    journal._database.write(
        "INSERT INTO held (id, state, upload, bytes, mime, digests, inode, mtime_ns, event_id, handlers,"
        " created) VALUES (?, ?, '{}', 1, '', '{}', 0, 0, '', '[]', 0)",
        (upload_id, state),
    ).result()


@pytest.mark.parametrize(
    ("state", "is_needed"), [("undecided", True), ("accepted", True), ("rejected", False)]
)
def test_the_object_of_a_held_upload_is_needed_until_it_is_rejected(
    journal: Journal, state: str, is_needed: bool
) -> None:
    journal.private_objects.add("a", "bucket", "key").result()
    assert unneeded(journal) == ["a"]
    hold(journal, "a", state)
    assert unneeded(journal) == ([] if is_needed else ["a"])
    row = PrivateObjectRow("a", "bucket", "key", None, is_needed, True)
    assert journal.private_objects.find("a").result() == row


def test_one_whose_partial_upload_has_not_ended_is_looked_at_although_it_is_needed(
    journal: Journal,
) -> None:
    journal.private_objects.add("a", "bucket", "key", "claim").result()
    hold(journal, "a", "undecided")
    assert unneeded(journal) == ["a"]
    journal.private_objects.end_claim("a").result()
    assert unneeded(journal) == []


def test_the_object_of_an_upload_whose_publishing_is_not_settled_is_needed(journal: Journal) -> None:
    journal.private_objects.add("a", "bucket", "key").result()
    for pending, left in ((1, []), (0, ["a"])):
        journal._database.write(
            "INSERT OR REPLACE INTO uploads (id, path, bytes, mime, digests, device, inode, mtime_ns,"
            " created, committed, pending) VALUES ('a', '/a', 1, '', '{}', 0, 0, 0, 0, 0, ?)",
            (pending,),
        ).result()
        assert unneeded(journal) == left


def test_many_rows_are_listed_window_by_window(journal: Journal) -> None:
    ids = [f"{number:04}" for number in range(MAX_ROWS + 1)]
    for upload_id in ids:
        journal.private_objects.add(upload_id, "bucket", "key").result()
    assert unneeded(journal) == ids
    journal.private_objects.remove(ids[0]).result()
    assert unneeded(journal) == ids[1:]
    assert journal.private_objects.find(ids[0]).result() is None


def test_the_journal_that_takes_over_a_slot_answers_for_its_objects(
    journal: Journal, tmp_path: Path
) -> None:
    leaving = Journal(tmp_path / "leaving.db")
    leaving.open()
    leaving.private_objects.add("a", "bucket", "key", "claim").result()
    leaving.private_objects.add("b", "bucket", "key").result()
    hold(leaving, "b", "undecided")
    journal.copy_from(leaving)
    leaving.close()
    assert unneeded(journal) == ["a"]
    row = journal.private_objects.find("b").result()
    assert row == PrivateObjectRow("b", "bucket", "key", None, True, True)
