"""`POST` of a form: each file part is an upload of its own, streamed as a PUT is (RFC 7578).

At the path of a file the form has exactly one file, which is committed when the whole form has come. In
a folder each file is committed when its own part has come, and reading stops at the first failure: the
answer tells which files are stored, and no other is.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from multidict import CIMultiDict

from gateway.auth.request import IncomingRequest, RequestHead
from gateway.commit.writer import PendingWrite
from gateway.domain import failpoints
from gateway.domain.held import Held
from gateway.domain.metadata import METADATA_PREFIX
from gateway.domain.model import Stored
from gateway.endpoints.inflight import Progress
from gateway.endpoints.uploads.admission import DescribedUpload
from gateway.endpoints.uploads.body import WholeBody, receive_streamed
from gateway.endpoints.uploads.digests import expected_digests
from gateway.endpoints.uploads.form_fields import FormFields
from gateway.endpoints.uploads.form_parts import FormPart, FormReader, boundary_of
from gateway.endpoints.uploads.handler import UploadHandler
from gateway.endpoints.uploads.preconditions import declared_length
from gateway.endpoints.uploads.resumable.places import UploadPlace
from gateway.endpoints.uploads.stored_response import stored_json, stored_status
from gateway.endpoints.uploads.whole_file import LENGTH_FIELDS, check_whole_file
from gateway.errors import GatewayError, Refusal, Terminated, UnknownOutcome
from gateway.http.cors import SIGNED_URLS, files_policy, refuse_cross_site, set_cors_headers
from gateway.http.header_fields import read_headers
from gateway.http.request_body import expects_continue, send_continue_or_disconnect
from gateway.http.responses import Response, json_response
from gateway.http.tracebacks import drop_tracebacks
from gateway.settings import Settings
from gateway.telemetry import logs

MAX_SHOWN_OUTPUT: Final = 4096
"""Bytes that the answer repeats of what a handler wrote, beside files that were stored."""

_OF_THE_FORM: Final = frozenset(
    {"content-length", "content-type", "transfer-encoding", "content-encoding", "expect", *LENGTH_FIELDS}
)
"""Headers of the request that say nothing of a file in it."""

_OF_A_FILE: Final = frozenset({"content-type", "content-md5", "content-digest", "repr-digest", "digest"})
_CHECKSUM_PREFIX: Final = "x-amz-checksum-"
"""Headers of a part that mean something; others are ignored (RFC 7578 section 4.8). Taken as those of
the request, they could say who sends it where a proxy has checked the request's own."""

_SEPARATORS: Final = re.compile(r"[/\\]")


@dataclass(slots=True, frozen=True)
class FormHandler:
    """Serves the forms of one process, on the server's event loop; `uploads` stores their files."""

    uploads: UploadHandler
    settings: Settings

    async def post(
        self, incoming: IncomingRequest, place: UploadPlace, *, signed_only: bool = False
    ) -> Response:
        """Serve a form. With `signed_only` its fields must have a signature.

        Raises `Refusal` (nothing stored), `UnknownOutcome`.
        """
        form = _Form(self, incoming, place, signed_only=signed_only)
        try:
            response = await form.serve()
        except Refusal as refusal:
            if form.is_signed:
                set_cors_headers(incoming.headers, SIGNED_URLS, refusal.headers)
            raise
        if form.is_signed:
            set_cors_headers(incoming.headers, SIGNED_URLS, response.headers)
        return response


