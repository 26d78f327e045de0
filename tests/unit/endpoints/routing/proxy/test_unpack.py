"""Codings whose libraries may be missing; the others are tested with real upstreams."""

from __future__ import annotations

import importlib

import pytest

from gateway.endpoints.routing.proxy import unpack as unpacking
from gateway.endpoints.routing.proxy.unpack import UnpackError, UnsupportedCodingError, unpack

TEXT = b"text " * 1000


@pytest.mark.parametrize(("coding", "library"), [("br", "brotli"), ("zstd", "backports.zstd")])
def test_what_is_packed_with_a_library_that_is_installed_is_unpacked_within_bounds(
    coding: str, library: str
) -> None:
    pytest.importorskip(library)
    packed = importlib.import_module(library).compress(TEXT)
    assert unpack(packed, coding, len(TEXT)) == TEXT
    for body, limit, told in ((packed, 100, "larger than 100 bytes"), (packed[:-3], 10000, "damaged")):
        with pytest.raises(UnpackError, match=told):
            unpack(body, coding, limit)


@pytest.mark.parametrize("coding", ["br", "zstd"])
def test_without_the_library_the_coding_is_refused_by_name(
    coding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "_module", lambda *_: None)
    with pytest.raises(UnsupportedCodingError, match=f"'{coding}', which cannot be unpacked"):
        unpack(b"x", coding, 100)
