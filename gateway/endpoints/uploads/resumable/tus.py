"""tus 1.0.0: performs what a request asks for, and responds. On the server's event loop.

Source: tus.io/protocols/resumable-upload, version 1.0.0, with the extensions of `tus_response`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.auth.request import IncomingRequest
from gateway.auth.signed_urls import StoredUrls
from gateway.domain.partial import UPLOAD_QUERY
from gateway.domain.path_template import UploadPathTemplate
from gateway.endpoints.uploads.resumable import tus_request, tus_response
from gateway.endpoints.uploads.resumable.operations import (
    Append,
    BodyTerms,
    PartialRefusal,
    PartialResult,
    PartialUploads,
)
from gateway.endpoints.uploads.resumable.places import UploadPlace
from gateway.errors import Refusal
from gateway.http.header_fields import Lines, filename_of, read_headers
from gateway.http.responses import Response

UPLOAD_METHODS: Final = "HEAD, PATCH, DELETE, OPTIONS"
CREATION_METHODS: Final = "POST, OPTIONS"

_RESOURCE_METHODS: Final = frozenset({"HEAD", "PATCH", "DELETE"})


@dataclass(slots=True, frozen=True)
class TusUploads:
    """Serves the requests that bear `Tus-Resumable`."""

    uploads: PartialUploads
    template: UploadPathTemplate
    urls: StoredUrls

    def capabilities(self) -> dict[str, str]:
        """Return the fields by which a response to OPTIONS says what is supported."""
        return tus_response.capabilities(self.uploads.limits().max_size)

    async def serve(self, incoming: IncomingRequest) -> Response | None:
        """Serve one request; None where its path is no upload path.

        Raises `Refusal`, `UnknownOutcome`.
        """
        try:
            place = UploadPlace.find(self.template, incoming.raw_path)
            return None if place is None else await self._serve(incoming, place)
        except Refusal as refusal:
            tus_response.add_refusal_fields(refusal, self.uploads.limits().max_size)
            raise

    async def _serve(self, incoming: IncomingRequest, place: UploadPlace) -> Response:
        lines = read_headers(incoming.headers).lines
        tus_request.check_version(lines)
        references = incoming.params.get(UPLOAD_QUERY)
        method = tus_request.effective_method(incoming.method, lines, is_upload=references is not None)
        if references is not None:
            return await self._serve_upload(incoming, method, references[0], lines)
        if method == "POST":
            creation = tus_request.read_creation(lines)
            target = place.target(creation.filename or filename_of(lines))
            result = await self.uploads.create(incoming, target, creation)
            return tus_response.created_response(result, self.urls)
        if method in _RESOURCE_METHODS:
            raise Refusal("not_found", "this is not the URL of an upload: create it with POST")
        raise _method_not_allowed(CREATION_METHODS)

    async def _serve_upload(
        self, incoming: IncomingRequest, method: str, reference: str, lines: Lines
    ) -> Response:
        if method == "HEAD":
            return tus_response.status_response(await self._describe(incoming, reference))
        if method == "PATCH":
            return tus_response.appended_response(await self._append(incoming, reference, lines))
        if method == "DELETE":
            await self.uploads.cancel(incoming, reference)
            return tus_response.terminated_response()
        raise _method_not_allowed(UPLOAD_METHODS)

    async def _describe(self, incoming: IncomingRequest, reference: str) -> PartialResult:
        """Describe an upload. What is whole is committed first.

        A client takes an offset that is the length for success, and does not come back.
        """
        result = await self.uploads.describe(incoming, reference, ends_by_length=True)
        if result.offset == result.length and not result.is_complete:
            end = Append(result.offset, BodyTerms(completes=True))
            return await self.uploads.append(incoming, reference, end)
        return result

    async def _append(self, incoming: IncomingRequest, reference: str, lines: Lines) -> PartialResult:
        append = tus_request.read_append(lines)
        try:
            return await self.uploads.append(incoming, reference, append)
        except PartialRefusal as refusal:
            result = refusal.result
            if result is None or not result.is_complete or refusal.code != "mismatching_offset":
                raise
            if result.concat is not None:
                message = "the file is made of parts, and nothing is appended to it"
                raise PartialRefusal("forbidden", message, result) from refusal
            if append.offset == result.offset and not tus_request.has_content(lines):
                return result  # its client has not received the answer to the last byte
            raise


def _method_not_allowed(allowed: str) -> Refusal:
    return Refusal("method_not_allowed", f"tus has {allowed} here", {"Allow": allowed})
