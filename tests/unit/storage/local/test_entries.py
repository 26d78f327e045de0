"""Scans of one open folder do not disturb each other: each reads all entries."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.domain.model import new_id
from gateway.storage.local.entries import scan
from gateway.storage.local.held_directory import HeldDirectory
from gateway.storage.local.incoming import IncomingDirectory
from gateway.storage.local.partial_directory import HEAD, PartialDirectory
from gateway.storage.local.storage import LocalStorage
from gateway.storage.local.tree import DirectoryTree
from gateway.storage.protocols import Stat
from tests.support import PROJECT


def test_a_scan_reads_all_entries_while_another_one_goes_on(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).touch()
    fd = os.open(tmp_path, os.O_RDONLY)
    with scan(fd) as first:
        seen = {next(first).name}
        with scan(fd) as second:
            assert {entry.name for entry in second} == {"a", "b", "c"}
        seen.update(entry.name for entry in first)
    assert seen == {"a", "b", "c"}
    os.close(fd)


def test_a_scan_begins_at_the_first_entry_and_leaves_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    fd = os.open(tmp_path, os.O_RDONLY)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        with scan(fd) as entries:
            assert [entry.name for entry in entries] == ["a"]
    with pytest.raises(ZeroDivisionError), scan(fd):
        raise ZeroDivisionError
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(fd)


def test_a_folder_that_was_removed_has_no_entries(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    fd = os.open(tmp_path / "gone", os.O_RDONLY)
    (tmp_path / "gone").rmdir()
    with scan(fd) as entries:
        assert list(entries) == []
    os.close(fd)


Folder = PartialDirectory | IncomingDirectory | HeldDirectory


@pytest.mark.parametrize(
    ("opened", "suffix"), [(PartialDirectory, HEAD), (IncomingDirectory, ""), (HeldDirectory, "")]
)
def test_uploads_are_listed_whole_while_another_list_of_them_goes_on(
    opened: Callable[[Path], Folder], suffix: str, tmp_path: Path
) -> None:
    folder = opened(tmp_path / "folder")
    ids = {new_id(0) for _ in range(3)}
    for upload_id in ids:
        (tmp_path / "folder" / f"{upload_id}{suffix}").touch()
    other: Iterator[str] = folder.upload_ids()
    next(other)
    assert set(folder.upload_ids()) >= ids
    folder.close()


async def test_the_root_is_listed_whole_wherever_another_reader_of_its_descriptor_is(
    tmp_path: Path,
) -> None:
    for name in "abc":
        (tmp_path / name).touch()
    tree = DirectoryTree(tmp_path, [])
    fd = tree.open_folder(())
    with os.scandir(fd) as other:  # moves the position that duplicates of the root's descriptor share
        next(other)
        assert {stat.path async for stat in LocalStorage(tree).list("")} == {"/a", "/b", "/c"}
        page = await LocalStorage(tree).list_folder("/")
    assert [entry.path for entry in page.entries if isinstance(entry, Stat)] == ["/a", "/b", "/c"]
    os.close(fd)
    tree.close()


def test_no_other_module_reads_a_folder_by_its_descriptor() -> None:
    by_descriptor = re.compile(r"os\.scandir\(|os\.listdir\([\w.]*fd\)")
    reading = [
        str(path.relative_to(PROJECT))
        for path in (PROJECT / "gateway").rglob("*.py")
        if by_descriptor.search(path.read_text())
    ]
    assert reading == ["gateway/storage/local/entries.py"]
