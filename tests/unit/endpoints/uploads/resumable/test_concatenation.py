"""`Upload-Concat`: parts of a file by their URLs."""

from __future__ import annotations

import pytest

from gateway.endpoints.uploads.resumable.concatenation import MAX_CONCAT_PARTS, read_concat
from gateway.errors import Refusal

NAME = "0f8fad5b-d9cb-469f-a165-70867728950e"


def refused(*lines: str) -> str:
    with pytest.raises(Refusal) as caught:
        read_concat(lines)
    assert caught.value.code == "bad_request"
    return caught.value.message


def test_a_part_says_so() -> None:
    assert read_concat(["partial"]) is None
    assert read_concat([" partial "]) is None


@pytest.mark.parametrize(
    ("url", "reference"),
    [
        ("http://other.example:1/upload/a?upload=ID.s", "ID.s"),
        ("/upload/a?upload=ID.s", "ID.s"),
        ("?upload=ID.s", "ID.s"),
        ("a?x=1&upload=ID.s&y=", "ID.s"),
        ("/upload/a?upload=ID%2Es", "ID.s"),
        (f"/upload/{NAME}?upload=ID.s", "ID.s"),
        (f"/upload/{NAME}", NAME),
        (f"https://other.example/upload/x/{NAME}", NAME),
        (NAME, NAME),
    ],
)
def test_urls_are_absolute_relative_or_a_path_with_a_name_of_ours(url: str, reference: str) -> None:
    concat = read_concat([f"final;{url}"])
    assert concat is not None
    assert concat.parts == [reference]
    assert concat.text == f"final;{url}"


def test_parts_keep_their_order_and_may_be_there_twice() -> None:
    concat = read_concat(["final;?upload=b ?upload=a  ?upload=b"])
    assert concat is not None
    assert concat.parts == ["b", "a", "b"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "final",
        "final;",
        "final; ",
        "Partial",
        "partial;",
        "partial, partial",
        "final,/a?upload=b",
        "final;/upload/a",
        "final;/upload/a?upload=",
        "final;/upload/a?upload=b&upload=c",
        "final;/upload/a?Upload=b",
        f"final;/upload/{NAME}?upload=",
        f"final;/upload/{NAME.upper()}",
        f"final;/upload/{NAME}/",
        f"final;/upload/x{NAME}",
        "final;http://[::1/a?upload=b",
        "final;/a?upload=\udcff",
        "final;?" + "&".join(["a"] * 2000),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    assert "Upload-Concat" in refused(text)


def test_two_lines_are_refused() -> None:
    refused("partial", "partial")
    refused("final;?upload=a", "final;?upload=b")


def test_the_number_of_parts_has_a_limit() -> None:
    most = "final;" + " ".join(f"?upload={number}" for number in range(MAX_CONCAT_PARTS))
    concat = read_concat([most])
    assert concat is not None
    assert len(concat.parts) == MAX_CONCAT_PARTS
    assert str(MAX_CONCAT_PARTS) in refused(most + " ?upload=more")
