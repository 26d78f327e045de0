"""The allow lists of media types and names."""

from __future__ import annotations

import pytest

from gateway.endpoints.uploads.allowed_files import check_allowed
from gateway.errors import ConfigError, Refusal
from gateway.settings import load


def is_allowed(content_type: str | None, path: str, **lists: list[str]) -> bool:
    try:
        check_allowed(load(dict(lists), {}), content_type, path)
    except Refusal as refusal:
        return refusal.code != "unsupported_media_type"
    return True


def test_without_lists_every_file_is_allowed() -> None:
    assert is_allowed("application/x-odd", "/upload/x.exe")


@pytest.mark.parametrize(
    ("content_type", "path", "allowed"),
    [
        ("image/png", "/upload/x", True),
        ("IMAGE/Png; q=1", "/upload/x.txt", True),
        ("application/pdf", "/upload/x", True),
        ("application/pdf2", "/upload/x.pdf", False),
        ("imagex/png", "/upload/x.png", False),
        ("image", "/upload/x.png", False),
        ("image/png, text/html", "/upload/x.png", False),
        ("text/html", "/upload/x.png", False),
        (None, "/upload/x.PNG", True),
        ("", "/upload/x.png", True),
        ("application/octet-stream", "/upload/x.pdf", True),
        ("binary/octet-stream; a=b", "/upload/x.pdf", True),
        ("application/octet-stream", "/upload/x.bin", False),
        (None, "/upload/pdf", False),
        (None, "/upload.pdf/x", False),
        (None, "/upload/x.pdf.gz", False),
    ],
)
def test_the_declared_type_counts_and_else_the_name(
    content_type: str | None, path: str, allowed: bool
) -> None:
    assert is_allowed(content_type, path, types=["Image/*", "application/pdf"]) is allowed


def test_a_type_that_nobody_knows_is_allowed_by_its_own_name() -> None:
    assert is_allowed(None, "/upload/x", types=["application/octet-stream"])


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/upload/x.jpg", True),
        ("/upload/x.JPG", True),
        ("/upload/a/x.tar.gz", True),
        ("/upload/x.gz", False),
        ("/upload/.jpg", False),
        ("/upload/xjpg", False),
        ("/upload/x.jpg.exe", False),
        ("/upload/x.jpg/y", False),
        ("/upload/x.jpg ", False),
    ],
)
def test_the_end_of_the_name_counts_whatever_its_case(path: str, allowed: bool) -> None:
    assert is_allowed("text/plain", path, suffixes=[".Jpg", ".tar.gz"]) is allowed


def test_with_both_lists_both_must_allow_the_file() -> None:
    lists = {"types": ["image/*"], "suffixes": [".png"]}
    assert is_allowed("image/png", "/upload/x.png", **lists)
    assert not is_allowed("image/png", "/upload/x.jpg", **lists)
    assert not is_allowed("text/html", "/upload/x.png", **lists)


def test_the_refusal_names_what_is_allowed() -> None:
    settings = load({"types": ["image/*", "application/pdf"], "suffixes": [".pdf"]}, {})
    with pytest.raises(Refusal) as caught:
        check_allowed(settings, "text/html", "/upload/x.pdf")
    assert caught.value.headers == {"Accept": "image/*, application/pdf"}
    assert "image/*, application/pdf" in caught.value.message
    with pytest.raises(Refusal, match=r"end in \.pdf"):
        check_allowed(settings, "image/png", "/upload/x.png")


@pytest.mark.parametrize("text", ["pdf", "image/", "*/*", "image/*/*", "image /png", "a/b;c=d"])
def test_what_is_no_media_type_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ConfigError, match="must be a media type"):
        load({"types": [text]}, {})


@pytest.mark.parametrize("text", ["pdf", ".", "*.pdf", ".p/f", ". pdf"])
def test_what_is_no_suffix_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ConfigError, match="must be the end of a file name"):
        load({"suffixes": [text]}, {})
