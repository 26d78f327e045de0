"""`Upload-Metadata` of tus 1.0.0: keys, and values in base64. Pure.

A value may be any bytes (protocol, extension "creation"): none becomes a header. The text is kept as it
was sent; beside it `filename`, `name`, `filetype`, `type` and `relativePath` mean something, and other
pairs are metadata of the file where its rules allow them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.domain.metadata import can_be_metadata, normalize_metadata
from gateway.errors import Refusal

FIELD: Final = "Upload-Metadata"

MAX_METADATA_TEXT_BYTES: Final = 4096
"""Bytes of the header. It is kept with the upload, and is in every answer to HEAD."""

_NAMES: Final = ("filename", "name")
_TYPES: Final = ("filetype", "type")
_RELATIVE_PATH: Final = "relativePath"
_MEANINGFUL: Final = frozenset({*_NAMES, *_TYPES, _RELATIVE_PATH})

_KEY: Final = re.compile(r"[!-+\--~]+")
"""Visible ASCII without the comma: the protocol asks for ASCII, and HEAD sends the keys back."""

_TYPE_NAME: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,127}"
_MEDIA_TYPE: Final = re.compile(rf"{_TYPE_NAME}/{_TYPE_NAME}(?:[ \t]*;[ -~]{{0,127}})?")
"""RFC 9110 section 8.3.1, and RFC 6838 section 4.2 for the lengths."""


@dataclass(slots=True, frozen=True)
class TusMetadata:
    """What a client tells about its file.

    `text` is the header as it was sent. `filename` may have folders. `content_type` is None where there
    is no valid media type. `file_metadata` is normalized.
    """

    text: str = ""
    filename: str | None = None
    content_type: str | None = None
    file_metadata: Mapping[str, str] = field(default_factory=dict)


def read_tus_metadata(lines: Sequence[str]) -> TusMetadata:
    """Read the lines of `Upload-Metadata`; an empty one has no metadata.

    Raises `Refusal`: `headers_too_large` for more than `MAX_METADATA_TEXT_BYTES`, `bad_request`.
    """
    text = ",".join(line.strip() for line in lines if line.strip())
    if len(text) > MAX_METADATA_TEXT_BYTES:
        raise Refusal(
            "headers_too_large", f"{FIELD} has {len(text)} bytes, {MAX_METADATA_TEXT_BYTES} are allowed"
        )
    values = _decoded_pairs(text) if text else {}
    return TusMetadata(text, _file_name(values), _media_type(values), _file_metadata(values))


def _decoded_pairs(text: str) -> dict[str, bytes]:
    values: dict[str, bytes] = {}
    for position, pair in enumerate(text.split(","), start=1):
        key, _, value = pair.strip(" \t").partition(" ")
        if not _KEY.fullmatch(key):
            raise Refusal("bad_request", f"{FIELD}: pair {position} has no key of visible ASCII")
        if key in values:
            raise Refusal("bad_request", f"{FIELD}: the key of pair {position} is there twice")
        try:
            values[key] = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise Refusal(
                "bad_request", f"{FIELD}: the value of pair {position} is not base64"
            ) from None
    return values


def _text_of(values: Mapping[str, bytes], key: str) -> str:
    """Return a value that is a name. Raises `Refusal`."""
    try:
        return values.get(key, b"").decode()
    except UnicodeError:
        raise Refusal("bad_request", f"{FIELD}: {key} is not UTF-8") from None


def _file_name(values: Mapping[str, bytes]) -> str | None:
    """Return the name of the file, with the folders of a relative path that ends with it.

    Uppy sends `relativePath` with every file, "null" for one that is in no folder.
    """
    name = next((text for key in _NAMES if (text := _text_of(values, key))), None)
    relative = _text_of(values, _RELATIVE_PATH).removeprefix("/")
    if relative and (name is None or relative.rpartition("/")[2] == name):
        return relative
    return name


def _media_type(values: Mapping[str, bytes]) -> str | None:
    for key in _TYPES:
        text = values.get(key, b"").decode("ascii", "replace")
        if _MEDIA_TYPE.fullmatch(text):
            return text
    return None


def _file_metadata(values: Mapping[str, bytes]) -> dict[str, str]:
    """Return the pairs that can be metadata of the file. Raises `Refusal` where they are too many."""
    spellings = Counter(key.lower() for key in values)
    metadata: dict[str, str] = {}
    for key, value in values.items():
        if key in _MEANINGFUL or spellings[key.lower()] > 1:
            continue
        text = value.decode("utf-8", "surrogateescape")
        if can_be_metadata(key, text):  # else it is in the text only
            metadata[key] = text
    return normalize_metadata(metadata)
