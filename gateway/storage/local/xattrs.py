"""The media type and the metadata of a file, in one extended attribute.

So they share the file's fate through renames, copies (`cp -a`, `rsync -X`) and any number of
processes. A file system without such attributes, or without space for this one, costs the type (it
is guessed from the name again) and the metadata, never the file. Blocking.
"""

from __future__ import annotations

import errno
import json
import logging
import mimetypes
import os
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from gateway.telemetry.logs import event

log = logging.getLogger("gateway.storage")

ATTRIBUTE: Final = "user.upload-gateway"
UNKNOWN_MIME: Final = "application/octet-stream"

_COMPRESSED: Final = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
    "compress": "application/x-compress",
}
_NO_ATTRIBUTE: Final = frozenset({errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.EACCES})


class FileAttributes(NamedTuple):
    """What the upload declared of a file: its media type (None: nothing) and its metadata."""

    mime: str | None
    metadata: dict[str, str]


def guess_mime(path: str) -> str:
    """Guess a media type from a name: of compressed content the compression's, not the content's."""
    guessed, coding = mimetypes.guess_type(path.rpartition("/")[2]) if "." in path else (None, None)
    if coding is not None:
        return _COMPRESSED.get(coding, UNKNOWN_MIME)
    return guessed or UNKNOWN_MIME


def encode_xattr(path: str, mime: str | None, metadata: Mapping[str, str]) -> bytes | None:
    """Return the value of the attribute; None, as mostly, where the name says as much."""
    attributes: dict[str, Any] = {"mime": mime} if mime and mime != guess_mime(path) else {}
    if metadata:
        attributes["metadata"] = dict(metadata)
    return json.dumps(attributes, ensure_ascii=False).encode("utf-8", "replace") if attributes else None


def write_xattr(fd: int, value: bytes) -> None:
    """Set the attribute of an open file. A file system that refuses is logged, and no error."""
    try:
        os.setxattr(fd, ATTRIBUTE, value)
    except OSError as error:
        log.debug(
            "the type and metadata of a file cannot be stored: %s",
            error.strerror,
            extra=event("xattr.refused"),
        )


def read_xattr(fd: int) -> FileAttributes:
    """Return what the attribute of an open file says; junk, which others may have set, is ignored."""
    try:
        attributes = json.loads(os.getxattr(fd, ATTRIBUTE))
    except OSError as error:
        if error.errno in _NO_ATTRIBUTE:
            return FileAttributes(None, {})
        raise
    except ValueError:
        return FileAttributes(None, {})
    if not isinstance(attributes, dict):
        return FileAttributes(None, {})
    mime, metadata = attributes.get("mime"), attributes.get("metadata")
    texts = metadata.items() if isinstance(metadata, dict) else ()
    return FileAttributes(
        mime if isinstance(mime, str) else None,
        {name: value for name, value in texts if isinstance(value, str)},
    )
