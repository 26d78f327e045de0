"""JSON from outside: what could not be encoded again is refused."""

from __future__ import annotations

import pytest

from gateway.domain.json_text import parse_json


@pytest.mark.parametrize(
    "text",
    [r'"\ud83d"', r'"\uDE00\ud83d"', r'{"a": ["\udfff"]}', r'{"\ud83d": 1}', "NaN", "[Infinity]", "{",
     b'"\xff"', b'"\xed\xa0\xbd"', ""],
)  # fmt: skip
def test_text_that_cannot_be_encoded_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (of several classes)
        parse_json(text)


def test_half_a_surrogate_pair_is_told_in_words() -> None:
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        parse_json(r'["\ud83d"]')


@pytest.mark.parametrize(
    ("text", "value"),
    [(r'"\ud83d\ude00"', "\U0001f600"), (r'"\\ud83d"', r"\ud83d"), ('"é"', "é"), ("[1e2]", [100.0])],
)
def test_other_json_is_itself(text: str, value: object) -> None:
    assert parse_json(text) == parse_json(text.encode()) == value
