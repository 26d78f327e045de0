"""Maps failures of the disk and the journal to refusals, and logs those that no client caused."""

from __future__ import annotations

import errno
import logging
import sqlite3

from gateway.errors import Refusal, descriptor_refusal
from gateway.storage.local.incoming import NO_SPACE_ERRNOS, IncomingFile
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.commit")


def refusal_of(error: Exception) -> Refusal:
    """Return the refusal that tells why nothing was stored."""
    if isinstance(error, Refusal):
        return error
    if (refusal := descriptor_refusal(error)) is not None:
        log.error("an upload could not be stored: %s", error, extra=event("descriptors.exhausted"))
        return refusal
    if isinstance(error, OSError) and error.errno in NO_SPACE_ERRNOS:
        return Refusal("no_space", "the disk is full: nothing was stored")
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return Refusal("too_large", "the file system cannot hold a file of this size")
    if isinstance(error, sqlite3.Error):
        log.error("the journal cannot be written: %s", error, extra=event("journal.unavailable"))
        return Refusal("journal_unavailable", "the journal cannot be written now: try again later")
    log.error("an upload could not be stored", exc_info=error, extra=event("commit.failed"))
    return Refusal("internal", "the file could not be stored; the server log has details")


def discard_quietly(file: IncomingFile) -> None:
    """Remove the file of a body. A failure is logged: the next start removes the file."""
    try:
        file.discard()
    except OSError as error:
        log.error(
            "the incoming file of upload %s could not be removed: %s",
            file.upload_id,
            error,
            extra=event("incoming_file.leaked", upload_id=file.upload_id),
        )
