"""The digests of a body on its way into a file, and the one that stays with the file. Blocking."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from gateway.domain.digests import RFC9530_NAMES, algorithms_of, new_digest
from gateway.storage.local.xattrs import write_digest


class BodyDigests:
    """Digests of `algorithms`, which are asked for before the commit, and of `kept`, which stays.

    One thread uses it at a time.
    """

    def __init__(self, algorithms: Sequence[str], kept: str | None) -> None:
        self.are_expected = bool(algorithms)
        """Whether digests are asked for before the commit: then no bytes are left to it."""
        self._hashes = {name: new_digest(name) for name in algorithms_of(algorithms, kept)}
        self._kept = kept
        self._value: bytes | None = None
        self._is_stored = False

    def update(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Take the next bytes."""
        for digest in self._hashes.values():
            for piece in pieces:
                digest.update(piece)

    def digest(self, algorithm: str) -> bytes:
        """Return the digest of all bytes so far, by its name in `domain.digests`."""
        return self._hashes[algorithm].digest()

    def keep_named(self, algorithm: str | None, named: Mapping[str, str]) -> None:
        """Let a digest stay with the file that was computed elsewhere, if it is among `named`.

        These are in base64 by their name in RFC 9530.
        """
        value = named.get(RFC9530_NAMES.get(algorithm or "", ""))
        if value is not None:
            self._kept, self._value = algorithm, base64.b64decode(value)

    def kept(self) -> dict[str, bytes]:
        """Return the digest that is stored with the file, by its algorithm."""
        kept, value = self._kept, self._value
        return {} if kept is None or value is None else {kept: value}

    def store(self, fd: int) -> bool:
        """Store the digest that stays with the file, which is whole; tell whether it was not yet."""
        if self._kept is None or self._is_stored:
            return False
        if self._value is None:
            self._value = self.digest(self._kept)
        write_digest(fd, self._kept, self._value)
        self._is_stored = True
        return True
