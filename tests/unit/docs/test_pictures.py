"""The pictures of the docs: each is made by a test, and shown by a page."""

from __future__ import annotations

from tests.support import PROJECT

PICTURES = sorted((PROJECT / "docs/pictures").glob("*.png"))


def test_each_picture_is_made_by_a_test_and_shown_by_a_page() -> None:
    tests = "".join(path.read_text() for path in (PROJECT / "tests/integration").rglob("*.py"))
    pages = "".join(path.read_text() for path in (PROJECT / "docs").rglob("*.md"))
    pages += (PROJECT / "README.md").read_text()
    assert [file.name for file in PICTURES if f'"{file.stem}"' not in tests] == []
    assert [file.name for file in PICTURES if f"pictures/{file.name}" not in pages] == []


def test_pictures_are_small() -> None:
    assert {file.name for file in PICTURES if file.stat().st_size > 150_000} == set()
