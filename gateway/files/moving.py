"""`files.move`: the storage moves the file, then the journal learns where the upload is now.

A crash in between, or a handler that fails after it, leaves the file at its new path: the same call
again finds it there and completes the journal.
"""

from __future__ import annotations

from gateway.domain.model import ON_CONFLICT, OnConflict, new_id
from gateway.domain.paths import names_beside
from gateway.errors import Refusal, Superseded
from gateway.files.event_errors import event_errors
from gateway.files.versions import FileVersion, UploadVersions
from gateway.storage.protocols import MovingStorage, Stat, Storage
from gateway.storage.s3.encoding import UPLOAD_ID_NAME

GATEWAYS_ONLY = "a worker cannot move files: let a gateway run this handler"


async def move_version(
    storage: Storage,
    versions: UploadVersions | None,
    version: FileVersion,
    path: str,
    on_conflict: OnConflict,
    upload_id: str | None = None,
) -> Stat:
    """Move a version of a file, that of the upload `upload_id`, see `FilesService.move`."""
    if on_conflict not in ON_CONFLICT:
        raise ValueError(f"on_conflict must be one of {', '.join(ON_CONFLICT)}")
    if version.owner is not None or not isinstance(storage, MovingStorage):
        raise RuntimeError(GATEWAYS_ONLY)
    target = path if path.startswith("/") else f"/{path}"
    if upload_id is None:
        moved = await storage.move(version.path, target, etag=version.etag, on_conflict=on_conflict)
    else:
        moved = await _move_of_event(storage, version, target, on_conflict)
    upload_id = upload_id or moved.metadata.get(UPLOAD_ID_NAME)
    if upload_id is not None and versions is not None:
        await versions.moved(upload_id, moved)
    return moved


async def _move_of_event(
    storage: MovingStorage, version: FileVersion, target: str, on_conflict: OnConflict
) -> Stat:
    try:
        with event_errors(version):
            return await storage.move(version.path, target, etag=version.etag, on_conflict=on_conflict)
    except Superseded:
        moved = await _moved_before(storage, version, target, on_conflict)
        if moved is None:
            raise
        return moved


async def _moved_before(
    storage: MovingStorage, version: FileVersion, target: str, on_conflict: OnConflict
) -> Stat | None:
    """Return the file of an event where an earlier call has moved it to `target` or beside it."""
    folder, _, name = target.rpartition("/")
    beside = names_beside(name, new_id(0)) if on_conflict == "rename" else ()
    for path in (target, *(f"{folder}/{other}" for other in beside)):
        try:
            moved = await storage.stat(path)
        except Refusal:
            continue
        upload_id = moved.metadata.get(UPLOAD_ID_NAME)
        if moved.etag == version.etag if upload_id is None else upload_id == version.upload_id:
            return moved
    return None
