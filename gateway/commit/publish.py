"""A sealed, journalled body gets its final name, or somebody else was first.

Replacing is a rename. Where nothing may be replaced it is a hard link and then the removal of
the private name: `link` alone refuses a taken name on every POSIX file system, and recovery can
tell the step between by the link count. Blocking; called by the committer's thread only. May
import `storage`, `paths`, `model`, `errors`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Container, Iterator

from gateway.domain import failpoints
from gateway.domain.model import Upload
from gateway.errors import Refusal
from gateway.storage.local.directory import OpenDirectory
from gateway.storage.local.incoming import IncomingDirectory

Name = tuple[int, int, str]
"""A directory entry: device and inode of the folder, and the name in it."""

NUMBERED_NAMES = 20
"""`rename` counts up this far (`a-1.bin`, `a-2.bin`), then it takes a part of the upload's id."""

LONGEST_SUFFIX = 32
"""Bytes behind the last dot that count as a suffix to be kept; more is part of the name."""


class NameTakenError(Exception):
    """The name was taken between the look and the link."""


def choose_name(upload: Upload, parent: OpenDirectory, taken: Container[Name]) -> bool:
    """Settle the conflict policy for `parent.name`; return whether a file stands there already.

    With `rename` a free name is put into `parent.name`. `taken` are names given away in the same
    batch. Raises `Refusal`: `already_exists` (If-None-Match), `conflict` (reject, or no free name).
    """
    if parent.target_stat is None and (*parent.folder, parent.name) not in taken:
        return False
    if upload.must_be_new:
        raise Refusal("already_exists", "If-None-Match: *, and the file exists")
    if upload.on_conflict == "reject":
        raise Refusal("conflict", "the file exists, and existing files are not replaced here")
    if upload.on_conflict == "rename":
        parent.name = free_name(upload, parent, taken)
        return False
    return True


def free_name(upload: Upload, parent: OpenDirectory, taken: Container[Name]) -> str:
    """Return a name beside `parent.name` that nobody has. Raises `Refusal("conflict")`."""
    for name in names_beside(parent.name, upload.id):
        if not _exists(parent, name, taken):
            return name
    raise Refusal("conflict", "no free name was found beside the existing file")


def names_beside(name: str, upload_id: str) -> Iterator[str]:
    """Yield names to try where `name` is taken: `a-1.bin`, `a-2.bin`, then parts of the upload's id."""
    stem, dot, suffix = name.rpartition(".")
    if not stem or len(suffix.encode()) > LONGEST_SUFFIX:
        stem, dot, suffix = name, "", ""
    for mark in (*map(str, range(1, NUMBERED_NAMES)), upload_id[10:26], upload_id):
        tail = f"-{mark}{dot}{suffix}"
        yield _shorten(stem, 255 - len(tail.encode())) + tail


def replace(incoming: IncomingDirectory, upload_id: str, parent: OpenDirectory) -> None:
    """Rename the body to `parent.name`, over the file, or the link itself, that stands there.

    Raises `Refusal("conflict")` for a folder, `OSError` if nothing was changed.
    """
    try:
        os.rename(upload_id, parent.name, src_dir_fd=incoming.fd, dst_dir_fd=parent.fd)
    except IsADirectoryError:
        raise Refusal("conflict", "a folder has taken the name") from None


def add(incoming: IncomingDirectory, upload_id: str, parent: OpenDirectory) -> None:
    """Give the body the name `parent.name` if nobody has it. Raises `NameTakenError`, or `OSError`."""
    try:
        os.link(
            upload_id,
            parent.name,
            src_dir_fd=incoming.fd,
            dst_dir_fd=parent.fd,
            follow_symlinks=False,
        )
    except FileExistsError as fault:
        raise NameTakenError from fault
    failpoints.hit("after link")
    # The upload is published: a private name that stays behind is recovery's to remove.
    with contextlib.suppress(OSError):
        incoming.remove(upload_id)


def _exists(parent: OpenDirectory, name: str, taken: Container[Name]) -> bool:
    if (*parent.folder, name) in taken:
        return True
    try:
        os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _shorten(stem: str, room: int) -> str:
    return stem.encode()[: max(room, 1)].decode(errors="ignore")
