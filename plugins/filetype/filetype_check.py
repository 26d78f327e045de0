"""Plugin filetype: compares the first bytes of a file with what it is declared to be.

The signatures are those of puremagic. Many of them are short, and are then found in other files by
chance: a short one can confirm what is declared, and never contradicts it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Self

try:
    import puremagic
except ImportError as missing:
    raise ImportError(
        "the filetype plugins need puremagic: pip install '.[filetype]' in the checkout, or pip install"
        " puremagic",
        name="puremagic",
    ) from missing

from filetype_names import (
    DeclaredType,
    canonical_type,
    declared_types,
    is_text_type,
    type_of_suffix,
)

HEAD_BYTES: Final = 8192
"""Bytes of a file that are looked at."""

SURE_BYTES: Final = 4
"""Bytes of a signature that are hardly there by chance."""

SURE_VALUES: Final = 3
"""Bytes of it that are not zero: files begin with zeros for many reasons."""

SURE_TEXT_BYTES: Final = 5
"""The same for a text, which may begin with any word: RIFF, FORM."""

SHORT_SURE: Final = frozenset({b"\xff\xd8\xff", b"\x1f\x8b\x08", b"BZh"})
"""Shorter signatures that are sure too: JPEG, gzip, bzip2."""

_BINARY: Final = re.compile(b"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
"""Bytes that no text has. Source: WHATWG MIME Sniffing, "binary data byte"."""

_UNICODE: Final = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
"""Byte order marks of UTF-16 and UTF-32, whose texts have such bytes."""

TEXT: Final = "text/plain"
Outcome = Literal["match", "mismatch", "undetected"]


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """The config `filetype`. `types` are media types in lower case, with `*` for any subtype."""

    types: tuple[str, ...] = ()
    mismatch: str = "refuse"
    undetected: str = "refuse"

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Read a config. Raises `ValueError` that names the key that is wrong."""
        for key in config:
            if key not in {"types", "mismatch", "undetected"}:
                raise ValueError(f"config filetype: there is no key {key}")
        for key, word in (("mismatch", "mark"), ("undetected", "allow")):
            if config.get(key, word) not in {"refuse", word}:
                raise ValueError(f"config filetype: {key} is refuse or {word}")
        types = config.get("types") or []
        if not isinstance(types, list) or not all(isinstance(one, str) and "/" in one for one in types):
            raise ValueError(
                "config filetype: types is a list of media types, such as image/png, image/*"
            )
        return cls(**{**config, "types": tuple(canonical_type(one.lower()) for one in types)})

    def allows(self, media_type: str) -> bool:
        """Tell whether a type may be uploaded."""
        family = media_type.partition("/")[0] + "/*"
        return canonical_type(media_type) in self.types or family in self.types


@dataclass(frozen=True, slots=True)
class Checked:
    """What a file is. `result` is for the client; `refusal` is None where it is accepted."""

    outcome: Outcome
    result: Mapping[str, Any]
    refusal: Mapping[str, Any] | None = None


class Signature(NamedTuple):
    """A signature that a file has: how many of its bytes, for which suffix and media type."""

    content: bytes
    suffix: str
    media_type: str

    def is_sure(self, least: int = SURE_BYTES) -> bool:
        """Tell whether it is hardly there by chance."""
        if self.content in SHORT_SURE:
            return True
        return len(self.content) >= least and len(self.content.replace(b"\0", b"")) >= SURE_VALUES


def check(head: bytes, path: str, content_type: str | None, settings: CheckSettings) -> Checked:
    """Check the first bytes of a file against its name, its Content-Type and what is allowed."""
    signatures, text = _signatures(head), _is_text(head)
    declared = declared_types(path, content_type)
    detected = _detected(signatures, declared, text=text)
    for one in declared:
        if not _agrees(one, signatures, text=text):
            return _mismatch(one, detected, settings)
    if detected is None:
        result: dict[str, Any] = {"outcome": "undetected"}
        allowed = not settings.types or settings.undetected == "allow"
        message = "files whose type cannot be told are not accepted here"
        refusal = None if allowed else {"error": "type_not_allowed", "message": message}
        return Checked("undetected", result, refusal)
    result = {"outcome": "match", "detected": detected}
    return Checked("match", result, _not_allowed(detected, settings))


