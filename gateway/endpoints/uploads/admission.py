"""Everything that is decided before a byte of body is read.

In order: who asks, may they (the default authorization, or the handlers of OnFileUploading), is the
path a good one, is the name free, is the size allowed, is there room. Each answer is a `Refusal`.
May import hooks, auth, storage, commit.reserve and the foundations.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.auth.authenticator import JWT, Auth
from gateway.auth.jwt.claims import kept
from gateway.auth.request import IncomingRequest
from gateway.commit.disk_space import Reservation
from gateway.domain import paths
from gateway.domain.event_bodies import uploaded_body
from gateway.domain.metadata import metadata_of_headers
from gateway.domain.model import Upload
from gateway.endpoints.inflight import Inflight, Progress
from gateway.endpoints.uploads import preconditions
from gateway.endpoints.uploads.buffered import is_here
from gateway.endpoints.uploads.preconditions import ExpectedDigest
from gateway.errors import Refusal
from gateway.http.protocol import joined, readable
from gateway.plugins.hooks import Hooks
from gateway.settings import Settings
from gateway.storage.local.one_time_marks import OneTimeMarks
from gateway.telemetry.redaction import Redaction

log = logging.getLogger("gateway.uploads")

Look = Callable[[Upload, tuple[str, ...], Mapping[str, str]], Awaitable[Reservation]]


@dataclass(slots=True)
class AdmittedUpload:
    """An upload that may send its body, and what its body must be.

    `share` is its place in the reserve, None where a small body is here already and nobody has
    looked at the disk: that is left to the committer.
    """

    upload: Upload
    progress: Progress
    share: Reservation | None
    expected: tuple[ExpectedDigest, ...]


class Admission:
    """Admits uploads. Reads headers only; `look` looks at the storage."""

    def __init__(
        self,
        settings: Settings,
        auth: Auth,
        hooks: Hooks,
        inflight: Inflight,
        look: Look,
        once: OneTimeMarks,
    ) -> None:
        self._settings = settings
        self._auth = auth
        self._hooks = hooks
        self._inflight = inflight
        self._look = look
        self._once = once

    async def admit(
        self, incoming: IncomingRequest, match: paths.Match, upload_id: str
    ) -> AdmittedUpload:
        """Decide. Raises `Refusal`; on success the caller must close the share."""
        request, headers = incoming.request, incoming.request.headers
        length = preconditions.declared_length(headers)
        preconditions.check_range(headers, length)
        expected = preconditions.expected_digests(headers)
        replaced = self._hooks.replaces_authorization()
        caller = await self._auth.authenticate(incoming, jwt=self._auth.mode == JWT and not replaced)
        upload = self._describe(incoming, match, upload_id, length)
        upload.principal, upload.grant = caller.principal, caller.grant
        if upload.grant is not None:
            upload.metadata = dict(upload.grant.metadata)
            _narrow(upload)
        progress = self._inflight.begin(upload)
        try:
            await self._authorize(upload)
            upload.principal = kept(upload.principal)
            segments = _segments(upload, match)
            _check_size(upload)
            share = None
            if (nonce := _nonce(upload)) is not None:
                await asyncio.to_thread(self._once.check_unused, nonce)
            if expected or not is_here(request):
                share = await self._look_at(upload, segments, match, headers)
        except BaseException as fault:
            self._inflight.end(progress, fault.code if isinstance(fault, Refusal) else "internal")
            raise
        return AdmittedUpload(upload, progress, share, expected)

    def _describe(
        self,
        incoming: IncomingRequest,
        match: paths.Match,
        upload_id: str,
        length: int | None,
    ) -> Upload:
        request, headers = incoming.request, incoming.request.headers
        fields = joined(headers)
        return Upload(
            id=upload_id,
            path=match.path,
            resources=match.resources,
            params=incoming.params,
            headers=fields,
            method=request.method,
            remote=self._auth.client_address(request.remote, headers),
            content_length=length,
            content_type=readable(headers["Content-Type"]) if "Content-Type" in headers else None,
            max_bytes=self._settings.max_bytes,
            on_conflict=self._settings.on_conflict,
            must_be_new=preconditions.must_be_new(headers),
            created=time.time(),
            metadata=metadata_of_headers(fields),
        )

    async def _authorize(self, upload: Upload) -> None:
        if not self._hooks.replaces_authorization():
            self._auth.authorize(upload.principal)
        await self._hooks.uploading(upload)
        _narrow(upload)

    async def _look_at(
        self, upload: Upload, segments: tuple[str, ...], match: paths.Match, headers: Mapping[str, str]
    ) -> Reservation:
        try:
            return await self._look(upload, segments, headers)
        except Refusal as refusal:
            raise blame(refusal, upload, match) from refusal


def _nonce(upload: Upload) -> str | None:
    """Return the name of a one-time URL."""
    grant = upload.grant
    return None if grant is None else grant.once


def _narrow(upload: Upload) -> None:
    """Let nobody, no handler either, allow more than the URL was signed for."""
    grant = upload.grant
    if grant is None:
        return
    limits = [limit for limit in (grant.max_body_bytes, upload.max_bytes) if limit is not None]
    upload.max_bytes = min(limits, default=None)
    upload.on_conflict = grant.on_conflict or upload.on_conflict


def _segments(upload: Upload, match: paths.Match) -> tuple[str, ...]:
    try:
        return paths.check(upload.path)
    except Refusal as refusal:
        raise blame(refusal, upload, match) from refusal


def blame(refusal: Refusal, upload: Upload, match: paths.Match) -> Refusal:
    """A bad path that a hook wrote is the hook's failure, not the client's (503)."""
    if upload.path == match.path or refusal.code not in {"bad_path", "forbidden"}:
        return refusal
    log.error(
        "a handler rewrote the path to a bad one: %s", refusal, extra={"facts": {"path": upload.path}}
    )
    return Refusal("hook_failed", "a handler rewrote the path to one that is not allowed")


def _check_size(upload: Upload) -> None:
    limit, length = upload.max_bytes, upload.content_length
    if limit is not None and length is not None and length > limit:
        raise Refusal("too_large", f"{length} bytes are declared, {limit} are allowed")


def uploaded_event_body(upload: Upload, mime: str, redaction: Redaction, size: int) -> dict[str, Any]:
    """Return the body of OnFileUploaded for `size` bytes, its secrets redacted."""
    return uploaded_body(
        upload,
        mime=mime,
        size=size,
        params=redaction.params(upload.params),
        headers=redaction.headers(upload.headers),
    )
