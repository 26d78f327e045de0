"""One-time URLs: consumed by one upload, released only by that one, kept long enough."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.errors import Refusal
from gateway.storage.local.one_time_marks import CONFIRM_INTERVAL, CONSUME_TTL, MARK_TTL, OneTimeMarks

NOW = 1_750_000_000
EXPIRES = NOW + 900


@pytest.fixture
def once(tmp_path: Path) -> Iterator[OneTimeMarks]:
    opened = OneTimeMarks(tmp_path / "once", clock=lambda: NOW)
    yield opened
    opened.close()


def refusal(once: OneTimeMarks, nonce: str, upload_id: str = "other") -> str:
    with pytest.raises(Refusal) as caught:
        once.consume(nonce, upload_id, EXPIRES)
    return caught.value.code


def test_a_url_is_used_up_by_the_first_upload(once: OneTimeMarks) -> None:
    once.check_unused("n")
    once.consume("n", "first", EXPIRES)
    assert refusal(once, "n") == "used_up"
    with pytest.raises(Refusal, match="has been used"):
        once.check_unused("n")
    once.check_unused("another")


def test_the_same_upload_may_consume_it_again(once: OneTimeMarks) -> None:
    once.consume("n", "first", EXPIRES)
    once.consume("n", "first", EXPIRES)
    assert refusal(once, "n") == "used_up"


def test_only_the_upload_that_consumed_it_releases_it(once: OneTimeMarks) -> None:
    once.consume("n", "first", EXPIRES)
    once.release("n", "second")
    assert refusal(once, "n") == "used_up"
    once.release("n", "first")
    once.release("n", "first")
    once.consume("n", "second", EXPIRES)


def test_of_many_at_once_one_wins(tmp_path: Path) -> None:
    several = [
        OneTimeMarks(tmp_path / "once") for _ in range(4)
    ]  # as the processes of a gateway have them

    def attempt(number: int) -> bool:
        try:
            several[number % 4].consume("n", f"u{number}", 1 << 40)
        except Refusal:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(200))) == 1
    for one in several:
        one.close()


def test_it_is_remembered_over_a_restart(once: OneTimeMarks, tmp_path: Path) -> None:
    once.consume("n", "first", EXPIRES)
    again = OneTimeMarks(tmp_path / "once", clock=lambda: NOW)
    assert refusal(again, "n") == "used_up"
    again.close()


def test_marks_of_uploads_that_were_never_published_are_released(
    once: OneTimeMarks, tmp_path: Path
) -> None:
    for number in range(5):
        once.consume(f"n{number}", f"u{number}", EXPIRES)
    once.release_all({"u1", "u3", "unknown"})
    assert sorted(os.listdir(tmp_path / "once")) == ["n0", "n2", "n4"]


def test_a_mark_is_removed_only_when_no_upload_can_need_it(tmp_path: Path) -> None:
    now, steady = float(NOW), 0.0
    once = OneTimeMarks(tmp_path / "once", clock=lambda: now, steady=lambda: steady)
    once.consume("n", "first", EXPIRES)
    now = EXPIRES + CONSUME_TTL
    once.consume("late", "second", EXPIRES)
    assert once.remove_expired() == 0
    steady += CONFIRM_INTERVAL
    assert once.remove_expired() == 0
    now = EXPIRES + CONSUME_TTL + 1
    assert refusal(once, "later") == "expired"
    now, steady = EXPIRES + MARK_TTL + 1, steady + CONFIRM_INTERVAL
    assert once.remove_expired() == 0
    steady += CONFIRM_INTERVAL
    assert once.remove_expired() == 2
    assert refusal(once, "n") == "expired"
    once.close()


def test_a_clock_that_is_ahead_for_less_than_a_day_removes_no_mark(tmp_path: Path) -> None:
    ahead, steady = float(EXPIRES + MARK_TTL + 1), 0.0
    now = ahead
    once = OneTimeMarks(tmp_path / "once", clock=lambda: now, steady=lambda: steady)
    os.symlink(f"{EXPIRES} first", tmp_path / "once/n")
    assert once.remove_expired() == 0
    steady = CONFIRM_INTERVAL - 1
    assert once.remove_expired() == 0
    now = float(NOW)
    steady = CONFIRM_INTERVAL
    assert once.remove_expired() == 0
    now, steady = ahead, 2 * CONFIRM_INTERVAL
    assert once.remove_expired() == 0
    now = float(NOW)
    assert refusal(once, "n") == "used_up"
    once.close()


def test_what_others_put_there_is_left_alone(once: OneTimeMarks, tmp_path: Path) -> None:
    (tmp_path / "once/file").write_text("x")
    (tmp_path / "once/link").symlink_to("nonsense")
    once.release_all({"nonsense"})
    assert once.remove_expired() == 0
