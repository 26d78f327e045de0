"""The folder of partial uploads: rests of crashes go, what is foreign stays, identities pass on."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.domain.model import new_id
from gateway.domain.partial import COMPLETED_TTL
from gateway.storage.local.partial_directory import PartialDirectory
from gateway.storage.local.partial_identities import PartialIdentities
from gateway.storage.local.partial_opening import create_partial, open_partial
from tests.support.partials import partial_head


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[PartialDirectory]:
    opened = PartialDirectory(tmp_path / "partials")
    yield opened
    opened.close()


@pytest.fixture
def identities(folder: PartialDirectory) -> PartialIdentities:
    return folder.identities


def create(folder: PartialDirectory) -> str:
    file = create_partial(folder, partial_head(length=9), 0o640, 0o022)
    file.close()
    return file.upload_id


@pytest.mark.parametrize(
    "suffixes",
    [[".at"], [""], [".at", ""], [".at", "", ".json.new"], [".json"], [".json", ".at"], [".json.new"]],
    ids=lambda suffixes: "+".join(suffix or "body" for suffix in suffixes),
)
def test_what_a_crash_left_without_the_rest_is_removed(
    folder: PartialDirectory, tmp_path: Path, suffixes: list[str]
) -> None:
    whole, upload_id = create(folder), new_id(0)
    for suffix in suffixes:
        (tmp_path / "partials" / f"{upload_id}{suffix}").write_bytes(b"")
    while folder.remove_rests():
        pass
    assert sorted(folder.names()) == [whole, f"{whole}.at", f"{whole}.json", "identities"]


def test_a_head_that_was_being_written_is_removed_and_the_upload_stays(
    folder: PartialDirectory, tmp_path: Path
) -> None:
    upload_id = create(folder)
    (tmp_path / "partials" / f"{upload_id}.json.new").write_bytes(b"")
    assert folder.remove_rests() == 0
    assert sorted(folder.names()) == [
        upload_id,
        f"{upload_id}.at",
        f"{upload_id}.json",
        "identities",
    ]


def test_what_is_open_is_left_alone(folder: PartialDirectory) -> None:
    file = create_partial(folder, partial_head(length=9), 0o640, 0o022)
    folder.remove(f"{file.upload_id}.json")
    assert folder.remove_rests() == 0
    file.close()
    assert folder.remove_rests() >= 1
    assert list(folder.names()) == ["identities"]


def test_foreign_names_stay_and_trouble_nobody(folder: PartialDirectory, tmp_path: Path) -> None:
    partials, upload_id = tmp_path / "partials", create(folder)
    (partials / "notes.txt").write_text("mine")
    (partials / "folder").mkdir()
    (partials / f"{new_id(0)}.jpg").write_bytes(b"")
    (partials / "identities/x").write_bytes(b"")
    (partials / "identities/y").symlink_to("nowhere")
    other = new_id(0)
    (partials / f"{other}.at").mkdir()
    (partials / f"{other}.json").symlink_to("/etc/passwd")
    before = set(folder.names())
    folder.remove_rests()
    assert folder.identities.remove_ended(time.time()) == 0
    assert set(folder.names()) == before
    assert folder.status(other) is None
    assert folder.status(upload_id) is not None


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", json.dumps({"format": 99}).encode()])
def test_an_upload_whose_head_cannot_be_read_is_not_there(
    folder: PartialDirectory, tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    upload_id = create(folder)
    (tmp_path / "partials" / f"{upload_id}.json").write_bytes(content)
    assert folder.status(upload_id) is None
    assert open_partial(folder, upload_id) is None
    assert folder.remove_rests() == 0
    assert "cannot be read" in caplog.text


def test_the_offset_that_is_told_is_on_stable_storage(
    folder: PartialDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have written a cell, and not have synced it yet."""
    file = create_partial(folder, partial_head(length=9), 0o640, 0o022)
    file.begin(unchecked=False)
    file.write([b"123"])
    file.settle()
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    folder.status(file.upload_id)
    assert synced == []
    other = PartialDirectory(Path(f"/proc/self/fd/{folder.fd}"))
    other.status(file.upload_id, durable=False)
    assert synced == []
    status = other.status(file.upload_id)
    assert status is not None
    assert (status.offset, len(synced)) == (3, 1)
    other.status(file.upload_id)
    assert len(synced) == 1
    other.close()


