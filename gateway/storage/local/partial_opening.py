"""Creates partial uploads on the local disk, and opens them. Blocking."""

from __future__ import annotations

import contextlib
import os

from gateway.domain import failpoints
from gateway.domain.partial import PartialHead, PartialStatus
from gateway.storage.local.partial_directory import (
    ASIDE,
    HEAD,
    PartialCommittingError,
    PartialDirectory,
    PartialLockedError,
)
from gateway.storage.local.partial_files import PartialFile


def create_partial(folder: PartialDirectory, head: PartialHead, mode: int, umask: int) -> PartialFile:
    """Create a partial upload, durably; it is open. Raises `OSError`: then nothing is left of it."""
    upload_id, fds = head.upload.id, contextlib.ExitStack()
    cells_fd = folder.lock_new(upload_id)
    fds.callback(os.close, cells_fd)
    try:
        cells = folder.open_cells(upload_id, cells_fd)
        cells.write(0, head.upload.content_length, sync=False)
        body_fd = folder.open(upload_id, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        fds.callback(os.close, body_fd)
        if mode & umask:
            os.fchmod(body_fd, mode)
        folder.write_head(head)
        opened = PartialFile(folder, head, body_fd, cells_fd)  # it syncs the cells
        failpoints.hit("before partial head")
        names = (upload_id + ASIDE, upload_id + HEAD)
        os.rename(*names, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
        folder.sync()
        failpoints.hit("after partial head")
    except BaseException:
        with contextlib.suppress(OSError):
            folder.remove_files(upload_id)
        fds.close()
        raise
    fds.pop_all()
    return opened


def open_partial(folder: PartialDirectory, upload_id: str) -> PartialFile | None:
    """Open a partial upload and settle what a crash left; None where there is none.

    Raises `PartialLockedError` where it is open, `PartialCommittingError` where its body is not here
    yet; `OSError`.
    """
    with contextlib.ExitStack() as fds:
        cells_fd = folder.lock(upload_id)
        if cells_fd is None:
            return None
        fds.callback(os.close, cells_fd)
        head = folder.read_head(upload_id)
        if head is None:
            return None
        try:
            body_fd = folder.open(upload_id, os.O_RDWR)
        except FileNotFoundError:
            if folder.is_being_committed(upload_id) or folder.exists(upload_id):
                raise PartialCommittingError from None
            return None  # it is committed; `remove_rests` removes the head
        fds.callback(os.close, body_fd)
        opened = PartialFile(folder, head, body_fd, cells_fd)
        opened.recover()
        fds.pop_all()
        return opened


def remove_idle(
    folder: PartialDirectory, upload_id: str, latest: float | None = None
) -> PartialStatus | None:
    """Remove a partial upload that is not open; return what it was, None where it cannot be told.

    With `latest` only if no byte has come since that time. One whose head cannot be read is removed too.
    Raises `OSError`.
    """
    try:
        cells_fd = folder.lock(upload_id)
    except PartialLockedError:
        return None
    if cells_fd is None:
        return None
    try:
        if latest not in {None, folder.latest(upload_id)} or folder.is_being_committed(upload_id):
            return None
        status = folder.status(upload_id, durable=False)
        if status is not None and status.head.identity is not None:
            folder.identities.end(status.head.identity, upload_id, completed=False)
        folder.remove_files(upload_id)
        folder.sync()
        return status
    finally:
        os.close(cells_fd)
