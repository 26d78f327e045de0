"""Results of operations on partial uploads as responses of tus 1.0.0. Pure.

Source: tus.io/protocols/resumable-upload, version 1.0.0; RFC 8631 for the link to the status.
"""

from __future__ import annotations

from email.utils import formatdate
from typing import Final

from gateway.auth.signed_urls import StoredUrls
from gateway.endpoints.uploads.resumable.operations import PartialRefusal, PartialResult
from gateway.endpoints.uploads.resumable.tus_request import CHECKSUM_ALGORITHMS, VERSION
from gateway.endpoints.uploads.stored_response import stored_response
from gateway.errors import Refusal
from gateway.http.responses import Response

EXTENSIONS: Final = (
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "expiration",
    "checksum",
    "termination",
    "concatenation",
)
"""Not `checksum-trailer`: aiohttp drops trailers. Not `concatenation-unfinished`: a file is committed
when it is made of its parts, so all of them must be whole."""

_FIELDS: Final = {"Tus-Resumable": VERSION, "Cache-Control": "no-store"}
"""Fields of every response: none is to be cached, for each tells the state of an upload."""


def capabilities(max_size: int | None) -> dict[str, str]:
    """Return the fields by which a response to OPTIONS says what is supported."""
    fields = {
        "Tus-Resumable": VERSION,
        "Tus-Version": VERSION,
        "Tus-Extension": ",".join(EXTENSIONS),
        "Tus-Checksum-Algorithm": ",".join(CHECKSUM_ALGORITHMS),
    }
    return fields if max_size is None else fields | {"Tus-Max-Size": str(max_size)}


def created_response(result: PartialResult, urls: StoredUrls) -> Response:
    """Return the response to a creation; where it completed the file, its body is that of a PUT."""
    fields = {"Location": result.url, "Upload-Offset": str(result.offset)}
    response = Response(status=201, headers=_FIELDS | fields | _lasting_fields(result))
    if result.stored is not None:
        plain = stored_response(result.stored, urls)
        response.body = plain.content
        response.headers["Content-Type"] = plain.headers["Content-Type"]
    return response


def appended_response(result: PartialResult) -> Response:
    """Return the response to PATCH."""
    return _no_content(result, {"Upload-Offset": str(result.offset)})


def status_response(result: PartialResult) -> Response:
    """Return the response to HEAD."""
    fields = {"Upload-Offset": str(result.offset), **_length_field(result)}
    if result.metadata_text:
        fields["Upload-Metadata"] = result.metadata_text
    if result.part_of_concat:
        fields["Upload-Concat"] = "partial"
    elif result.concat is not None:
        fields["Upload-Concat"] = result.concat.text
    return Response(status=200, headers=_FIELDS | fields | _lasting_fields(result))


def terminated_response() -> Response:
    """Return the response to DELETE."""
    return Response(status=204, headers=_FIELDS)


def add_refusal_fields(refusal: Refusal, max_size: int | None) -> None:
    """Give a refusal the fields of the protocol, and what can be told of the upload."""
    refusal.headers.update(_FIELDS)
    if refusal.code == "too_large" and max_size is not None:
        refusal.headers["Tus-Max-Size"] = str(max_size)
    if isinstance(refusal, PartialRefusal) and refusal.result is not None:
        refusal.headers.update(_lasting_fields(refusal.result))
        # A client may take the whole length for success, whatever the status says.
        if refusal.keeps and refusal.result.offset != refusal.result.length:
            refusal.headers["Upload-Offset"] = str(refusal.result.offset)
            refusal.headers.update(_length_field(refusal.result))


def _no_content(result: PartialResult, fields: dict[str, str]) -> Response:
    return Response(status=204, headers=_FIELDS | fields | _lasting_fields(result))


def _length_field(result: PartialResult) -> dict[str, str]:
    if result.length is None:
        return {"Upload-Defer-Length": "1"}
    return {"Upload-Length": str(result.length)}


def _lasting_fields(result: PartialResult) -> dict[str, str]:
    """Return until when an upload can go on, and where the events of its file are told."""
    fields = {"Link": f'</-/uploads/{result.upload_id}>; rel="status"'}
    if result.expires is not None:
        fields["Upload-Expires"] = formatdate(result.expires, usegmt=True)
    return fields
