"""The digest in an attribute of a file: read only where the file is what it was then."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from gateway.storage.local.xattrs import DIGEST_ATTRIBUTE, read_attributes, write_digest


@pytest.fixture
def file(tmp_path: Path) -> Path:
    place = tmp_path / "file"
    place.write_bytes(b"body")
    fd = os.open(place, os.O_WRONLY)
    write_digest(fd, "sha256", hashlib.sha256(b"body").digest())
    os.close(fd)
    return place


def digests(place: Path) -> dict[str, str]:
    with place.open("rb") as opened:
        return dict(read_attributes(opened.fileno(), os.fstat(opened.fileno())).digests)


def test_a_digest_is_read_under_its_name_and_follows_the_file(file: Path) -> None:
    assert digests(file) == {"sha-256": "Iw2DWNyOiJC0xY3utikS7i8gNXrpKlzIYbmOaP4xrLU="}
    moved = file.rename(file.with_name("moved"))
    assert digests(moved)
    os.link(moved, file)
    assert digests(file)


def test_a_copy_keeps_it_with_its_time_or_not_at_all(file: Path) -> None:
    whole, without_time = file.with_name("whole"), file.with_name("without time")
    shutil.copy2(file, whole)
    shutil.copyfile(file, without_time)
    os.setxattr(without_time, DIGEST_ATTRIBUTE, os.getxattr(file, DIGEST_ATTRIBUTE))
    assert digests(whole)
    assert not digests(without_time)


def test_a_file_that_was_written_to_has_none(file: Path) -> None:
    before = file.stat()
    file.write_bytes(b"BODY")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert not digests(file)
    file.write_bytes(b"longer body")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not digests(file)


@pytest.mark.parametrize(
    "junk", [b"", b"sha256", b"sha256\0", b"sha256\0" + bytes(16), b"\xff\0" + bytes(48), b"none\0"]
)
def test_junk_of_others_is_no_digest(file: Path, junk: bytes) -> None:
    os.setxattr(file, DIGEST_ATTRIBUTE, junk)
    assert digests(file) == {}


def test_a_file_system_without_attributes_costs_the_digest_only(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> bytes:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(os, "setxattr", refused)
    monkeypatch.setattr(os, "getxattr", refused)
    with file.open("rb") as opened:
        write_digest(opened.fileno(), "sha256", bytes(32))
    assert digests(file) == {}
