"""S3 room: which key of the bucket a path has, and back.

One rule: exactly one key for a path and one path for a key, letter for letter: nothing decoded,
folded or swallowed. Pure.
"""

from __future__ import annotations

from typing import Final

from gateway.domain import paths
from gateway.errors import Refusal
from gateway.settings.values import Bucket

MAX_KEY_BYTES: Final = 1024
"""Bytes of a key in UTF-8 (Amazon S3 user guide, "Naming Amazon S3 objects")."""


class PrefixedKeys:
    """The keys below the prefix of a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._prefix = bucket.key("/")

    def of(self, path: str) -> str:
        """Return the key of a path. Raises `Refusal("bad_path")` for one that S3 cannot keep."""
        key = self._bucket.key("/" + "/".join(paths.check_path(path)))
        self._check(key)
        return key

    def beginning(self, prefix: str) -> str:
        """Return what the keys of all paths begin with that begin with `prefix` (text, no folder)."""
        key = self._prefix + prefix.removeprefix("/")
        self._check(key)
        return key

    def path(self, key: str) -> str | None:
        """Return the path of an object, None for one that is no file of ours (a folder's mark)."""
        if not key.startswith(self._prefix):
            return None
        path = "/" + key.removeprefix(self._prefix)
        try:
            return path if self.of(path) == key else None
        except Refusal:
            return None

    def _check(self, key: str) -> None:
        try:
            size = len(key.encode())
        except UnicodeEncodeError:
            raise Refusal("bad_path", "an object store takes names in UTF-8 only") from None
        if size > MAX_KEY_BYTES:
            room = MAX_KEY_BYTES - len(self._prefix.encode())
            raise Refusal("bad_path", f"the path is too long: this storage takes {room} bytes")
