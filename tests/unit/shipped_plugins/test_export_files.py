"""plugins/exports: what is in the zip, whatever the records hold, and what is left behind: nothing."""

from __future__ import annotations

import codecs
import csv
import io
import json
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.export_modules import MAX_COLUMNS, Spool, cell

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS,
    st.lists(st.integers(), max_size=2),
    st.sampled_from(["=1+1", "+a", "-a", "@a", "\t=a", "\r=", "＝1"]),
)  # fmt: skip


ITEMS = st.lists(st.dictionaries(TEXTS, VALUES, max_size=4), max_size=6)


def parts(items: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The text of the CSV, without the mark at its beginning, and what the JSON says."""
    spool = Spool()
    spool.add(items[:2])
    spool.add(items[2:])
    with spool.zipped("photos") as made, zipfile.ZipFile(made) as archive:
        assert archive.namelist() == ["photos.csv", "photos.json"]
        assert archive.testzip() is None
        table, listed = archive.read("photos.csv"), archive.read("photos.json")
    spool.close()
    assert table.startswith(codecs.BOM_UTF8)
    assert not listed.startswith(codecs.BOM_UTF8)
    return table.removeprefix(codecs.BOM_UTF8).decode(), json.loads(listed)


@given(ITEMS)
def test_both_files_hold_what_was_put_in(items: list[dict[str, Any]]) -> None:
    table, listed = parts(items)
    assert listed == items
    header, *rows = csv.reader(io.StringIO(table, newline=""))
    columns = list(dict.fromkeys(["key", *(name for item in items for name in item)]))
    assert header == [cell(name) for name in columns]
    assert rows == [[cell(item.get(name)) for name in columns] for item in items]


@given(ITEMS)
def test_no_text_of_a_cell_is_a_formula(items: list[dict[str, Any]]) -> None:
    table, _ = parts(items)
    for row in csv.reader(io.StringIO(table, newline="")):
        for text in row:
            if not text.startswith(("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")):
                continue
            float(text)  # a number below zero, and nothing else


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('=HYPERLINK("x")', '\'=HYPERLINK("x")'),
        ("-2+3", "'-2+3"),
        (-2.5, "-2.5"),
        ("a=b", "a=b"),
        ("'=1", "'=1"),
        (None, ""),
        (True, "true"),
        (["=1"], '["=1"]'),
    ],
)
def test_a_cell_is_text_a_number_or_json(value: Any, said: str) -> None:
    assert cell(value) == said


def test_no_records_make_an_empty_table_and_an_empty_list() -> None:
    assert parts([]) == ("key\r\n", [])


def test_more_columns_than_a_sheet_should_have_are_in_the_json_only() -> None:
    table, listed = parts([{f"c{number}": number for number in range(MAX_COLUMNS + 5)}])
    assert len(next(csv.reader(io.StringIO(table)))) == MAX_COLUMNS
    assert len(listed[0]) == MAX_COLUMNS + 5


def test_nothing_has_a_name_while_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spool = Spool()
    spool.add({"key": str(number), "text": "x" * 100} for number in range(10_000))
    spool.zipped("photos")
    assert list(tmp_path.iterdir()) == []
    spool.close()


def test_close_waits_for_a_thread_that_still_writes_and_nothing_stays_open() -> None:
    spool, writing, go_on = Spool(), threading.Event(), threading.Event()

    def items() -> Iterator[dict[str, Any]]:
        yield {"key": "1"}
        writing.set()
        assert go_on.wait(10)
        yield {"key": "2"}

    with ThreadPoolExecutor() as threads:
        made = spool.zipped("empty")
        adding = threads.submit(spool.add, items())
        assert writing.wait(10)
        closing = threads.submit(spool.close)
        wait([closing], timeout=0.2)
        go_on.set()
        adding.result(10)  # would raise ValueError if the file were closed by now
        closing.result(10)
    assert made.closed
    for late in (lambda: spool.add([{"key": "3"}]), lambda: spool.zipped("late")):
        with pytest.raises(ValueError, match="closed"):
            late()
