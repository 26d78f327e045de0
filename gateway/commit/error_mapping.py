"""Faults of disk and journal, told in the error table's words.

One rule: what is not the client's doing is logged here.
"""

from __future__ import annotations

import errno
import logging
import sqlite3

from gateway.errors import Refusal
from gateway.storage.local.incoming import NO_SPACE_ERRNOS, IncomingFile

log = logging.getLogger("gateway.commit")


def refusal_of(fault: Exception) -> Refusal:
    """Say in the error table's words why nothing was stored; log what is not the client's doing."""
    if isinstance(fault, Refusal):
        return fault
    if isinstance(fault, OSError) and fault.errno in NO_SPACE_ERRNOS:
        return Refusal("no_space", "the disk is full: nothing was stored")
    if isinstance(fault, OSError) and fault.errno == errno.EFBIG:
        return Refusal("too_large", "the file system takes no file of this size")
    if isinstance(fault, sqlite3.Error):
        log.error("the journal cannot be written: %s", fault)
        return Refusal("journal_unavailable", "the journal cannot be written now")
    log.error("an upload could not be stored", exc_info=fault)
    return Refusal("internal", "the file could not be stored; the server's log knows why")


def discard_quietly(body: IncomingFile) -> None:
    """Remove a body; a disk that refuses even that is logged, and the next start sweeps it."""
    try:
        body.discard()
    except OSError as fault:
        log.error("the body of %s could not be removed: %s", body.upload_id, fault)