def test_an_identity_passes_to_the_latest_upload(identities: PartialIdentities) -> None:
    first, second = new_id(0), new_id(0)
    assert identities.give("a", first) is None
    assert identities.give("a", second) == first
    identities.end("a", first, completed=False)  # it has it no more
    assert identities.resolve("a") == second
    identities.end("a", second, completed=False)
    assert identities.resolve("a") is None


def test_an_identity_that_cannot_be_read_is_not_taken_for_none(
    identities: PartialIdentities, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id = new_id(0)
    identities.give("a", upload_id)
    with monkeypatch.context() as broken:
        broken.setattr("os.readlink", fails_with_eio)
        for use in (identities.resolve, lambda name: identities.give(name, new_id(0))):
            with pytest.raises(OSError, match="dying"):
                use("a")
    assert identities.resolve("a") == upload_id


def test_an_identity_stays_for_a_day_after_completion(
    folder: PartialDirectory, identities: PartialIdentities
) -> None:
    upload_id = create(folder)
    identities.give("a", upload_id)
    now = time.time()
    assert identities.remove_ended(now + 2 * COMPLETED_TTL) == 0  # the upload is there
    folder.remove_files(upload_id)
    identities.end("a", upload_id, completed=True)
    assert identities.remove_ended(now + COMPLETED_TTL - 60) == 0
    assert identities.resolve("a") == upload_id
    assert identities.remove_ended(now + COMPLETED_TTL + 60) == 0
    assert identities.remove_ended(now) == 0  # the clock was ahead
    assert [identities.remove_ended(now + COMPLETED_TTL + 60) for _ in range(2)] == [0, 1]
    assert identities.resolve("a") is None
    assert os.listdir(Path(f"/proc/self/fd/{folder.fd}/identities")) == []


def test_an_upload_that_gets_an_identity_meanwhile_keeps_it(
    folder: PartialDirectory, identities: PartialIdentities, monkeypatch: pytest.MonkeyPatch
) -> None:
    identities.give("a", new_id(0))
    later = time.time() + 2 * COMPLETED_TTL
    identities.remove_ended(later)
    upload_id = create(folder)
    real, asked = folder.identities._is_ended, 0

    def is_ended(name: str, now: float) -> bool:
        nonlocal asked
        asked += 1
        ended = real(name, now)
        if asked == 1:  # another process, between the look and the removal
            identities.give("a", upload_id)
        return ended

    monkeypatch.setattr(identities, "_is_ended", is_ended)
    identities.remove_ended(later)
    assert identities.resolve("a") == upload_id


def test_a_folder_that_cannot_be_read_is_logged_and_tried_again(
    folder: PartialDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (Path(f"/proc/self/fd/{folder.fd}") / new_id(0)).write_bytes(b"rest")
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", fails_with_eio)
        assert folder.remove_rests() == 0
    assert "cannot be listed" in caplog.text
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", fails_with_eio)
        assert folder.remove_rests() == 0
    assert folder.remove_rests() == 1


def fails_with_eio(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, "the disk is dying")


def test_an_upload_is_not_unknown_where_no_descriptor_is_left(
    folder: PartialDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id, opened = create(folder), folder.open

    def refuse(name: str, *arguments: int) -> int:
        if name.endswith(".json"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(name, *arguments)

    monkeypatch.setattr(folder, "open", refuse)
    for ask in (folder.status, lambda upload_id: open_partial(folder, upload_id)):
        with pytest.raises(OSError, match="Too many open files"):
            ask(upload_id)
    monkeypatch.undo()
    assert folder.status(upload_id) is not None
