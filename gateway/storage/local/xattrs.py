"""The media type and the metadata of a file, in one extended attribute, and its digest in another.

So they share the file's fate through renames, copies (`cp -a`, `rsync -X`) and any number of
processes. A file system without such attributes, or without space for this one, costs the type (it
is guessed from the name again) and the metadata, never the file. Blocking.

The digest is that of a size and a time of change: of a file that was written to since then it is not
read, as of one that others copied without its time. It is as strong as the entity tag, which knows no
more. Its attribute is short: with a SHA-256 it fits into an inode of 256 bytes of ext4, and costs no
block of its own.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import mimetypes
import os
import struct
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from gateway.domain.digests import SIZES, named_digests
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.storage")

ATTRIBUTE: Final = "user.upload-gateway"
DIGEST_ATTRIBUTE: Final = "user.repr-digest"
"""Its value: the algorithm, a NUL, size and mtime (64 bits each, little-endian), the digest."""

UNKNOWN_MIME: Final = "application/octet-stream"

_COMPRESSED: Final = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
    "compress": "application/x-compress",
}
_VERSION: Final = struct.Struct("<qq")
_NO_ATTRIBUTE: Final = frozenset({errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.EACCES})


class FileAttributes(NamedTuple):
    """What an upload declared of a file: its media type (None: nothing) and its metadata.

    `digests` are those of its bytes as they are, in base64 by their name in RFC 9530.
    """

    mime: str | None
    metadata: Mapping[str, str]
    digests: Mapping[str, str]


NO_ATTRIBUTES: Final = FileAttributes(None, {}, {})


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


def write_xattr(fd: int, value: bytes | None) -> None:
    """Set the attribute of an open file, None removes it. A file system that refuses is logged only."""
    if value is not None:
        _write(fd, ATTRIBUTE, value, "the type and metadata of a file cannot be stored: %s")
        return
    with contextlib.suppress(OSError):  # there is none
        os.removexattr(fd, ATTRIBUTE)


def replace_xattr(fd: int, value: bytes | None) -> bool:
    """Let an open file have this attribute, as `write_xattr`; return whether it had another one."""
    try:
        before = os.getxattr(fd, ATTRIBUTE)
    except OSError:
        before = None
    if before == value:
        return False
    write_xattr(fd, value)
    return True


def write_digest(fd: int, algorithm: str, digest: bytes) -> None:
    """Store the digest of an open file as it is now. A file system that refuses is logged only."""
    status = os.fstat(fd)
    version = _VERSION.pack(status.st_size, status.st_mtime_ns)
    value = b"%b\0%b%b" % (algorithm.encode(), version, digest)
    _write(fd, DIGEST_ATTRIBUTE, value, "the digest of a file cannot be stored: %s")


def _write(fd: int, name: str, value: bytes, message: str) -> None:
    try:
        os.setxattr(fd, name, value)
    except OSError as error:
        log.debug(message, error.strerror, extra=event("xattr.refused"))


def read_attributes(fd: int, status: os.stat_result) -> FileAttributes:
    """Return the attributes of an open file that `status` describes; junk of others is ignored."""
    mime, metadata = _read_declared(fd)
    return FileAttributes(mime, metadata, _read_digest(fd, status))


def _read_digest(fd: int, status: os.stat_result) -> Mapping[str, str]:
    """Return the digest of an open file; nothing where it is of another version."""
    try:
        value = os.getxattr(fd, DIGEST_ATTRIBUTE)
    except OSError as error:
        if error.errno in _NO_ATTRIBUTE:
            return {}
        raise
    name, _, rest = value.partition(b"\0")
    algorithm, digest = name.decode(errors="replace"), rest[_VERSION.size :]
    if len(rest) < _VERSION.size or len(digest) != SIZES.get(algorithm):
        return {}
    if _VERSION.unpack_from(rest) != (status.st_size, status.st_mtime_ns):
        return {}
    return named_digests({algorithm: digest})


def _read_declared(fd: int) -> tuple[str | None, Mapping[str, str]]:
    try:
        attributes = json.loads(os.getxattr(fd, ATTRIBUTE))
    except OSError as error:
        if error.errno in _NO_ATTRIBUTE:
            return None, {}
        raise
    except ValueError:
        return None, {}
    if not isinstance(attributes, dict):
        return None, {}
    mime, metadata = attributes.get("mime"), attributes.get("metadata")
    texts = metadata.items() if isinstance(metadata, dict) else ()
    return (
        mime if isinstance(mime, str) else None,
        {name: value for name, value in texts if isinstance(value, str)},
    )
