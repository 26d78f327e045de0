"""Gives a finalized, journalled body its final name, unless another file has it already.

Replacing is a rename. Where nothing may be replaced it is a hard link and then the removal of the
private name: `link` refuses an existing name on every POSIX file system, and recovery recognizes the
state in between by the link count. Blocking; called by the committer's thread only.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Container

from gateway.domain import failpoints
from gateway.domain.model import Upload
from gateway.domain.paths import names_beside
from gateway.errors import Refusal
from gateway.storage.local.directory import OpenDirectory
from gateway.storage.local.incoming import IncomingDirectory
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.commit")

Name = tuple[int, int, str]
"""A directory entry: device and inode of the folder, and the name in it."""


class NameTakenError(Exception):
    """Another process created the name between the check and the link."""


def name_taken(upload: Upload) -> Refusal:
    """Return the refusal for a target that exists and may not be replaced."""
    if upload.must_be_new:
        return Refusal("already_exists", "If-None-Match: *, and the file exists")
    return Refusal("conflict", "the file exists, and existing files are not replaced here")


def check_target(upload: Upload, *, exists: bool, must_exist: bool = False) -> None:
    """Check an upload against what its path holds now. Raises `Refusal`."""
    if must_exist and not exists:
        raise Refusal("precondition_failed", "If-Match is not met")
    if exists and (upload.must_be_new or upload.on_conflict == "reject"):
        raise name_taken(upload)


def choose_name(upload: Upload, parent: OpenDirectory, batch_names: Container[Name]) -> bool:
    """Apply the conflict policy to `parent.name`; return whether a file is replaced.

    With `rename` a free name is put into `parent.name`. `batch_names` are names given in the same batch.
    Raises `Refusal`: `already_exists` (If-None-Match), `conflict` (reject, or no free name).
    """
    exists = parent.target_stat is not None or (*parent.folder, parent.name) in batch_names
    check_target(upload, exists=exists)
    if exists and upload.on_conflict == "rename":
        parent.name = free_name(upload, parent, batch_names)
        return False
    return exists


def free_name(upload: Upload, parent: OpenDirectory, batch_names: Container[Name]) -> str:
    """Return a name beside `parent.name` that does not exist. Raises `Refusal("conflict")`."""
    for name in names_beside(parent.name, upload.id):
        if not _exists(parent, name, batch_names):
            return name
    raise Refusal("conflict", "no free name was found beside the existing file")


def replace(incoming: IncomingDirectory, upload_id: str, parent: OpenDirectory) -> None:
    """Rename the body to `parent.name`, over the file, or the link itself, of that name.

    Raises `Refusal("conflict")` for a folder, `OSError` if nothing was changed.
    """
    try:
        os.rename(upload_id, parent.name, src_dir_fd=incoming.fd, dst_dir_fd=parent.fd)
    except IsADirectoryError:
        raise Refusal("conflict", "a folder has this name") from None


def add(incoming: IncomingDirectory, upload_id: str, parent: OpenDirectory) -> bool:
    """Give the body the name `parent.name` if that is free; return whether the private one is gone.

    A private name that stays is no failure: the upload is published. Raises `NameTakenError`, `OSError`.
    """
    try:
        os.link(
            upload_id, parent.name, src_dir_fd=incoming.fd, dst_dir_fd=parent.fd, follow_symlinks=False
        )
    except FileExistsError as error:
        raise NameTakenError from error
    failpoints.hit("after link")
    try:
        incoming.remove(upload_id)
    except OSError as error:
        log.error(
            "the private name of upload %s could not be removed: %s",
            upload_id,
            error,
            extra=event("incoming_file.leaked", upload_id=upload_id),
        )
        return False
    return True


def _exists(parent: OpenDirectory, name: str, batch_names: Container[Name]) -> bool:
    if (*parent.folder, name) in batch_names:
        return True
    try:
        os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
