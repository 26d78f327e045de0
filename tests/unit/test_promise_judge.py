"""The judge of the crash suites finds each way to break the promise."""

from __future__ import annotations

import pytest

from tests.support.promise import UploadAttempt, judge


def attempt(tag: str, status: int | None, *, name: str = "", began: float = 0.0) -> UploadAttempt:
    return UploadAttempt(name or tag, tag, 100, status, began, began + 1)


def test_a_broken_promise_is_found() -> None:
    attempts = [
        *(attempt(tag, 201) for tag in ("good", "no-run", "torn", "gone")),
        *(attempt(tag, None) for tag in ("silent", "ghost", "nothing", "whole")),
        *(attempt(tag, 507) for tag in ("refused", "refused and handled", "refused and gone")),
    ]
    by_tag = {each.tag: each for each in attempts}
    stored = {tag: by_tag[tag].body for tag in ("good", "no-run", "silent", "whole", "refused")}
    stored["torn"] = by_tag["torn"].body[:99]
    runs = ("good", "torn", "gone", "ghost", "whole", "refused and handled")
    assert judge(attempts, stored, dict.fromkeys(runs)).broken() == {
        "missing": ["no-run"],
        "torn": ["gone", "torn"],
        "visible": ["refused", "refused and handled"],
        "partial": ["silent", "ghost"],
    }


def test_each_handler_must_run_for_each_upload() -> None:
    acknowledged, unanswered = attempt("a", 201), attempt("b", None)
    stored = {"a": acknowledged.body, "b": unanswered.body}
    all_ran, one_ran = {"a": acknowledged.digest, "b": None}, {"b": None}
    assert judge([acknowledged, unanswered], stored, all_ran, all_ran).broken() == {}
    assert judge([acknowledged, unanswered], stored, all_ran, one_ran).broken() == {"missing": ["a"]}
    assert judge([acknowledged, unanswered], stored, all_ran, {"a": None}).broken() == {"partial": ["b"]}


@pytest.mark.parametrize(("began", "broken"), [(0.5, {}), (5.0, {"stale": ["old"]})])
def test_an_older_file_may_not_stand_over_a_later_acknowledged_one(
    began: float, broken: dict[str, list[str]]
) -> None:
    old, new = attempt("old", 201, name="x"), attempt("new", 200, name="x", began=began)
    runs = dict.fromkeys(("old", "new"))
    assert judge([old, new], {"x": new.body}, runs).broken() == {}
    assert judge([old, new], {"x": old.body}, runs).broken() == broken


def test_a_handler_that_read_other_bytes_is_found() -> None:
    upload = attempt("a", 201)
    assert judge([upload], {"a": upload.body}, {"a": "0" * 64}).broken() == {"mistaken": ["a"]}
    assert judge([upload], {"a": upload.body}, {"a": None, "b": None}).broken() == {"mistaken": ["b"]}
