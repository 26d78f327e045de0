"""The one entry of resumable uploads: finds the protocol of a request, and performs what it asks for.

Tus-Resumable                                  tus
upload= in the query, else Upload-Complete     draft
Content-Range or resume= in the query          ranged
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from gateway.auth.request import IncomingRequest, RequestHead
from gateway.auth.signed_urls import StoredUrls
from gateway.auth.trusted_proxies import Proxies
from gateway.domain.partial import UPLOAD_QUERY
from gateway.domain.path_template import UploadPathTemplate
from gateway.endpoints.uploads.resumable import draft, ranged
from gateway.endpoints.uploads.resumable.access import not_found
from gateway.endpoints.uploads.resumable.operations import (
    Announce,
    Append,
    Creation,
    PartialRefusal,
    PartialResult,
    PartialUploads,
)
from gateway.endpoints.uploads.resumable.places import UploadPlace
from gateway.endpoints.uploads.resumable.receiving import body_length
from gateway.endpoints.uploads.resumable.tus import TusUploads
from gateway.errors import ClientDisconnected, Refusal
from gateway.http.header_fields import Lines, read_headers
from gateway.http.request_body import send_interim, takes_interim
from gateway.http.responses import GatewayResponse, Response
from gateway.telemetry.logs import event
from gateway.telemetry.request_facts import RESUMABLE

log = logging.getLogger("gateway.uploads")

Serve = Callable[[], Awaitable[GatewayResponse]]
"""Serves a request as it is served without resumable uploads."""

_REFERENCE: Final = re.compile(r"[0-9A-Z]{26}-[0-9]+\.", re.ASCII)
"""The beginning of every reference: another value is a parameter of a handler, in a POST or PUT."""

_INTERIM: Final = "104 Upload Resumption Supported"
_SIGNS: Final = ("Upload-Complete", "Content-Range", "Tus-Resumable")
_SERVER_ERROR: Final = 500
_PASSING: Final = frozenset({"idle_timeout", "locked"})
"""Errors of the table that a later request does not get."""

_RESOURCE_METHODS: Final = frozenset({"HEAD", "GET", "PATCH", "DELETE", "OPTIONS"})


def is_resumable(head: RequestHead) -> bool:
    """Tell whether a small request must not be served without `ResumableEndpoint`."""
    headers, query = head.headers, head.raw_query
    if any(name in headers for name in _SIGNS):
        return True
    return bool(query) and (UPLOAD_QUERY in query or ranged.KEY_PARAMETER in query)


def refuse_upload_resource(head: RequestHead) -> None:
    """Refuse to remove a file in the name of what its client has sent of it. Raises `Refusal`.

    With `--resumable off`, or another spelling of the query, such a request is none of a resource.
    """
    named = UPLOAD_QUERY in head.params or ranged.KEY_PARAMETER in head.params
    if named or "Tus-Resumable" in head.headers:
        raise not_found()


@dataclass(slots=True, frozen=True)
class ResumableEndpoint:
    """Serves the resumable uploads of one process, on the server's event loop."""

    uploads: PartialUploads
    template: UploadPathTemplate
    proxies: Proxies
    urls: StoredUrls

    async def serve(self, incoming: IncomingRequest, plain: Serve) -> GatewayResponse:
        """Serve a request that is one of a resumable upload; any other by `plain`."""
        method = incoming.method
        if method not in {"HEAD", "OPTIONS"} and not is_resumable(incoming):
            return await plain()
        response: GatewayResponse | None
        incoming.facts.route = RESUMABLE
        if "Tus-Resumable" in incoming.headers and method not in {"GET", "OPTIONS"}:
            response = await self._tus.serve(incoming)
        else:
            response = await self._serve(incoming, plain)
        return await plain() if response is None else response

    async def serve_signed(
        self, incoming: IncomingRequest, place: UploadPlace, plain: Serve
    ) -> GatewayResponse:
        """Serve a request of a stored path: an upload resource, or a PUT that creates one by the draft.

        The page that has a signed URL goes on with its secret alone.
        """
        lines, references = (
            read_headers(incoming.headers).lines,
            incoming.params.get(UPLOAD_QUERY),
        )
        if references and incoming.method in _RESOURCE_METHODS and _REFERENCE.match(references[0]):
            incoming.facts.route = RESUMABLE
            return await self._draft_resource(incoming, references[0], lines)
        if incoming.method == "PUT" and draft.creates_upload(lines):
            incoming.facts.route = RESUMABLE
            return await self._draft_creation(incoming, place, lines)
        return await plain()

    async def _serve(self, incoming: IncomingRequest, plain: Serve) -> GatewayResponse | None:
        """Serve a request without `Tus-Resumable`; None where its path is no upload path."""
        method, place = incoming.method, UploadPlace.find(self.template, incoming.raw_path)
        if place is None:
            return None
        lines = read_headers(incoming.headers).lines
        references = incoming.params.get(UPLOAD_QUERY)
        if references and (method in _RESOURCE_METHODS or _REFERENCE.match(references[0])):
            return await self._draft_resource(incoming, references[0], lines)
        if method == "OPTIONS":
            return await self._path_options(plain)
        if method in {"POST", "PUT"} and draft.creates_upload(lines):
            return await self._draft_creation(incoming, place, lines)
        return await self._serve_ranged(incoming, place, lines, plain)

    async def _path_options(self, plain: Serve) -> GatewayResponse:
        try:
            return await plain()
        except Refusal as refusal:
            if refusal.code != "method_not_allowed":
                raise
            others = [name for name in refusal.headers.get("Allow", "").split(", ") if name]
            return self._options(", ".join(dict.fromkeys([*others, "POST", "HEAD", "OPTIONS"])))

    def _options(self, allowed: str) -> Response:
        """Tell what can be done, and within which limits."""
        response = Response(status=204)
        response.headers["Allow"] = allowed
        response.headers["Upload-Limit"] = draft.limit_field(self.uploads.limits())
        response.headers.update(self._tus.capabilities())
        response.headers["Cache-Control"] = "no-store"
        return response

    @property
    def _tus(self) -> TusUploads:
        return TusUploads(self.uploads, self.template, self.urls)

    # -- the draft

    async def _draft_creation(
        self, incoming: IncomingRequest, place: UploadPlace, lines: Lines
    ) -> GatewayResponse:
        responses = self._responses(lines)
        announced = False

        async def announce(result: PartialResult) -> None:
            nonlocal announced
            announced = True
            await send_interim(incoming.request, _INTERIM, responses.interim_fields(result))

        interim: Announce | None = None
        if responses.interop.version is not None and takes_interim(incoming.request, self.proxies):
            interim = announce
        try:
            length = body_length(incoming.request)
            creation = draft.read_creation(lines, responses.interop, length)
            if length is not None:
                draft.check_lengths(creation, length, responses.limits)
            target = place.target(creation.filename)
            result = await self.uploads.create(incoming, target, creation, interim)
        except Refusal as refusal:
            if announced:
                _cut_if_resumed(refusal, responses, lines)
            return responses.refused_creation(refusal)
        return responses.created(result)

    async def _draft_resource(
        self, incoming: IncomingRequest, reference: str, lines: Lines
    ) -> GatewayResponse:
        """Serve a request of an upload resource."""
        method, responses, append = incoming.method, self._responses(lines), None
        try:
            if method == "OPTIONS":
                return self._options(draft.RESOURCE_METHODS)
            if method == "PATCH":
                append = draft.read_append(lines, responses.interop)
                return responses.appended(await self.uploads.append(incoming, reference, append))
            if method not in _RESOURCE_METHODS:
                allowed = draft.RESOURCE_METHODS
                message = f"an upload resource has {allowed}"
                raise Refusal("method_not_allowed", message, {"Allow": allowed})
            draft.check_resource_request(lines)
            if method == "DELETE":
                await self.uploads.cancel(incoming, reference)
                return responses.cancelled()
            return responses.described(await self.uploads.describe(incoming, reference))
        except Refusal as refusal:
            if append is not None:
                _cut_if_resumed(refusal, responses, lines)
            return responses.refused(refusal, append)

    def _responses(self, lines: Lines) -> draft.DraftResponses:
        return draft.DraftResponses(draft.Interop.read(lines), self.uploads.limits(), self.urls)

    # -- PUT with a range

    async def _serve_ranged(
        self, incoming: IncomingRequest, place: UploadPlace, lines: Lines, plain: Serve
    ) -> GatewayResponse:
        if place.match is not None and incoming.method == "PUT":
            if ranged.resumes(lines, incoming.params):
                return await self._ranged_put(incoming, place, lines)
        elif place.match is not None and incoming.method == "HEAD":
            return await self._ranged_head(incoming, plain)
        elif incoming.method == "DELETE" and ranged.KEY_PARAMETER in incoming.params:
            await self.uploads.cancel_range(incoming, ranged.read_key(incoming.params))
            return Response(status=204)
        return await plain()

    async def _ranged_put(
        self, incoming: IncomingRequest, place: UploadPlace, lines: Lines
    ) -> GatewayResponse:
        key = ranged.NO_KEY
        try:
            key = ranged.read_key(incoming.params)
            operation = ranged.read_put(lines, key, body_length(incoming.request))
            result = await self._perform(incoming, place, key, operation)
            if not result.is_complete and ranged.is_piece(lines):
                return ranged.piece_response(result, key)
            return ranged.put_response(result, self.urls)
        except Refusal as refusal:
            return ranged.refused_response(refusal, key)

    async def _perform(
        self, incoming: IncomingRequest, place: UploadPlace, key: str, operation: Creation | Append
    ) -> PartialResult:
        if isinstance(operation, Append):
            try:
                return await self.uploads.append_to_range(incoming, key, operation)
            except Refusal as refusal:
                if (result := ranged.repeated_end(refusal, operation, key)) is not None:
                    return result
                raise ranged.as_mismatch(refusal) from refusal
        if ranged.begins_once(incoming.params, key):
            ranged.check_not_begun(await self.uploads.find(incoming, key))
        return await self.uploads.create(incoming, place.target(None), operation)

    async def _ranged_head(self, incoming: IncomingRequest, plain: Serve) -> GatewayResponse:
        """Serve a HEAD of a file, and tell how much of a newer one has come."""
        fields: dict[str, str] = {}
        keyed = ranged.KEY_PARAMETER in incoming.params
        try:
            key = ranged.read_key(incoming.params)
            if (result := await self.uploads.find(incoming, key)) is not None:
                fields = ranged.offset_fields(result, key)
        except Refusal:
            if keyed:
                raise  # else the file may be for everyone, and no upload is asked about
        if incoming.caller is not None and incoming.caller.link is not None:
            raise Refusal("not_found", "there is no such upload", fields)  # the file is not for it
        try:
            response = await plain()
        except Refusal as refusal:
            if refusal.code == "method_not_allowed" and (fields or keyed):
                raise Refusal("not_found", "there is no such file", fields) from None
            refusal.headers.update(fields)
            raise
        response.headers.update(fields)
        return response


def _cut_if_resumed(refusal: Refusal, responses: draft.DraftResponses, lines: Lines) -> None:
    """End the connection instead of an error that passes, where the client then goes on by itself.

    URLSession takes a 5xx as the response of the target, and resumes after a break only. Raises
    `ClientDisconnected`.
    """
    is_over = isinstance(refusal, PartialRefusal) and not refusal.keeps
    passes = refusal.status >= _SERVER_ERROR or refusal.code in _PASSING
    if is_over or not passes or responses.interop.version is None:
        return
    if not draft.is_last(lines, responses.interop):
        return
    log.warning(
        "an upload is cut, so that its client goes on later: %s",
        refusal.message,
        extra=event("upload.cut", reason=refusal.code),
    )
    raise ClientDisconnected("the upload goes on later")
