"""Which files may be uploaded: the allow lists `--types` and `--suffixes`.

Both look at what the client says, before any of the body: the declared media type, and the name in the
path of the request. They keep mistakes out. What the bytes are, a handler of the whole file decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from gateway.errors import Refusal
from gateway.settings import Settings
from gateway.storage.local.xattrs import UNKNOWN_MIME, guess_mime

_MEDIA_TYPE: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+/[!#$%&'*+.^_`|~0-9a-z-]+")
"""RFC 9110 section 8.3.1, in lower case."""

_UNSAID: Final = frozenset({"", UNKNOWN_MIME, "binary/octet-stream"})
"""Types that clients send where they do not know the type. S3's clients have their own."""


def check_allowed(settings: Settings, content_type: str | None, path: str) -> None:
    """Refuse a file whose type or name is not allowed. Raises `Refusal("unsupported_media_type")`.

    `content_type` is None where the client chose none. `path` is that of the request, before handlers
    rewrite it.
    """
    if settings.types:
        _check_type(settings.types, content_type, path)
    if settings.suffixes:
        _check_suffix(settings.suffixes, path)


def _check_type(types: Sequence[str], content_type: str | None, path: str) -> None:
    """Check the declared type; where none is declared, that which the name stands for."""
    declared = (content_type or "").partition(";")[0].strip().lower()
    guessed = declared in _UNSAID
    media_type = guess_mime(path) if guessed else declared
    kind = f"{media_type.partition('/')[0]}/*"
    if _MEDIA_TYPE.fullmatch(media_type) is not None and (media_type in types or kind in types):
        return
    source = ", as its name says: no Content-Type is given" if guessed else ""
    allowed = ", ".join(types)
    # RFC 9110 section 15.5.16: the response may tell what is accepted.
    raise Refusal(
        "unsupported_media_type",
        f"files of the type {media_type[:100]} are not accepted here{source}; allowed are {allowed}",
        {"Accept": allowed},
    )


def _check_suffix(suffixes: Sequence[str], path: str) -> None:
    name = path.rpartition("/")[2].lower()
    if any(name.endswith(suffix) and name != suffix for suffix in suffixes):
        return
    raise Refusal(
        "unsupported_media_type",
        f"files of this name are not accepted here; allowed are names that end in {', '.join(suffixes)}",
    )
