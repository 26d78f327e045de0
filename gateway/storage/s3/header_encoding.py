"""S3 room: how texts travel in the headers of S3, which are ASCII.

One rule: what is read back is what was written, whatever it holds; plain texts stay plain, so that
other tools read them too. Pure.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final

_PLAIN: Final = re.compile(r"(?:[!-~]+(?: [!-~]+)*)?")
_WORD: Final = re.compile(r"=\?([A-Za-z0-9_-]+)\?([BbQq])\?([!-~]*?)\?=")
_BETWEEN: Final = re.compile(r"\?=\s+=\?")

_WORD_BYTES: Final = 45
"""An encoded word has 75 characters at the most (RFC 2047 section 2)."""


def encoded(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata as S3 takes it: what is not plain ASCII becomes encoded words (RFC 2047).

    That is the form in which Amazon S3 itself hands out such values (user guide, "Working with
    object metadata").
    """
    return {name: _encode(value) for name, value in metadata.items()}


def decoded(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata as it was before `encoded`, names in lower case."""
    return {name.lower(): _decode(value) for name, value in metadata.items()}


def _encode(value: str) -> str:
    # Spaces at the ends, or two of them, would not survive the way (RFC 9110 section 5.5, SigV4).
    if _PLAIN.fullmatch(value) and "=?" not in value:
        return value
    words, word = [], b""
    for letter in value:
        octets = letter.encode("utf-8", "replace")
        if len(word) + len(octets) > _WORD_BYTES:
            words.append(word)
            word = b""
        word += octets
    return " ".join(f"=?UTF-8?B?{base64.b64encode(one).decode()}?=" for one in [*words, word])


def _decode(value: str) -> str:
    if "=?" in value:
        value = _WORD.sub(_decode_word, _BETWEEN.sub("?==?", value))
    return value.encode("utf-8", "replace").decode()


def _decode_word(found: re.Match[str]) -> str:
    charset, how, text = found.groups()
    try:
        if how in "Bb":
            return base64.b64decode(text, validate=True).decode(charset)
        return binascii.a2b_qp(text, header=True).decode(charset)
    except (ValueError, LookupError):
        return found[0]
