"""Every digest by which a client lets its body be checked: each is verified, or refused. Pure.

A digest that is taken and not verified is worse than none: its sender believes that damage is seen.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.domain.digests import RFC9530_NAMES, SIZES
from gateway.errors import Refusal
from gateway.http.header_fields import Lines

NAMES: Final[Mapping[str, str]] = {name: algorithm for algorithm, name in RFC9530_NAMES.items()}
"""Digests by the names that RFC 9530 (section 7.2) gives them."""


TUS_CHECKSUM: Final = "Upload-Checksum"
"""The header by which tus 1.0.0 checks one request (extension "checksum")."""


@dataclass(slots=True, frozen=True)
class ExpectedDigest:
    """A digest that the client sent: `algorithm` as in `domain.digests`, and the name of the header."""

    algorithm: str
    value: bytes
    header: str

    @property
    def mismatch_code(self) -> str:
        """The code of the refusal where the bytes have another digest."""
        return "checksum_mismatch" if self.header == TUS_CHECKSUM else "digest_mismatch"


_Decode = Callable[[str], bytes]
"""Return the bytes of a digest. Raises `ValueError`."""


@dataclass(slots=True, frozen=True)
class _OneDigest:
    """A field whose value is one digest. A value that is `unchecked` stands for none."""

    algorithm: str
    decode: _Decode
    unchecked: str | None = None

    def read(self, header: str, lines: Sequence[str]) -> list[ExpectedDigest]:
        values = [text.strip() for text in lines if text.strip() != self.unchecked]
        return [_expected(self.algorithm, text, self.decode, header) for text in values]


@dataclass(slots=True, frozen=True)
class _DigestList:
    """A field that lists algorithms, in their small letters `names`, and digests.

    An unsupported algorithm beside a supported one may be ignored (RFC 9530 section 2).
    """

    member: re.Pattern[str]
    separator: str
    form: str
    names: Mapping[str, str]
    decode: _Decode

    def read(self, header: str, lines: Sequence[str]) -> list[ExpectedDigest]:
        digests = []
        for text in self.separator.join(lines).strip().split(self.separator):
            parsed = self.member.fullmatch(text.strip())
            if parsed is None:
                raise Refusal("bad_digest", f"{header} must read `{self.form}`")
            algorithm = self.names.get(parsed[1].lower())
            if algorithm is not None:
                digests.append(_expected(algorithm, parsed[2], self.decode, header))
        if not digests:
            raise Refusal("bad_digest", f"{header}: supported algorithms are {', '.join(self.names)}")
        return digests


def _expected(algorithm: str, text: str, decode: _Decode, header: str) -> ExpectedDigest:
    try:
        value = decode(text)
    except ValueError:
        value = b""
    if len(value) != SIZES[algorithm]:
        spelling = "hex" if decode is _hex else "base64"
        raise Refusal("bad_digest", f"{header}: not a {algorithm} digest in {spelling}")
    return ExpectedDigest(algorithm, value, header)


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError from error


def _hex(text: str) -> bytes:
    return binascii.unhexlify(text.strip('"'))


_RFC9530: Final = _DigestList(
    re.compile(r"([a-z][a-z0-9*_.-]*)=:([A-Za-z0-9+/=]*):(?:;.*)?"),
    ",",
    "sha-256=:BASE64:",
    NAMES,
    _base64,
)
_RFC3230: Final = _DigestList(
    re.compile(r"([A-Za-z][A-Za-z0-9-]*)=(\S*)"), ",", "sha-256=BASE64", NAMES, _base64
)
_GOOGLE: Final = _DigestList(
    re.compile(r"([a-z0-9]+)=(\S*)"), ",", "crc32c=BASE64", {"crc32c": "crc32c", "md5": "md5"}, _base64
)
_OWNCLOUD: Final = _DigestList(
    re.compile(r"([A-Za-z0-9-]+):([0-9A-Fa-f]*)"),
    " ",
    "SHA1:HEX",
    {"sha256": "sha256", "sha1": "sha1", "md5": "md5", "adler32": "adler32"},
    _hex,
)

_FIELDS: Final[Mapping[str, _OneDigest | _DigestList]] = {
    # RFC 1864, RFC 9530, and RFC 3230, which it replaces
    "Content-MD5": _OneDigest("md5", _base64),
    "Content-Digest": _RFC9530,
    "Repr-Digest": _RFC9530,
    "Digest": _RFC3230,
    # Amazon S3: "PutObject", "Signature Version 4"
    "x-amz-checksum-crc32": _OneDigest("crc32", _base64),
    "x-amz-checksum-crc32c": _OneDigest("crc32c", _base64),
    "x-amz-checksum-crc64nvme": _OneDigest("crc64nvme", _base64),
    "x-amz-checksum-sha1": _OneDigest("sha1", _base64),
    "x-amz-checksum-sha256": _OneDigest("sha256", _base64),
    "x-amz-content-sha256": _OneDigest("sha256", _hex, unchecked="UNSIGNED-PAYLOAD"),
    # Google Cloud Storage, XML API: "x-goog-hash"
    "x-goog-hash": _GOOGLE,
    # Artifactory REST API: "Deploy Artifact"
    "X-Checksum-Md5": _OneDigest("md5", _hex),
    "X-Checksum-Sha1": _OneDigest("sha1", _hex),
    "X-Checksum-Sha256": _OneDigest("sha256", _hex),
    # OpenStack Swift: "Create or replace object"; ownCloud and Nextcloud clients
    "ETag": _OneDigest("md5", _hex),
    "OC-Checksum": _OWNCLOUD,
}
_BY_NAME: Final = {header.lower(): (header, field) for header, field in _FIELDS.items()}

_AMAZON: Final = "x-amz-checksum-"
_ANNOUNCED: Final = ("x-amz-sdk-checksum-algorithm", "x-amz-checksum-algorithm")
_NO_CHECKS: Final = frozenset({*_ANNOUNCED, "x-amz-checksum-type", "x-amz-checksum-mode"})
_NOT_COMPUTED: Final = frozenset(
    {
        TUS_CHECKSUM.lower(),  # only requests of tus have it, and the endpoint takes those
        "x-ms-content-crc64",  # Azure Blob Storage: "Put Blob"
        "x-ms-blob-content-md5",
    }
)
_CHECKS: Final = frozenset({*_BY_NAME, *_NOT_COMPUTED, *_ANNOUNCED, "trailer"})
_IN_TRAILER: Final = re.compile(r"content-md5|(?:content-|repr-)?digest|x-amz-checksum-[a-z0-9-]*")


def expected_digests(lines: Lines) -> tuple[ExpectedDigest, ...]:
    """Return every digest that the body must have, of every line.

    Raises `Refusal("bad_digest")` for a malformed one, and for a check that is not done here.
    """
    if _CHECKS.isdisjoint(lines) and _AMAZON not in "\n".join(lines):
        return ()  # nearly all uploads
    digests: list[ExpectedDigest] = []
    for name in lines:
        if name in _BY_NAME:
            header, field = _BY_NAME[name]
            digests += field.read(header, lines[name])
        elif name in _NOT_COMPUTED or (name.startswith(_AMAZON) and name not in _NO_CHECKS):
            raise Refusal(
                "bad_digest",
                f"{name} is not verified here: send x-amz-checksum-sha256, x-amz-checksum-crc32,"
                " Content-MD5 or Content-Digest instead",
            )
    _check_announced(lines, digests)
    return tuple(digests)


def _check_announced(lines: Lines, digests: Sequence[ExpectedDigest]) -> None:
    """Refuse a checksum that is announced and not here: trailers are not read."""
    sent = {digest.algorithm for digest in digests}
    for name in _ANNOUNCED:
        if any(text.strip().lower() not in sent for text in lines.get(name, ())):
            raise Refusal("bad_digest", f"{name} names a checksum that this request does not have")
    if any(text.strip().upper() != "FULL_OBJECT" for text in lines.get("x-amz-checksum-type", ())):
        raise Refusal("bad_digest", "x-amz-checksum-type: the only supported type is FULL_OBJECT")
    for text in lines.get("trailer", ()):
        for name in text.lower().split(","):
            if _IN_TRAILER.fullmatch(name.strip()):
                raise Refusal(
                    "bad_digest", f"trailers are not read: send {name.strip()} before the body"
                )
