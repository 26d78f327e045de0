"""What a file is, beyond its bytes: its media type, and the metadata sent along with it.

One rule: an object store keeps both with the object, a local disk in one extended attribute of the
file, so that they share its fate through renames, copies (`cp -a`, `rsync -X`) and any number of
processes. A file system without such attributes, or without room for this one, costs the type (it
is guessed from the name again) and the metadata, never the file. Blocking; may import nothing.
"""

from __future__ import annotations

import errno
import json
import logging
import mimetypes
import os
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

log = logging.getLogger("gateway.storage")

ATTRIBUTE: Final = "user.upload-gateway"
UNKNOWN_MIME: Final = "application/octet-stream"

_COMPRESSED: Final = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
    "compress": "application/x-compress",
}
_NOTHING_THERE: Final = frozenset({errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.EACCES})


class FileAttributes(NamedTuple):
    """What somebody said of a file: its media type (None: nobody did) and its metadata."""

    mime: str | None
    metadata: dict[str, str]


def guess_mime(path: str) -> str:
    """Guess a media type from a name. What is compressed is told as that, not as what is inside."""
    guessed, coding = mimetypes.guess_type(path.rpartition("/")[2]) if "." in path else (None, None)
    if coding is not None:
        return _COMPRESSED.get(coding, UNKNOWN_MIME)
    return guessed or UNKNOWN_MIME


def encode_xattr(path: str, mime: str | None, metadata: Mapping[str, str]) -> bytes | None:
    """Return what is to be written on a file; None, as mostly, where its name tells as much."""
    said: dict[str, Any] = {"mime": mime} if mime and mime != guess_mime(path) else {}
    if metadata:
        said["metadata"] = dict(metadata)
    return json.dumps(said, ensure_ascii=False).encode("utf-8", "replace") if said else None


def write_xattr(fd: int, note: bytes) -> None:
    """Put a note on an open file. Where the file system takes none the log says so, and that is all."""
    try:
        os.setxattr(fd, ATTRIBUTE, note)
    except OSError as fault:
        log.debug("the type and metadata of a file cannot be kept: %s", fault.strerror)


def read_xattr(fd: int) -> FileAttributes:
    """Return what was noted on an open file; junk, which others may have written, counts as nothing."""
    try:
        said = json.loads(os.getxattr(fd, ATTRIBUTE))
    except OSError as fault:
        if fault.errno in _NOTHING_THERE:
            return FileAttributes(None, {})
        raise
    except ValueError:
        return FileAttributes(None, {})
    if not isinstance(said, dict):
        return FileAttributes(None, {})
    mime, metadata = said.get("mime"), said.get("metadata")
    texts = metadata.items() if isinstance(metadata, dict) else ()
    return FileAttributes(
        mime if isinstance(mime, str) else None,
        {name: value for name, value in texts if isinstance(value, str)},
    )
