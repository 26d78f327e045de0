"""Recovery: each kind of thing that a crash can leave, settled before the port opens."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.commit import recover as recover_module
from gateway.commit.recover import Recovered, recover
from gateway.errors import ConfigError
from gateway.events.journal import Journal
from gateway.storage.local.incoming import IncomingDirectory
from gateway.storage.local.one_time_marks import OneTimeMarks
from tests.support.records import (
    claim_deliveries,
    delivery_states,
    publish_uploads,
    result_of,
    settle_run,
    upload_record,
)


@pytest.fixture
def once(tmp_path: Path) -> Iterator[OneTimeMarks]:
    opened = OneTimeMarks(tmp_path / "once")
    yield opened
    opened.close()


def leave(tmp_path: Path, name: str, content: bytes = b"left") -> Path:
    """Leave a body, as a crash does."""
    body = tmp_path / "incoming" / name
    body.write_bytes(content)
    return body


def test_after_a_clean_end_there_is_nothing_to_do(
    incoming: IncomingDirectory, journal: Journal, once: OneTimeMarks, caplog: pytest.LogCaptureFixture
) -> None:
    assert recover(incoming, journal, once) == Recovered(0, 0, 0)
    assert caplog.records == []


def test_a_body_that_no_row_knows_is_swept(
    incoming: IncomingDirectory, journal: Journal, once: OneTimeMarks, tmp_path: Path
) -> None:
    leave(tmp_path, "unknown")
    assert recover(incoming, journal, once) == Recovered(1, 0, 0)
    assert list(incoming.upload_ids()) == []


@pytest.mark.parametrize("content", [b"left", b""])
def test_a_body_with_a_row_was_never_answered_and_goes_with_its_row(
    incoming: IncomingDirectory, journal: Journal, once: OneTimeMarks, tmp_path: Path, content: bytes
) -> None:
    result_of(journal.outbox.record_uploads([upload_record("u", ("h", "i"))]))
    leave(tmp_path, "u", content)
    assert recover(incoming, journal, once) == Recovered(1, 1, 0)
    assert list(incoming.upload_ids()) == []
    assert result_of(journal.ledger.upload_history("u")) is None
    assert delivery_states(journal) == {}


def test_a_row_without_a_body_was_published_and_is_delivered(
    incoming: IncomingDirectory, journal: Journal, once: OneTimeMarks
) -> None:
    result_of(journal.outbox.record_uploads([upload_record("u")]))
    assert recover(incoming, journal, once) == Recovered(0, 0, 1)
    assert [delivery.attempt for delivery in claim_deliveries(journal)] == [1]


def test_a_body_with_a_second_name_was_published_and_loses_the_private_one(
    incoming: IncomingDirectory, journal: Journal, once: OneTimeMarks, tmp_path: Path
) -> None:
    result_of(journal.outbox.record_uploads([upload_record("u")]))
    final = tmp_path / "final"
    os.link(leave(tmp_path, "u"), final)
    assert recover(incoming, journal, once) == Recovered(1, 0, 1)
    assert list(incoming.upload_ids()) == []
    assert final.read_bytes() == b"left"
    assert final.stat().st_nlink == 1
    assert [delivery.upload_id for delivery in claim_deliveries(journal)] == ["u"]


def test_a_handler_that_was_running_is_tried_again(
    incoming: IncomingDirectory, journal: Journal, once: OneTimeMarks
) -> None:
    publish_uploads(journal, "u")
    claim_deliveries(journal)
    assert recover(incoming, journal, once) == Recovered(0, 0, 1)
    assert [delivery.attempt for delivery in claim_deliveries(journal)] == [2]


def test_what_is_finished_is_left_alone(
    incoming: IncomingDirectory, journal: Journal, once: OneTimeMarks
) -> None:
    publish_uploads(journal, "done", "dead", "later")
    for delivery, outcome in zip(
        claim_deliveries(journal, limit=3), ("done", "dead", "retry"), strict=True
    ):
        settle_run(journal, delivery, outcome, delay=900.0)
    before = delivery_states(journal)
    assert recover(incoming, journal, once) == Recovered(0, 0, 0)
    assert delivery_states(journal) == before


def test_thousands_of_bodies_of_all_kinds_are_settled(
    incoming: IncomingDirectory, journal: Journal, once: OneTimeMarks, tmp_path: Path
) -> None:
    for number in range(2000):
        leave(tmp_path, f"unknown{number}", b"")
    result_of(journal.outbox.record_uploads([upload_record(f"row{number}") for number in range(700)]))
    for number in range(600):
        leave(tmp_path, f"row{number}", b"")
    assert recover(incoming, journal, once) == Recovered(2600, 600, 100)
    assert list(incoming.upload_ids()) == []
    assert {event for event, _ in delivery_states(journal)} == {
        f"e-row{number}" for number in range(600, 700)
    }


def test_a_recovery_that_was_cut_off_is_finished_by_the_next(
    incoming: IncomingDirectory,
    journal: Journal,
    once: OneTimeMarks,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result_of(journal.outbox.record_uploads([upload_record("a"), upload_record("b")]))
    leave(tmp_path, "a")
    leave(tmp_path, "b")
    with monkeypatch.context() as patch:
        patch.setattr(incoming, "remove", lambda _: (_ for _ in ()).throw(OSError("dying")))
        with pytest.raises(ConfigError, match=r"cannot be settled \(dying\): free some space"):
            recover(incoming, journal, once)
    assert recover(incoming, journal, once).removed == 2
    assert delivery_states(journal) == {}


def test_a_disk_that_cannot_be_synced_keeps_the_gateway_from_starting(
    incoming: IncomingDirectory, journal: Journal, once: OneTimeMarks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The final names of what handlers are about to get may not be durable."""

    def dying(_: int) -> None:
        raise OSError(errno.EIO, "the disk is dying")

    result_of(journal.outbox.record_uploads([upload_record("u")]))
    monkeypatch.setattr(recover_module, "sync_file_system", dying)
    with pytest.raises(ConfigError, match="the disk is dying"):
        recover(incoming, journal, once)
    assert delivery_states(journal) == {("e-u", "h"): "ready"}


def test_a_one_time_url_is_good_again_where_its_upload_was_never_published(
    incoming: IncomingDirectory, journal: Journal, once: OneTimeMarks, tmp_path: Path
) -> None:
    result_of(
        journal.outbox.record_uploads(
            [upload_record("recorded", ()), upload_record("linked", ()), upload_record("stored", ())]
        )
    )
    for name in ("unrecorded", "recorded", "linked", "stored"):
        once.consume(f"url-of-{name}", name, 1 << 40)
    leave(tmp_path, "unrecorded")
    leave(tmp_path, "recorded")
    os.link(leave(tmp_path, "linked"), tmp_path / "published")
    recover(incoming, journal, once)
    assert sorted(os.listdir(tmp_path / "once")) == ["url-of-linked", "url-of-stored"]
