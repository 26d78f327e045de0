"""Decides whether an upload may send its body, from its headers alone.

In this order: the headers that say what the body is, authentication, authorization (the default one, or
the handlers of OnFileUploading), the path, the size, the one-time URL. Every "no" is a `Refusal`. The
storage is checked afterwards.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.auth.authenticator import JWT, Auth
from gateway.auth.jwt.claims import truncated_principal
from gateway.auth.request import RequestHead
from gateway.domain import paths
from gateway.domain.metadata import metadata_of_headers
from gateway.domain.model import Upload
from gateway.domain.path_template import PathMatch
from gateway.endpoints.inflight import Inflight, Progress
from gateway.endpoints.uploads import preconditions
from gateway.endpoints.uploads.digests import ExpectedDigest, expected_digests
from gateway.endpoints.uploads.event_size import EventSizeLimit
from gateway.endpoints.uploads.whole_file import check_whole_file
from gateway.errors import Refusal
from gateway.http.protocol import header_lines, headers_as_dict, replace_surrogates
from gateway.plugins.hooks import Hooks
from gateway.settings import Settings
from gateway.storage.local.one_time_marks import OneTimeMarks
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.uploads")

UNCHOSEN_TYPE: Final = "application/x-www-form-urlencoded"


@dataclass(slots=True)
class AdmittedUpload:
    """An upload that may send its body, and what is checked later.

    `whole_length` is the number of bytes that the body must have, None if nobody told it;
    `must_exist` is `If-Match: *` (RFC 9110 section 13.1.1).
    """

    upload: Upload
    progress: Progress
    expected_digests: tuple[ExpectedDigest, ...]
    whole_length: int | None
    must_exist: bool


@dataclass(slots=True, frozen=True)
class Admission:
    """Admits uploads. Runs on the server's event loop."""

    settings: Settings
    auth: Auth
    hooks: Hooks
    inflight: Inflight
    one_time_marks: OneTimeMarks
    event_size: EventSizeLimit | None = None

    async def admit(self, head: RequestHead, match: PathMatch, upload_id: str) -> AdmittedUpload:
        """Admit an upload and count it as in flight. Raises `Refusal`."""
        headers = head.headers
        length, lines = preconditions.declared_length(headers), header_lines(headers)
        whole_length = check_whole_file(lines, head.params, length)
        preconditions.check_conditions(lines)
        expected = expected_digests(lines)
        replaced = self.hooks.replaces_authorization()
        caller = await self.auth.authenticate(head, jwt=self.auth.mode == JWT and not replaced)
        upload = self._describe(head, match, upload_id, length)
        upload.principal, upload.grant = caller.principal, caller.grant
        if upload.grant is not None:
            upload.metadata = dict(upload.grant.metadata)
            _apply_grant(upload)
        progress = self.inflight.begin_upload(upload)
        await self._authorize(upload)
        upload.principal = truncated_principal(upload.principal)
        _check_path(upload, match)
        _check_size(upload)
        if self.event_size is not None:
            self.event_size.check(upload)
        if upload.grant is not None and upload.grant.once is not None:
            await asyncio.to_thread(self.one_time_marks.check_unused, upload.grant.once)
        return AdmittedUpload(upload, progress, expected, whole_length, "if-match" in lines)

    def _describe(
        self, head: RequestHead, match: PathMatch, upload_id: str, length: int | None
    ) -> Upload:
        headers = head.headers
        fields = headers_as_dict(headers)
        return Upload(
            id=upload_id,
            path=match.path,
            resources=match.resources,
            params=head.params,
            headers=fields,
            method=head.method,
            remote=self.auth.proxies.client_address(head.remote, headers),
            content_length=length,
            content_type=_content_type(headers),
            max_bytes=self.settings.max_bytes,
            on_conflict=self.settings.on_conflict,
            must_be_new="If-None-Match" in headers,
            created=time.time(),
            metadata=metadata_of_headers(fields),
        )

    async def _authorize(self, upload: Upload) -> None:
        if not self.hooks.replaces_authorization():
            self.auth.authorize(upload.principal)
        await self.hooks.admit_upload(upload)
        _apply_grant(upload)


def _content_type(headers: Mapping[str, str]) -> str | None:
    """Return the declared media type, None where the client did not choose one.

    `application/x-www-form-urlencoded` is what curl (`--data-binary`) and urllib send when nobody chose.
    """
    declared = headers.get("Content-Type")
    if declared is None or declared.strip().lower() == UNCHOSEN_TYPE:
        return None
    return replace_surrogates(declared)


def _apply_grant(upload: Upload) -> None:
    """Limit an upload to what its URL was signed for; no handler can allow more."""
    grant = upload.grant
    if grant is None:
        return
    limits = [limit for limit in (grant.max_body_bytes, upload.max_bytes) if limit is not None]
    upload.max_bytes = min(limits, default=None)
    upload.on_conflict = grant.on_conflict or upload.on_conflict


def _check_path(upload: Upload, match: PathMatch) -> None:
    try:
        paths.check_path(upload.path)
    except Refusal as refusal:
        if failure := as_hook_failure(refusal, upload, match):
            raise failure from refusal
        raise


def as_hook_failure(refusal: Refusal, upload: Upload, match: PathMatch) -> Refusal | None:
    """Return `hook_failed` (503) where a handler wrote the refused path: that is no client's mistake."""
    if upload.path == match.path or refusal.code not in {"bad_path", "forbidden"}:
        return None
    log.error(
        "a handler rewrote the path to one that is not allowed: %s",
        refusal,
        extra=event("hook.failed", path=upload.path),
    )
    return Refusal("hook_failed", "a handler rewrote the path to one that is not allowed")


def _check_size(upload: Upload) -> None:
    limit, length = upload.max_bytes, upload.content_length
    if limit is not None and length is not None and length > limit:
        raise Refusal("too_large", f"{length} bytes are declared, {limit} are allowed")
