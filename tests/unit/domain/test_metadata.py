"""What is kept of a file beside its bytes: names, values, sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.grant import Grant
from gateway.domain.metadata import content_disposition, metadata_of_headers, normalize_metadata
from gateway.domain.paths import CONTROL_CHARACTER
from gateway.errors import Refusal


def test_metadata_is_taken_from_the_headers_of_that_name_whatever_their_case() -> None:
    headers = {"X-Amz-Meta-Title": "Grüße", "x-amz-meta-user-id": "7", "X-Amz-Acl": "public"}
    assert metadata_of_headers(headers) == {"title": "Grüße", "user-id": "7"}
    assert metadata_of_headers({"Content-Type": "text/plain"}) == {}


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
        {"a" * 101: "x"},
        {"a": "line\u2028break"},
        {"a": "\x85"},
    ],
)
def test_what_no_store_could_keep_is_refused(said: dict[str, str]) -> None:
    with pytest.raises(Refusal) as caught:
        normalize_metadata(said)
    assert caught.value.code == "bad_request"


def test_headers_and_signed_urls_have_one_rule_for_metadata() -> None:
    for metadata in ({"a" * 150: "x"}, {"title": "line\u2028break"}, {"title": "\x9f"}):
        with pytest.raises(Refusal) as caught:
            metadata_of_headers({f"X-Amz-Meta-{name}": value for name, value in metadata.items()})
        assert caught.value.code == "bad_request"
        with pytest.raises(ValueError, match="metadata"):
            Grant("PUT", "/x", 2, metadata=metadata).check(1)


@given(
    st.dictionaries(st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True), st.text(max_size=40), max_size=8)
)
def test_what_is_taken_is_taken_unchanged(said: dict[str, str]) -> None:
    try:
        assert normalize_metadata(said) == said
    except Refusal:
        assert any(CONTROL_CHARACTER.search(text) for text in said.values())


def test_a_file_name_reaches_old_and_new_browsers() -> None:
    assert content_disposition('a "b"é.txt') == (
        "attachment; filename=\"a _b__.txt\"; filename*=UTF-8''a%20%22b%22%C3%A9.txt"
    )
