"""Reads `multipart/form-data` as it comes: the heads of its parts, and their bytes (RFC 7578).

The parser is `multipart`. It takes 1.7 to 3 GB/s here, aiohttp's reader 0.2 to 0.7. python-multipart is
as fast, and does not tell a form that was cut from a whole one. What it does not bound is bounded here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

import multipart

from gateway.errors import Refusal
from gateway.http.header_fields import Lines

MAX_BOUNDARY_BYTES: Final = 70
"""RFC 2046 section 5.1.1."""

MAX_PARTS: Final = 1000
"""Files and fields of one form: each file is a member of the answer."""

MAX_PART_HEADER_BYTES: Final = 8 << 10
"""Bytes of one header line of a part: a name of 255 bytes may be percent-encoded."""

MAX_PART_HEADERS: Final = 16
MAX_BETWEEN_BYTES: Final = 64 << 10
"""Bytes before the first and behind the last part, which mean nothing (RFC 2046 section 5.1.1)."""

FORM_TYPE: Final = "multipart/form-data"

_BOUNDARY: Final = re.compile(r';[ \t]*boundary=(?:"([^"\\]*)"|([^";\s]+))[ \t]*(?=;|\Z)', re.IGNORECASE)
_VISIBLE: Final = re.compile(r"[ -~]*[!-~]")
_EXTENDED_NAME: Final = re.compile(r";[ \t]*filename\*[ \t]*=[ \t]*([^;\s]*)", re.IGNORECASE)
_PLAIN_TRANSFER: Final = frozenset({"7bit", "8bit", "binary"})

_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')

ReadChunk = Callable[[], Awaitable[bytes]]
"""Returns the next bytes of a body, b"" at its clean end."""


class FormPart(NamedTuple):
    """The head of a part. A `filename` makes it a file; it may be empty. `lines` are its headers."""

    name: str
    filename: str | None
    lines: Lines

    @property
    def content_type(self) -> str | None:
        """The declared media type."""
        declared = self.lines.get("content-type")
        return None if declared is None else declared[0].strip()


def boundary_of(lines: Lines) -> str:
    """Return the boundary of a form.

    Raises `Refusal`: `unsupported_media_type` for a body that is no form, `bad_request` for a form
    without a boundary, with two, or with one that is not as RFC 2046 section 5.1.1 says.
    """
    types = lines.get("content-type", ())
    if len(types) != 1 or types[0].partition(";")[0].strip().lower() != FORM_TYPE:
        raise Refusal(
            "unsupported_media_type",
            "a POST to an upload path brings a form: `curl -F file=@FILE URL` (multipart/form-data);"
            " the file itself is sent with PUT: `curl -T FILE URL`",
        )
    values: list[str] = [quoted or plain for quoted, plain in _BOUNDARY.findall(types[0])]
    if len(values) != 1 or len(values[0]) > MAX_BOUNDARY_BYTES or not _VISIBLE.fullmatch(values[0]):
        raise Refusal(
            "bad_request", f"Content-Type: a form has one boundary, of 1 to {MAX_BOUNDARY_BYTES} bytes"
        )
    return values[0]


class FormReader:
    """Reads one form: `next_part`, then `read` until it returns b"", and so on.

    `read_chunk` returns the bytes of the body. Memory holds one chunk and one head of a part.
    """

    def __init__(self, boundary: str, read_chunk: ReadChunk) -> None:
        self._parser = multipart.PushMultipartParser(
            boundary, max_header_size=MAX_PART_HEADER_BYTES, max_header_count=MAX_PART_HEADERS
        )
        self._read_chunk = read_chunk
        self._events: Iterator[object] = iter(())
        self._in_part = False
        self._parts = 0
        self._between = 0

    async def next_part(self) -> FormPart | None:
        """Return the head of the next part, None behind the last one; what is unread is passed over.

        Raises `Refusal`: `incomplete_body` where the form ends before its last boundary, `bad_request`,
        `unsupported_media_type`, `headers_too_large`; what `read_chunk` raises.
        """
        while self._in_part:
            await self.read()
        event = await self._next_event()
        if event is _END:
            return None
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise Refusal("bad_request", f"a form may have at most {MAX_PARTS} parts")
        self._in_part = True
        return _part_of(event)

    async def read(self) -> bytes:
        """Return the next bytes of the part, b"" at its end. Raises as `next_part` does."""
        if not self._in_part:
            return b""
        event = await self._next_event()
        if isinstance(event, bytes):
            return event
        self._in_part = False
        return b""

    async def read_text(self, max_bytes: int) -> str:
        """Return the rest of the part, a field in UTF-8. Raises as `next_part` does; `too_large`."""
        content = bytearray()
        while chunk := await self.read():
            content += chunk
            if len(content) > max_bytes:
                raise Refusal("too_large", f"the fields of a form may have {max_bytes} bytes in all")
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise Refusal("bad_request", "a field of the form is not in UTF-8") from None

    async def _next_event(self) -> object:
        """Return a head, bytes or None (the end of a part); `_END` behind the last part."""
        while True:
            try:
                for event in self._events:
                    self._between = 0
                    return event
                if self._between > MAX_BETWEEN_BYTES:
                    self._parser.close()
                    return _END  # the response closes the connection: the rest of the body is unread
                chunk = await self._read_chunk()
                if not chunk:
                    self._parser.close()
                    return _END
                self._between += len(chunk)
                self._events = self._parser.parse(chunk)
            except multipart.MultipartError as error:
                raise _refusal_of(error) from error


_END: Final = object()


def _refusal_of(error: multipart.MultipartError) -> Refusal:
    if isinstance(error, multipart.ParserLimitReached):
        return Refusal(
            "headers_too_large",
            f"a part of a form may have {MAX_PART_HEADERS} headers of {MAX_PART_HEADER_BYTES} bytes",
        )
    if "end of multipart" in str(error):
        return Refusal("incomplete_body", "the form ends before its last boundary")
    return Refusal("bad_request", f"the form is not well-formed: {error}")


def _part_of(segment: multipart.MultipartSegment) -> FormPart:
    """Return the head of a part. Raises `Refusal` for one whose content would have to be decoded."""
    lines: dict[str, list[str]] = {}
    for name, value in segment.headerlist:
        lines.setdefault(name.lower(), []).append(value)
    dispositions = lines["content-disposition"]
    if len(dispositions) != 1 or any(len(values) > 1 for values in lines.values()):
        raise Refusal("bad_request", "a part of the form has a header twice")
    for coding in lines.get("content-transfer-encoding", ()):
        if coding.strip().lower() not in _PLAIN_TRANSFER:
            raise Refusal(
                "unsupported_media_type",
                "Content-Transfer-Encoding is not decoded: send parts in binary (RFC 7578 section 4.7)",
            )
    if lines.get("content-type", [""])[0].strip().lower().startswith("multipart/"):
        raise Refusal(
            "unsupported_media_type",
            "a form within a form is not read: give each file a part of its own (RFC 7578 section 4.3)",
        )
    filename = segment.filename
    if filename is None:
        filename = _extended_filename(dispositions[0])
    return FormPart(segment.name or "", filename, lines)


def _extended_filename(disposition: str) -> str | None:
    """Return what `filename*` says (RFC 8187), None without it. Raises `Refusal("bad_request")`.

    RFC 7578 section 4.2 forbids it, and some clients send nothing else. Beside a `filename` it means
    nothing: who looks into the form on the way reads that one.
    """
    values = _EXTENDED_NAME.findall(_QUOTED.sub('""', disposition))
    if not values:
        return None
    charset, quote, rest = values[0].partition("'")
    _, again, encoded = rest.partition("'")
    try:
        if len(values) > 1 or not quote or not again or charset.lower() != "utf-8":
            raise ValueError
        return unquote_to_bytes(encoded).decode()
    except ValueError:
        raise Refusal("bad_request", "filename* of a part must be one, in UTF-8 (RFC 8187)") from None
