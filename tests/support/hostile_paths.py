"""Paths that try to leave a root, and the check that they did not."""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import strategies as st

from gateway.errors import Refusal

ROOT = "/srv/data"

BAD_NAMES = (
    " .. ../x . a//b a/ a/../b %2e%2e/x %2E./x ..%2fx a%2F%2Fb %2F a%00b a%0ab a%7f a%C2%85"
    " a%E2%80%A8 a%5Cb a\\b %c0%ae%c0%ae/x %zz %"
)

HOSTILE = st.text(
    st.sampled_from(
        ["%", "2", "e", "E", "5", "c", "f", ".", "/", "\\", "a", "\0", "\n", "é", "．", "\udcff"]
    )
    | st.characters()
)


@contextmanager
def refused(code: str = "bad_path") -> Iterator[None]:
    with pytest.raises(Refusal) as caught:
        yield
    assert caught.value.code == code


def stays_below_root(path: str) -> bool:
    joined = os.path.join(ROOT, path.removeprefix("/"))
    return os.path.normpath(joined) == joined and joined.startswith(ROOT + "/")
