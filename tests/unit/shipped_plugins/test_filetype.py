"""plugins/filetype on the beginnings of real files: what is declared, and what the bytes are."""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.support import PROJECT

sys.path.append(str(PROJECT / "plugins/filetype"))

from filetype_check import HEAD_BYTES, Checked, CheckSettings
from filetype_check import check as check_head


def picture(form: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(file, form)
    return file.getvalue()


def archive(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as writing:
        for name in names:
            writing.writestr(name, "x")
    return file.getvalue()


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as writing:
        writing.addfile(tarfile.TarInfo("a"))
    return file.getvalue()


PNG, JPEG, ZIP = picture("PNG"), picture("JPEG"), archive("a")
PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"
EXE = Path(sys.executable).read_bytes()[:9000]
"""A program of this machine."""

TEXT = b"hello, world\n"


HTML = b"<!DOCTYPE html><html><script>alert(1)</script>"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'
OLE = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(500)
MP4 = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2"
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0heic"
MIF1 = b"\0\0\0\x18ftypmif1\0\0\0\0heic"


def check(head: bytes, path: str, content_type: str | None = None, **config: object) -> Checked:
    return check_head(head[:HEAD_BYTES], path, content_type, CheckSettings.of(config))


@pytest.mark.parametrize(
    ("head", "path", "content_type", "detected"),
    [
        (PNG, "/upload/a.png", "image/png", "image/png"),
        (PNG, "/upload/a.PNG", None, "image/png"),
        (PNG, "/upload/a", None, "image/png"),
        (PNG, "/upload/a", "application/octet-stream", "image/png"),
        (PNG, "/upload.d/a", "image/png; x=y", "image/png"),
        (JPEG, "/upload/a.jpeg", "image/jpg", "image/jpeg"),
        (JPEG, "/upload/a.jpg", "image/jpeg", "image/jpeg"),
        (picture("GIF"), "/a.gif", None, "image/gif"),
        (picture("WEBP"), "/a.webp", "image/webp", "image/webp"),
        (picture("BMP"), "/a.bmp", "image/bmp", "image/bmp"),
        (picture("TIFF"), "/a.tif", "image/tiff", "image/tiff"),
        (PDF, "/a.pdf", "application/pdf", "application/pdf"),
        (b"\n\n" + PDF, "/a.pdf", None, "application/pdf"),
        (ZIP, "/a.zip", "application/x-zip-compressed", "application/zip"),
        (archive("[Content_Types].xml", "word/document.xml"), "/a.docx", None,
         "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        (ZIP, "/a.kmz", None, None),
        (gzip.compress(b"x", mtime=0), "/a.tar.gz", "application/gzip", "application/x-gzip"),
        (tar(), "/a.tar", "application/x-tar", "application/x-tar"),
        (MP4, "/a.mp4", "video/mp4", "video/mp4"),
        (MP4, "/a.m4a", "audio/mp4", None),
        (HEIC, "/a.heic", "image/heic", None),
        (OLE, "/a.doc", "application/msword", "application/msword"),
        (OLE, "/a.xls", None, "application/vnd.ms-excel"),
        (b"{\\rtf1 text}", "/a.doc", None, None),
        (EXE, "/a", None, None),
        (TEXT, "/a.txt", "text/plain; charset=utf-8", "text/plain"),
        (TEXT, "/a", None, "text/plain"),
        (b"a,b\n1,2\n", "/a.csv", "text/csv", "text/csv"),
        (b'{"a": 1}', "/a.json", "application/json", "application/json"),
        (b"[1]", "/a.json", None, "application/json"),
        ("h\u00e9llo".encode("utf-16"), "/a.txt", None, None),
        (b"BMWs are cars\n", "/a.txt", None, "text/plain"),
        (b"RIFF is a word\n", "/a.md", None, None),
        (b"import os\n", "/a.py", None, "text/x-python"),
        (HTML, "/a.html", "text/html", "text/html"),
        (SVG, "/a.svg", "image/svg+xml", "image/svg+xml"),
    ],
)  # fmt: skip
def test_a_file_that_is_what_it_is_declared_to_be_is_accepted(
    head: bytes, path: str, content_type: str | None, detected: str | None
) -> None:
    checked = check(head, path, content_type)
    assert checked.refusal is None
    assert checked.outcome in {"match", "undetected"}
    if detected is not None:
        assert checked.result == {"outcome": "match", "detected": detected}


@pytest.mark.parametrize(
    ("head", "path", "content_type"),
    [
        (EXE, "/a.txt", None), (EXE, "/a.png", None), (EXE, "/a.pdf", "application/pdf"),
        (EXE, "/a.mp4", None), (EXE, "/a", "text/csv"), (EXE, "/a.json", None), (EXE, "/a.svg", None),
        (PNG, "/a.jpg", None), (PNG, "/a.jpg", "image/png"), (PNG, "/a.png", "image/jpeg"),
        (PNG, "/a.mp4", None), (PNG, "/a.mp3", None), (PNG, "/a.txt", None), (PNG, "/a.html", None),
        (HTML, "/a.png", None), (HTML, "/a.pdf", None), (HTML, "/a", "image/gif"),
        (TEXT, "/a.zip", None),
        (SVG, "/a.png", None), (b"", "/a.png", None), (PDF, "/a.txt", None), (PDF, "/a.docx", None),
        (ZIP, "/a.txt", None), (ZIP, "/a.pdf", None), (ZIP, "/a.tar", None), (OLE, "/a.docx", None),
        (b'{"a":1}\0', "/a.json", None), (MP4, "/a.jpg", None), (b"MZ", "/a.gif", None),
    ],
)  # fmt: skip
def test_a_file_that_is_something_else_is_refused_or_marked(
    head: bytes, path: str, content_type: str | None
) -> None:
    refused = check(head, path, content_type)
    assert refused.outcome == "mismatch"
    assert refused.refusal is not None
    assert refused.refusal["error"] == "type_mismatch"
    marked = check(head, path, content_type, mismatch="mark")
    assert (marked.outcome, marked.refusal) == ("mismatch", None)
    assert marked.result == refused.result


@pytest.mark.parametrize(
    ("head", "path"),
    [(bytes(100), "/a"), (bytes(100), "/a.bin"), (bytes(100), "/a.xyz"), (bytes(100), "/a.mp3"),
     (b"", "/a"), (b"\x80\0" * 50, "/a.dat"), (MIF1, "/a.heic"), (MIF1, "/a.avif")],
)  # fmt: skip
def test_a_file_of_which_nothing_is_known_is_accepted_unless_types_are_listed(
    head: bytes, path: str
) -> None:
    assert check(head, path).refusal is None
    listed = check(head, path, types=["image/png", "text/csv"])
    assert listed.refusal is not None
    assert listed.refusal["error"] == "type_not_allowed"
    allowed = check(head, path, types=["image/png"], undetected="allow")
    assert (allowed.refusal is None) == (allowed.outcome == "undetected")


def test_only_what_the_bytes_tell_counts_for_the_types_that_are_allowed() -> None:
    def allowed(head: bytes, path: str, *types: str, content_type: str | None = None) -> bool:
        return check(head, path, content_type, types=list(types), mismatch="mark").refusal is None

    assert allowed(PNG, "/a.png", "image/png")
    assert allowed(PNG, "/a", "Image/*", "application/pdf")
    assert allowed(JPEG, "/a.jpg", "image/jpg")
    assert allowed(b"a,b\n", "/a.csv", "text/csv")
    assert not allowed(PNG, "/a.png", "image/jpeg", "text/*")
    assert not allowed(EXE, "/a.png", "image/png")
    assert not allowed(EXE, "/a", "image/png", content_type="image/png")
    assert not allowed(TEXT, "/a", "image/png", content_type="image/png")
    assert allowed(PNG, "/a.jpg", "image/png")  # marked: it is a picture of the type that is allowed


@pytest.mark.parametrize(
    "config",
    [{"kinds": []}, {"mismatch": "allow"}, {"undetected": "mark"}, {"types": "png"}, {"types": ["png"]}],
)
def test_a_config_that_is_not_valid_is_named(config: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="config filetype"):
        CheckSettings.of(config)


@pytest.fixture(autouse=True)
def plugin_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tests import the plugin's modules by their names, as its scripts do."""
    monkeypatch.syspath_prepend(str(PROJECT / "plugins/filetype"))
