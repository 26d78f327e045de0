"""The page of plugins/photos as text."""

from __future__ import annotations

import re

import pytest

from tests.support import PROJECT

PLUGIN = PROJECT / "plugins/photos"
PAGE = PLUGIN / "page"


def test_the_policy_names_a_storage_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PLUGIN))
    from photo_page import policy

    told = policy("https://bucket.s3.example")
    assert "img-src 'self' blob: https://bucket.s3.example;" in told
    assert "connect-src 'self' https://bucket.s3.example;" in told


def test_the_page_holds_nothing_inline_and_speaks_to_nobody_else() -> None:
    html = (PAGE / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", html)
    for file in PAGE.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|innerHTML|eval\(|@import", text), file.name


def test_every_field_of_the_page_has_a_label_and_every_file_is_used() -> None:
    html = (PAGE / "index.html").read_text()
    fields = re.findall(r"<(?:input|textarea)\b[^>]*\bid=\"([\w-]+)\"", html, re.DOTALL)
    assert fields
    for name in fields:
        wrapped = re.search(rf"<label>[^<]*<(?:input|textarea)\b[^>]*id=\"{name}\"", html)
        assert wrapped or f'for="{name}"' in html, name
    texts = "".join(file.read_text() for file in PAGE.iterdir())
    assert [f.name for f in PAGE.iterdir() if f.name != "index.html" and f.name not in texts] == []
