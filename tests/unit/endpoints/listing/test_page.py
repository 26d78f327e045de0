"""What the query of a list says, and cursors that come back as they went."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.endpoints.listing.html import HTML_HEADERS, PageOptions, page_html
from gateway.endpoints.listing.page import ListedPage, ListQuery, _decode_cursor, _encode_cursor
from gateway.errors import Refusal
from gateway.storage.protocols import Stat


def test_without_a_query_a_page_is_full_and_of_one_level() -> None:
    assert ListQuery.read({}) == ListQuery(1000, None, recursive=False)
    assert ListQuery.read({"limit": ["7"], "recursive": ["true"]}) == ListQuery(7, None, recursive=True)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_a_cursor_comes_back_as_it_went(position: str) -> None:
    for kind in "fr":
        cursor = _encode_cursor(position, kind)
        assert cursor is not None
        assert _decode_cursor(cursor, kind) == position
        with pytest.raises(Refusal, match="invalid cursor"):
            _decode_cursor(cursor, "fr".replace(kind, ""))


@given(st.text(max_size=50) | st.binary(max_size=50).map(lambda data: data.decode("latin-1")))
def test_junk_is_no_cursor_or_a_harmless_one(cursor: str) -> None:
    position = ""
    with contextlib.suppress(Refusal):
        position = _decode_cursor(cursor, "f")
    assert "\0" not in position


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1))
def test_a_name_is_text_in_the_page_and_nothing_else(name: str) -> None:
    page = ListedPage("/upload/", [Stat(f"/upload/{name}", 1, 0.0, "e"), f"/upload/{name}/"], None)
    plain = ListedPage("/upload/", [Stat("/upload/n", 1, 0.0, "e"), "/upload/n/"], None)
    options = PageOptions(files=True, is_first=True, has_parent=True)
    assert page_html(page, options).count("<") == page_html(plain, options).count("<")
    assert page_html(page, options).count('"') == page_html(plain, options).count('"')


def test_the_policy_has_the_hash_of_the_one_style() -> None:
    text = page_html(
        ListedPage("/a/", [], None), PageOptions(files=False, is_first=True, has_parent=False)
    )
    assert text.count("<style>") == 1
    assert "style=" not in text
    assert "script-src" not in HTML_HEADERS["Content-Security-Policy"]
