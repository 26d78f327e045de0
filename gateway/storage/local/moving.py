"""Gives a stored file another path: one rename, and both folders are synced.

A rename is atomic: whatever happens, the file has exactly one of both names, with its content, its date
and its attributes, so its entity tag stays the same. Where nothing may be replaced it is `renameat2`
with RENAME_NOREPLACE (Linux, renameat2(2)); a file system that does not know it gets a link and the
removal of the old name, and a crash in between leaves both names: the same call again removes the old
one. Blocking.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Final

from gateway.domain import failpoints, paths
from gateway.domain.model import Identity, OnConflict, new_id
from gateway.errors import Refusal, Superseded
from gateway.storage.local.directory import OpenDirectory
from gateway.storage.local.tree import DirectoryTree

_NOREPLACE: Final = 1
_UNKNOWN_TO_SYSTEM: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})
_libc: Final = ctypes.CDLL(None, use_errno=True)


def move_file(
    tree: DirectoryTree,
    exclusive: Callable[[], AbstractContextManager[None]],
    source: str,
    target: str,
    etag: str | None,
    on_conflict: OnConflict,
) -> str:
    """Move a file; return its new path. `exclusive` keeps other processes from publishing.

    Raises `Superseded` where `etag` is given and the file has another; `Refusal`: `not_found`,
    `conflict`, `bad_path`, `forbidden`, `other_file_system`; `OSError`.
    """
    old, new = paths.check_path(source), paths.check_path(target)
    with contextlib.ExitStack() as stack:
        with exclusive():
            parent = stack.enter_context(_open_source(tree, old, etag))
            if old == new:
                return "/" + "/".join(new)
            into = stack.enter_context(tree.open_parent(new))
            try:
                _rename(parent, into, on_conflict)
            except OSError as error:
                raise _refusal(error) from error
            failpoints.hit("after file moved")
        into.sync()
        parent.sync()
        return "/" + "/".join((*new[:-1], into.name))


def _open_source(tree: DirectoryTree, segments: tuple[str, ...], etag: str | None) -> OpenDirectory:
    try:
        parent = tree.open_existing(segments)
    except (FileNotFoundError, NotADirectoryError):
        raise Refusal("not_found", "there is no such file") from None
    if parent.target_stat is None:
        parent.close()
        raise Refusal("not_found", "there is no such file")
    if etag is not None and Identity.of(parent.target_stat).etag != etag:
        parent.close()
        raise Superseded(f"/{'/'.join(segments)} has been replaced or changed meanwhile")
    return parent


def _rename(parent: OpenDirectory, into: OpenDirectory, on_conflict: OnConflict) -> None:
    if _is_same_file(parent.target_stat, into.target_stat):
        os.unlink(parent.name, dir_fd=parent.fd)  # rename(2) would leave both names
        return
    if on_conflict == "replace":
        os.rename(parent.name, into.name, src_dir_fd=parent.fd, dst_dir_fd=into.fd)
        return
    for name in _names(into.name, on_conflict):
        with contextlib.suppress(FileExistsError):
            _rename_to_free_name(parent, into, name)
            into.name = name
            return
    raise Refusal("conflict", "the file exists, and existing files are not replaced here")


def _is_same_file(source: os.stat_result | None, target: os.stat_result | None) -> bool:
    return source is not None and target is not None and os.path.samestat(source, target)


def _names(name: str, on_conflict: OnConflict) -> Iterator[str]:
    yield name
    if on_conflict == "rename":
        yield from paths.names_beside(name, new_id(0))


def _rename_to_free_name(parent: OpenDirectory, into: OpenDirectory, name: str) -> None:
    """Rename, or raise `FileExistsError`."""
    old, new = os.fsencode(parent.name), os.fsencode(name)
    renameat2 = getattr(_libc, "renameat2", None)
    if renameat2 is not None:
        if renameat2(parent.fd, old, into.fd, new, _NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in _UNKNOWN_TO_SYSTEM:
            raise OSError(number, os.strerror(number))
    os.link(parent.name, name, src_dir_fd=parent.fd, dst_dir_fd=into.fd, follow_symlinks=False)
    failpoints.hit("after move link")
    os.unlink(parent.name, dir_fd=parent.fd)


def _refusal(error: OSError) -> Exception:
    if error.errno == errno.EXDEV:
        return Refusal("other_file_system", "the new path is on another file system")
    if error.errno in {errno.EISDIR, errno.ENOTEMPTY}:
        return Refusal("conflict", "a folder has this name")
    return error