def _mismatch(declared: DeclaredType, detected: str | None, settings: CheckSettings) -> Checked:
    found = {"declared": declared.text, **({} if detected is None else {"detected": detected})}
    result = {"outcome": "mismatch", **found}
    if settings.mismatch == "mark":
        unlisted = detected is None and settings.types and settings.undetected == "refuse"
        refusal = _not_allowed(detected or "unknown", settings) if detected or unlisted else None
        return Checked("mismatch", result, refusal)
    message = f"the file is declared as {declared.text}, and its first bytes are not"
    message += "" if detected is None else f": they are {detected}"
    return Checked("mismatch", result, {"error": "type_mismatch", **found, "message": message})


def _not_allowed(detected: str, settings: CheckSettings) -> Mapping[str, Any] | None:
    if not settings.types or settings.allows(detected):
        return None
    message = f"files of the type {detected} are not accepted here"
    return {"error": "type_not_allowed", "detected": detected, "message": message}


def _signatures(head: bytes) -> list[Signature]:
    """Return the signatures that the bytes have, the surest first."""
    try:
        found = puremagic.magic_string(head)
    except (puremagic.PureError, ValueError):
        found = []
    signatures = [
        Signature(bytes(one.byte_match), one.extension.lstrip(".").lower(), one.mime_type)
        for one in found
    ]
    if b"%PDF-" in head[:1024]:  # readers take what stands before it (ISO 32000-1, implementation notes)
        signatures.insert(0, Signature(b"%PDF-", "pdf", "application/pdf"))
    return signatures


def _is_text(head: bytes) -> bool:
    return head.startswith(_UNICODE) or _BINARY.search(head) is None


def _agrees(declared: DeclaredType, signatures: Sequence[Signature], *, text: bool) -> bool:
    """Tell whether the bytes are what is declared, or may be."""
    confirmed = any(_means(declared, signature) for signature in signatures)
    if declared.is_text:
        return text and (confirmed or not _is_no_text(signatures))
    if confirmed:
        return True
    if declared.is_signed:
        return False
    return not declared.is_known or not any(one.is_sure() for one in signatures)


def _is_no_text(signatures: Sequence[Signature]) -> bool:
    """Tell whether all that the bytes can be is no text."""
    types = [one.media_type for one in signatures if one.is_sure(SURE_TEXT_BYTES) and one.media_type]
    return bool(types) and not any(map(is_text_type, types))


def _means(declared: DeclaredType, signature: Signature) -> bool:
    same_type = signature.media_type and canonical_type(signature.media_type) == declared.text
    return signature.suffix in declared.suffixes or bool(same_type)


def _detected(
    signatures: Sequence[Signature], declared: Sequence[DeclaredType], *, text: bool
) -> str | None:
    """Return the media type of the bytes: the declared one where they agree with it."""
    for one in declared:
        if any(_means(one, signature) for signature in signatures):
            media_type = one.text if "/" in one.text else type_of_suffix(one.text)
            known = next((s.media_type for s in signatures if _means(one, s) and s.media_type), None)
            return canonical_type(media_type or known or "application/octet-stream")
    if text and not _is_no_text(signatures):
        named = (
            one.text if "/" in one.text else type_of_suffix(one.text) for one in declared if one.is_text
        )
        if media_type := next(filter(None, named), None):
            return media_type
    least = SURE_TEXT_BYTES if text else SURE_BYTES
    sure = (one.media_type for one in signatures if one.is_sure(least) and one.media_type)
    found = next(sure, TEXT if text else None)
    return None if found is None else canonical_type(found)
