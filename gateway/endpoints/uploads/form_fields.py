"""The fields of a form: metadata of the files behind them, a signature, where to redirect to. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from gateway.domain.grant import FIELD_PREFIX, Grant
from gateway.domain.metadata import METADATA_PREFIX, normalize_metadata
from gateway.errors import Refusal

MAX_FIELDS: Final = 100
MAX_FIELDS_BYTES: Final = 16 << 10
"""Names and values of all fields together."""

MAX_REDIRECT_BYTES: Final = 2048
REDIRECT_FIELDS: Final = frozenset({"redirect", "success_action_redirect"})
"""The second is the name that S3 gives it ("Browser-Based Uploads Using POST")."""

CHARSET_FIELD: Final = "_charset_"
_UTF8: Final = frozenset({"utf-8", "utf8", "us-ascii"})
_URL: Final = re.compile(r"[!#-;=?-\[\]_a-z~]+")
"""What a URL consists of (RFC 3986 section 2): no blank, quote, backslash or control character."""


class FormFields:
    """The fields that have come. `origins` are those that may be redirected to (`--cors-origins`)."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(map(str.lower, origins)) - {"*"}
        self._count = 0
        self._bytes = 0
        self.metadata: dict[str, str] = {}
        self.signed: dict[str, str] = {}
        """The fields of a signature, without their prefix."""
        self.redirect: str | None = None

    @property
    def left_bytes(self) -> int:
        """How many bytes the next field may have."""
        return MAX_FIELDS_BYTES - self._bytes

    def add(self, name: str, value: str) -> None:
        """Take a field. Raises `Refusal`: `bad_request`, `bad_signature`, `too_large`."""
        self._count += 1
        self._bytes += len(name.encode("utf-8", "replace")) + len(value.encode())
        if self._count > MAX_FIELDS or self._bytes > MAX_FIELDS_BYTES:
            raise Refusal(
                "too_large", f"a form may have {MAX_FIELDS} fields, of {MAX_FIELDS_BYTES} bytes in all"
            )
        if name == CHARSET_FIELD:  # HTML; RFC 7578 section 4.6
            if value.strip().lower() not in _UTF8:
                raise Refusal("bad_request", "the form must be in UTF-8 (accept-charset)")
        elif name in REDIRECT_FIELDS:
            self.redirect = self._checked_redirect(name, value)
        elif name.lower().startswith(FIELD_PREFIX.lower()):
            self._add_signed(name, value)
        else:
            self._add_metadata(name, value)

    def check_grant(self, grant: Grant) -> None:
        """Refuse metadata that is not that of the signature. Raises `Refusal("not_granted")`."""
        for name, value in self.metadata.items():
            if grant.metadata.get(name) != value:
                raise Refusal(
                    "not_granted", f"this form was signed without the field {name!r}: leave it out"
                )

    def _add_signed(self, name: str, value: str) -> None:
        field = name.removeprefix(FIELD_PREFIX)
        if field == name or field in self.signed:
            raise Refusal("bad_signature", "a signed field stands twice, or is spelled differently")
        self.signed[field] = value

    def _add_metadata(self, name: str, value: str) -> None:
        plain = name.lower().removeprefix(METADATA_PREFIX)
        if plain in self.metadata:
            raise Refusal("bad_request", f"the field {name!r} is given twice")
        try:
            self.metadata = normalize_metadata({**self.metadata, plain: value})
        except Refusal as refusal:
            raise Refusal(
                "bad_request",
                f"the field {name[:100]!r} cannot be metadata of a file: {refusal.message}",
            ) from None

    def _checked_redirect(self, name: str, value: str) -> str:
        """Return a path of this gateway, or a URL of an origin of `--cors-origins`."""
        parts = urlsplit(value) if _URL.fullmatch(value) and len(value) <= MAX_REDIRECT_BYTES else None
        if parts is not None:
            if not parts.scheme and not parts.netloc and re.match(r"/(?!/)", value):
                return value
            if f"{parts.scheme}://{parts.netloc}".lower() in self._origins:
                return value
        raise Refusal(
            "bad_request",
            f"the field {name!r} must be a path of this gateway, or a URL of an origin of"
            " --cors-origins",
        )
