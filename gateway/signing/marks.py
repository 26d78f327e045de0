"""Marks by which the gateways of an installation recognise the objects that one of them stored.

A mark covers one upload under one path: copied to an object of another name it is invalid.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Final

from gateway.signing.keys import derive_keys, sign_texts

_PURPOSE: Final = b"upload-gateway stored object v1"


class ObjectMarker:
    """Makes and checks marks.

    The first of `keys` signs, all of them verify. Raises `ValueError` for none, or one under 32 bytes.
    """

    __slots__ = ("_keys",)

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = derive_keys(keys, _PURPOSE)

    def __repr__(self) -> str:
        return "<ObjectMarker>"

    def mark(self, upload_id: str, path: str) -> str:
        """Return the mark of what an upload stores at a path."""
        return sign_texts(self._keys[0], (upload_id, path))

    def is_genuine(self, mark: str, upload_id: str, path: str) -> bool:
        """Tell whether a gateway of this installation stored this upload at this path.

        Every key is tried, so that the time taken does not tell which one matches.
        """
        genuine = False
        for key in self._keys:
            expected = sign_texts(key, (upload_id, path))
            genuine |= hmac.compare_digest(expected.encode(), mark.encode("utf-8", "surrogatepass"))
        return genuine
