"""What a search finds, and how it ends; `tests/contract/test_storage.py` searches the storages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.event_bodies import listing_event
from gateway.domain.model import FileRequest
from gateway.endpoints.listing import search as listing_search
from gateway.endpoints.listing.page import ListQuery, read_page
from gateway.endpoints.listing.search import comparable, search
from gateway.errors import Refusal
from gateway.storage.protocols import FolderStorage, Stat


class Names:
    """A storage that lists these names below `/upload/`, in order."""

    def __init__(self, *names: str) -> None:
        self.paths = sorted(f"/upload/{name}" for name in names)
        self.read = 0

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[Stat]:
        for path in self.paths:
            if path.startswith(prefix) and (after is None or path > after):
                self.read += 1
                yield Stat(path, 1, 0.0, "e")


def storage(*names: str) -> FolderStorage:
    return cast(FolderStorage, Names(*names))


async def page(names: FolderStorage, **fields: str) -> Any:
    return await read_page(names, "/upload/", ListQuery.read({k: [v] for k, v in fields.items()}))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Report.PDF", "report.pdf"),
        ("Grüße.txt", "GRÜSSE"),
        ("Cafe\u0301.txt", "café"),
        ("한글.txt".encode().decode(), "\u1112\u1161\u11ab\u1100\u1173\u11af"),
        ("ｆｕｌｌ　ｗｉｄｔｈ.txt", "full width"),
        ("ﬁle", "file"),
        ("ΟΔΥΣΣΕΥΣ", "οδυσσευς"),
        ("a%2Fb [x].txt", "%2f"),
    ],
)
async def test_neither_case_nor_composition_hides_a_name(name: str, text: str) -> None:
    (found,) = (await search(storage(name), "/upload/", text, after=None, limit=9)).entries
    assert isinstance(found, Stat)
    assert found.path == f"/upload/{name}"


@given(st.text(), st.text(), st.text())
def test_a_part_of_a_name_in_ascii_is_found_in_any_case(before: str, part: str, after: str) -> None:
    ascii_part = part.encode("ascii", "ignore").decode()
    assert comparable(ascii_part.upper()) in comparable(f"{before} {ascii_part.lower()} {after}")


async def test_a_part_of_a_search_is_bounded_and_tells_where_the_next_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing_search, "MAX_SEARCHED_FILES", 4)
    names = Names(*(f"{number:02}" for number in range(10)))
    first = await page(cast(FolderStorage, names), search="7")
    assert (first.entries, first.searched, names.read) == ([], 4, 4)
    second = await page(cast(FolderStorage, names), search="7", cursor=first.next)
    assert [entry.path for entry in second.entries] == ["/upload/07"]
    last = await page(cast(FolderStorage, names), search="7", cursor=second.next)
    assert (last.entries, last.searched, last.next) == ([], 2, None)


async def test_time_ends_a_part_of_a_search_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_search, "MAX_SEARCH_SECONDS", -1.0)
    names = storage(*(f"{number:03}" for number in range(250)))
    result = await search(names, "/upload/", "249", after=None, limit=9)
    assert (result.entries, result.searched, result.reached) == ([], 100, "/upload/099")
    # However slow it is, a search gets on.
    rest = await search(names, "/upload/", "249", after="/upload/199", limit=9)
    assert (len(rest.entries), rest.searched, rest.reached) == (1, 50, None)


async def test_a_cursor_of_a_search_is_none_of_a_list_or_of_another_folder() -> None:
    first = await page(storage("x/1", "x/2"), search="1", limit="1")
    cursor = first.next
    for fields in ({}, {"recursive": "true"}):
        with pytest.raises(Refusal, match="invalid cursor"):
            await page(storage("x/1"), cursor=cursor, **fields)
    query = ListQuery.read({"cursor": [cursor], "search": ["1"]})
    with pytest.raises(Refusal, match="invalid cursor"):
        await read_page(storage("x/1"), "/upload/y/", query)


@pytest.mark.parametrize("values", [[""], ["x" * 256], ["a", "b"]])
def test_a_text_that_no_name_can_have_is_refused(values: list[str]) -> None:
    with pytest.raises(Refusal, match="search"):
        ListQuery.read({"search": values})


async def test_where_no_files_are_nothing_is_searched() -> None:
    with pytest.raises(Refusal, match="no files below"):
        await page(storage(), search="x")


def test_a_handler_is_told_that_a_search_looks_below_too() -> None:
    request = FileRequest("id", "/upload/", params={"search": ["x"]}, method="GET", remote=None)
    assert listing_event(request)["recursive"] is True
