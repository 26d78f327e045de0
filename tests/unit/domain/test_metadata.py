"""What is kept of a file beside its bytes: names, values, sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import metadata
from gateway.errors import Refusal


def test_metadata_is_taken_from_the_headers_of_that_name_whatever_their_case() -> None:
    headers = {"X-Amz-Meta-Title": "Grüße", "x-amz-meta-user-id": "7", "X-Amz-Acl": "public"}
    assert metadata.of_headers(headers) == {"title": "Grüße", "user-id": "7"}
    assert metadata.of_headers({"Content-Type": "text/plain"}) == {}


@pytest.mark.parametrize(
    "said",
    [
        {"": "x"},
        {"a_b": "x"},
        {"ä": "x"},
        {"a": "line\nbreak"},
        {"a": "\x7f"},
        {"a": "1", "A": "2"},
        {"a": "\ud800"},
        {"a": "x" * 2048},
    ],
)
def test_what_no_store_could_keep_is_refused(said: dict[str, str]) -> None:
    with pytest.raises(Refusal) as caught:
        metadata.check(said)
    assert caught.value.code == "bad_request"


@given(
    st.dictionaries(st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True), st.text(max_size=40), max_size=8)
)
def test_what_is_taken_is_taken_unchanged(said: dict[str, str]) -> None:
    try:
        assert metadata.check(said) == said
    except Refusal:
        assert any(ord(letter) < 32 or ord(letter) == 127 for text in said.values() for letter in text)