class _Form:
    """One form, and the files of it that have been stored."""

    def __init__(
        self, handler: FormHandler, incoming: IncomingRequest, place: UploadPlace, *, signed_only: bool
    ) -> None:
        self._uploads = handler.uploads
        self._origins = handler.settings.cors_origins
        self._incoming = incoming
        self._place = place
        self._signed_only = signed_only
        self._fields = FormFields(self._origins)
        self._files: list[dict[str, Any]] = []
        self._filename: str | None = None
        self._unused: list[str] = []
        """Fields that have come behind the latest file."""
        self._bytes = 0
        self.is_signed = False

    async def serve(self) -> Response:
        """Read the form and store its files."""
        request = self._incoming.request
        boundary = self._check_head()
        await self._uploads.admission.authenticate(self._incoming)
        if expects_continue(request):
            await send_continue_or_disconnect(request)
        reader = FormReader(boundary, self._uploads.receiver.chunk_reader(request))
        try:
            while part := await reader.next_part():
                await self._take_part(reader, part)
            if not self._files:
                raise Refusal("bad_request", "the form has no file: `curl -F file=@FILE URL`")
        except Refusal as refusal:
            if not any("path" in file for file in self._files):
                raise
            drop_tracebacks(refusal)  # their frames hold what was read last
            self._files.append(_failed(refusal, self._filename))
            return self._response(207)  # RFC 4918 section 13
        except GatewayError:
            raise
        except Exception as error:
            if self._files:  # a status would say that nothing of the form is visible
                raise UnknownOutcome(
                    f"a form broke off behind files that are stored: {error!r}"
                ) from error
            raise
        finally:
            logs.add_fields(bytes=self._bytes)
        is_held = any(file["status"] == 202 for file in self._files)
        return self._response(303 if self._fields.redirect else 202 if is_held else 201)

    def _check_head(self) -> str:
        """Check what the headers say of the whole form; return its boundary. Raises `Refusal`."""
        lines = read_headers(self._incoming.headers).lines
        boundary = boundary_of(lines)
        length = declared_length(self._incoming.headers)
        about_files = {name: lines[name] for name in lines if name != "content-type"}
        check_whole_file(about_files, self._incoming.params, length)
        if any(text.strip().lower() != "identity" for text in lines.get("content-encoding", ())):
            raise Refusal("unsupported_media_type", "a form is not decoded: send it without a coding")
        if expected_digests(lines):
            raise Refusal(
                "bad_digest",
                "a digest of a whole form is not verified: send it as a header of the file's part",
            )
        return boundary

    async def _take_part(self, reader: FormReader, part: FormPart) -> None:
        if part.filename is None:
            await self._take_field(reader, part)
            return
        first = await reader.read()
        if not part.filename and not first:
            return  # an input without a file (HTML, "constructing the entry list")
        self._filename = part.filename
        stored = await self._store_file(reader, part, first)
        self._filename = None
        self._bytes += stored.bytes
        answer = json.loads(stored_json(stored, self._uploads.outcomes.urls))
        self._files.append({**answer, "status": stored_status(stored), "filename": part.filename})
        failpoints.hit("after form file")

    async def _take_field(self, reader: FormReader, part: FormPart) -> None:
        before = len(self._fields.metadata)
        self._fields.add(part.name, await reader.read_text(self._fields.left_bytes))
        if len(self._fields.metadata) > before:
            self._unused.append(part.name)

    async def _store_file(self, reader: FormReader, part: FormPart, first: bytes) -> Stored | Held:
        """Store one file; its first bytes have been read. Raises `Refusal`, `UnknownOutcome`."""
        if self._files and self._place.match is not None:
            raise _one_file_only()
        self._authorize()
        self._unused = []
        waiting = [first]

        async def read() -> bytes:
            return waiting.pop() if waiting else await reader.read()

        async def receive(described: DescribedUpload, progress: Progress) -> Stored | Held:
            grant = described.upload.grant
            if grant is not None and grant.length is not None:
                described.whole_length = grant.length

            async def receive_body(pending: PendingWrite) -> None:
                await receive_streamed(read, WholeBody(progress), pending)
                if self._place.match is not None:
                    await self._read_to_end(reader)

            return await self._uploads.receive_and_commit(
                described, progress, receive_body, self._incoming.request
            )

        name = _SEPARATORS.split(part.filename or "")[-1]
        match = self._place.target(name).match
        return await self._uploads.store(self._head_of(part), match, self._incoming.request, receive)

    def _authorize(self) -> None:
        """Check the signature of a form that has one; refuse what a page of another origin posts."""
        incoming = self._incoming
        if self._fields.signed:
            grant = self._uploads.admission.auth.authenticate_form(incoming, self._fields.signed).grant
            self.is_signed = True
            if grant is not None:
                self._fields.check_grant(grant)
            return
        caller = incoming.caller
        if caller is None or caller.grant is not None:
            raise Refusal("not_granted", "a form is signed by its fields, not by its URL")
        if self._signed_only:
            raise Refusal("forbidden", "only signed forms are accepted here: their fields come first")
        if caller.principal is None:
            refuse_cross_site(incoming, files_policy(self._origins, ()))

    def _head_of(self, part: FormPart) -> RequestHead:
        """Return the head of a part as that of a request with this file alone."""
        incoming, caller = self._incoming, self._incoming.caller
        headers = CIMultiDict(
            (name, value) for name, value in incoming.headers.items() if name.lower() not in _OF_THE_FORM
        )
        for name, values in part.lines.items():
            if name in _OF_A_FILE or name.startswith(_CHECKSUM_PREFIX):
                headers[name.title()] = values[0]
        headers["Transfer-Encoding"] = "chunked"
        grant = None if caller is None else caller.grant
        if grant is not None and grant.content_type is not None:
            headers["Content-Type"] = grant.content_type
        for name, value in self._fields.metadata.items():
            if METADATA_PREFIX + name in headers and headers[METADATA_PREFIX + name] != value:
                raise Refusal("bad_request", f"the metadata {name!r} is given twice")
            headers[METADATA_PREFIX + name] = value
        head = RequestHead(
            "POST",
            incoming.raw_target,
            headers,
            incoming.remote,
            owner=incoming.owner,
            facts=incoming.facts,
        )
        head.caller = caller
        return head

    async def _read_to_end(self, reader: FormReader) -> None:
        """Read what follows the only file. Raises `Refusal` where that is another one."""
        while part := await reader.next_part():
            if part.filename is not None and (part.filename or await reader.read()):
                raise _one_file_only()
            if part.filename is None:
                await self._take_field(reader, part)

    def _response(self, status: int) -> Response:
        body: dict[str, Any] = {"uploads": self._files}
        if self._unused:
            body["unused_fields"] = self._unused
        response = json_response(body, status)
        if status == 303 and self._fields.redirect is not None:
            response.headers["Location"] = self._fields.redirect
        elif len(self._files) == 1:
            response.headers["Location"] = f"/-/uploads/{self._files[0]['upload_id']}"
        return response


def _one_file_only() -> Refusal:
    return Refusal(
        "bad_request", "a form has one file at the path of a file; post several to a folder: `.../`"
    )


def _failed(refusal: Refusal, filename: str | None) -> dict[str, Any]:
    """Return what a client reads of a file that was not stored, beside those that were."""
    file: dict[str, Any] = {"status": refusal.status, "error": refusal.code, "message": refusal.message}
    if filename is not None:
        file["filename"] = filename
    if isinstance(refusal, Terminated):
        file["output"] = refusal.body[:MAX_SHOWN_OUTPUT].decode("utf-8", "replace")
    if refusal.upload_id is not None:
        file["upload_id"] = refusal.upload_id
    return {**file, **refusal.details}
