"""How a path and its metadata appear in a bucket: the key, the headers, the gateway's own metadata.

A path has exactly one key and a key one path, letter for letter. Metadata is read back as it was
written; plain texts stay plain, so that other tools read them too. Pure.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.domain import paths
from gateway.errors import Refusal
from gateway.settings.values import Bucket

MAX_KEY_BYTES: Final = 1024
"""Bytes of a key in UTF-8 (Amazon S3 user guide, "Naming Amazon S3 objects")."""

UPLOAD_ID_NAME: Final = "gateway-upload-id"
"""The metadata name under which an object says which upload it is."""

MARK_NAME: Final = "gateway-upload-mark"
"""That of the signature by which every gateway of the installation verifies the upload id."""

DIGEST_NAME: Final = "gateway-digest"
"""That of the digest of the bytes, as a field of RFC 9530 (`sha-256=:...:`)."""

_OWN_NAMES: Final = frozenset({UPLOAD_ID_NAME, MARK_NAME, DIGEST_NAME})
_DIGEST: Final = re.compile(r"([a-z0-9-]+)=:([A-Za-z0-9+/]+={0,2}):")
_PLAIN: Final = re.compile(r"(?:[!-~]+(?: [!-~]+)*)?")
_WORD: Final = re.compile(r"=\?([A-Za-z0-9_-]+)\?([BbQq])\?([!-~]*?)\?=")
_BETWEEN_WORDS: Final = re.compile(r"\?=\s+=\?")

_MAX_WORD_BYTES: Final = 45
"""An encoded word has at most 75 characters (RFC 2047 section 2)."""


class PrefixedKeys:
    """The keys below the prefix of a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._prefix = bucket.key("/")

    def key_of(self, path: str) -> str:
        """Return the key of a path. Raises `Refusal("bad_path")` for one that S3 cannot store."""
        key = self._bucket.key("/" + "/".join(paths.check_path(path)))
        self._check(key)
        return key

    def key_prefix(self, prefix: str) -> str:
        """Return how the keys of all paths begin that begin with `prefix` (text, no folder)."""
        key = self._prefix + prefix.removeprefix("/")
        self._check(key)
        return key

    def path_of(self, key: str) -> str | None:
        """Return the path of an object, None for one that is no file (a folder marker)."""
        if not key.startswith(self._prefix):
            return None
        path = "/" + key.removeprefix(self._prefix)
        try:
            return path if self.key_of(path) == key else None
        except Refusal:
            return None

    def _check(self, key: str) -> None:
        try:
            size = len(key.encode())
        except UnicodeEncodeError:
            raise Refusal("bad_path", "an object store takes names in UTF-8 only") from None
        if size > MAX_KEY_BYTES:
            left = MAX_KEY_BYTES - len(self._prefix.encode())
            raise Refusal("bad_path", f"the path is too long: this storage takes {left} bytes")


@dataclass(slots=True, frozen=True)
class ObjectTarget:
    """Where a body goes: path, key, the upload that it is, and the parameters of its request."""

    path: str
    key: str
    upload_id: str
    params: Mapping[str, Any]


def put_object_params(
    upload_id: str, mark: str, mime: str, metadata: Mapping[str, str], headers: Mapping[str, str]
) -> dict[str, Any]:
    """Return type, metadata and headers of an object, as the S3 client names them.

    `headers` are the request's, in lower case; of them `cache-control` and `content-encoding` stay.
    """
    own = {UPLOAD_ID_NAME: upload_id, MARK_NAME: mark}
    users = encode_metadata(user_metadata(metadata))
    params: dict[str, Any] = {"ContentType": mime, "Metadata": {**users, **own}}
    if "cache-control" in headers:
        params["CacheControl"] = headers["cache-control"]
    if "content-encoding" in headers:
        params["ContentEncoding"] = headers["content-encoding"]
    return params


def user_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata without the names that the gateway itself sets."""
    return {name: value for name, value in metadata.items() if name not in _OWN_NAMES}


def with_digest(params: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    """Return the parameters of a request with the digest of its bytes; an empty one changes nothing."""
    if not field:
        return params
    return {**params, "Metadata": {**params.get("Metadata", {}), DIGEST_NAME: field}}


def stored_digest(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the digest that the metadata of an object tells, in base64 by its name in RFC 9530."""
    match = _DIGEST.fullmatch(metadata.get(DIGEST_NAME, ""))
    return {} if match is None else {match[1]: match[2]}


def encode_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata as S3 takes it: what is not plain ASCII becomes encoded words (RFC 2047).

    Amazon S3 itself returns such values in that form (user guide, "Working with object metadata").
    """
    return {name: _encode(value) for name, value in metadata.items()}


def decode_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata as it was before `encode_metadata`, names in lower case."""
    return {name.lower(): _decode(value) for name, value in metadata.items()}


def _encode(value: str) -> str:
    # Spaces at the ends, or two of them, do not survive (RFC 9110 section 5.5, SigV4).
    if _PLAIN.fullmatch(value) and "=?" not in value:
        return value
    words, word = [], b""
    for letter in value:
        octets = letter.encode("utf-8", "replace")
        if len(word) + len(octets) > _MAX_WORD_BYTES:
            words.append(word)
            word = b""
        word += octets
    return " ".join(f"=?UTF-8?B?{base64.b64encode(word).decode()}?=" for word in [*words, word])


def _decode(value: str) -> str:
    if "=?" in value:
        value = _WORD.sub(_decode_word, _BETWEEN_WORDS.sub("?==?", value))
    return value.encode("utf-8", "replace").decode()


def _decode_word(match: re.Match[str]) -> str:
    charset, encoding, text = match.groups()
    try:
        if encoding in "Bb":
            return base64.b64decode(text, validate=True).decode(charset)
        return binascii.a2b_qp(text, header=True).decode(charset)
    except (ValueError, LookupError):
        return match[0]
