"""Decides whether an upload may send its body, from its headers alone.

In this order: the headers that say what the body is, authentication, authorization (the default one, or
the handlers of OnFileUploading), the path, the size, the one-time URL. The storage comes afterwards.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.auth.authenticator import Auth
from gateway.auth.jwt.claims import truncated_principal
from gateway.auth.principals import INTERNAL, JWT
from gateway.auth.request import Caller, RequestHead
from gateway.domain import paths
from gateway.domain.held import limit_to_credential
from gateway.domain.metadata import metadata_of_headers, normalize_metadata
from gateway.domain.model import RECEIVED, UPLOADING, Upload, created_at
from gateway.domain.partial import ResumableProtocol
from gateway.domain.path_template import PathMatch
from gateway.endpoints.inflight import Inflight, Progress
from gateway.endpoints.uploads import preconditions
from gateway.endpoints.uploads.allowed_files import check_allowed
from gateway.endpoints.uploads.body import check_received
from gateway.endpoints.uploads.credentials import apply_credential
from gateway.endpoints.uploads.digests import ExpectedDigest, expected_digests
from gateway.endpoints.uploads.event_size import EventSizeLimit
from gateway.endpoints.uploads.upload_rates import UploadRates
from gateway.endpoints.uploads.whole_file import check_resumable, check_whole_file
from gateway.errors import Refusal
from gateway.http.cors import files_policy, refuse_cross_site
from gateway.http.header_fields import read_headers, replace_surrogates
from gateway.plugins.hooks import Hooks
from gateway.settings import Settings
from gateway.storage.local.one_time_marks import OneTimeMarks
from gateway.telemetry import tracing
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.uploads")

UNCHOSEN_TYPE: Final = "application/x-www-form-urlencoded"


@dataclass(slots=True, frozen=True)
class ResumableTerms:
    """What a resumable request tells of the whole file, beside its headers. Its protocol has read these.

    `length` is that of the whole file, None if it is not known yet. `content_type` and `metadata` are
    those of the file; with None those of the headers.
    """

    protocol: ResumableProtocol
    length: int | None
    content_type: str | None
    metadata: Mapping[str, str]
    part_of_concat: bool


@dataclass(slots=True)
class DescribedUpload:
    """An upload as its headers describe it, and what is checked once its body is here.

    `whole_length` is the number of bytes that the body must have, None if nobody told it;
    `must_exist` is `If-Match: *` (RFC 9110 section 13.1.1). `rate_headers` tell what is left of rates.
    """

    upload: Upload
    expected_digests: tuple[ExpectedDigest, ...]
    whole_length: int | None
    must_exist: bool
    rate_headers: dict[str, str] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether its commit needs nothing but the body, and its admission no disk."""
        return not self.expected_digests and not self.must_exist and self.one_time_mark is None

    @property
    def one_time_mark(self) -> str | None:
        """The mark of a one-time URL, None for other requests."""
        grant = self.upload.grant
        return None if grant is None else grant.once

    def check_whole(self, received: int) -> None:
        """Check the length that a header gave to the body. Raises `Refusal("incomplete_body")`."""
        if self.whole_length is not None and received != self.whole_length:
            raise Refusal(
                "incomplete_body", f"the body has {received} bytes, the file has {self.whole_length}"
            )

    def start_commit(self, progress: Progress, received: int) -> None:
        """Check a body that is in memory: its commit comes next. Raises `Refusal`."""
        progress.state, progress.received = "receiving", received
        check_received(received, self.upload.max_bytes)
        self.check_whole(received)
        progress.state = "committing"


@dataclass(slots=True, frozen=True)
class Admission:
    """Admits uploads. Runs on the server's event loop.

    The steps are plain functions, in the order `describe`, `begin`, the handlers, `accept`; `admit`
    goes through them, and waits where one has to.
    """

    settings: Settings
    auth: Auth
    hooks: Hooks
    inflight: Inflight
    one_time_marks: OneTimeMarks
    event_size: EventSizeLimit | None = None
    rates: UploadRates | None = None

    async def admit(
        self,
        head: RequestHead,
        match: PathMatch,
        upload_id: str,
        terms: ResumableTerms | None = None,
    ) -> tuple[DescribedUpload, Progress]:
        """Admit an upload and count it as in flight. Raises `Refusal`."""
        described = self.describe(head, match, upload_id, terms)
        if described is None:
            await self.authenticate(head)
            described = self.describe(head, match, upload_id, terms)
            if described is None:
                raise RuntimeError("an authenticated request has no caller")
        upload = described.upload
        upload.traceparent = tracing.current().traceparent
        progress = self.inflight.begin_upload(upload)
        try:
            self.authorize(upload.principal)
        except Refusal as refusal:
            self.hooks.shadows.beside_default(UPLOADING, upload, refusal)
            raise
        self.check_file(upload, match)
        if self.rates is not None:
            described.rate_headers = await self.rates.count(upload)
        if self.has_handlers():
            await self.hooks.admit_upload(upload)
        else:
            self.hooks.shadows.beside_default(UPLOADING, upload)
        self.accept(upload, match)
        if described.one_time_mark is not None:
            await asyncio.to_thread(self.one_time_marks.check_unused, described.one_time_mark)
        return described, progress

    async def authenticate(self, head: RequestHead) -> Caller:
        """Return who sends a request of an upload. Raises `Refusal`."""
        return await self.auth.authenticate(head, jwt=self._needs_web_token())

    def describe(
        self, head: RequestHead, match: PathMatch, upload_id: str, terms: ResumableTerms | None = None
    ) -> DescribedUpload | None:
        """Check the headers of a request, and describe its upload.

        Those that a protocol of resumable uploads has read are not looked at again, and neither are
        digests. None where `Auth.authenticate` has to wait to know its sender. Raises `Refusal`.
        """
        lines, values = read_headers(head.headers)
        params = head.params
        if terms is None:
            length = preconditions.declared_length(head.headers)
            whole_length = check_whole_file(lines, params, length)
            expected = expected_digests(lines)
        else:
            length = whole_length = terms.length
            check_resumable(lines, params, length)
            expected = ()
        preconditions.check_conditions(lines)
        caller = self.auth.authenticate_now(head, jwt=self._needs_web_token())
        if caller is None:
            return None
        if caller.principal is None and head.method == "POST":
            refuse_cross_site(head, files_policy(self.settings.cors_origins, ()))
        upload = Upload(
            id=upload_id,
            path=match.path,
            resources=match.resources,
            params=params,
            headers=values,
            method=head.method,
            remote=self.auth.proxies.client_address(head.remote, head.headers),
            principal=caller.principal,
            content_length=length,
            content_type=_content_type(lines),
            max_bytes=self.settings.max_bytes,
            on_conflict=self.settings.on_conflict,
            must_be_new="if-none-match" in lines,
            created=created_at(upload_id),
            metadata=metadata_of_headers(values),
            grant=caller.grant,
        )
        if terms is not None:
            _apply_terms(terms, upload)
        if upload.grant is not None:
            upload.metadata = dict(upload.grant.metadata)
        apply_credential(caller, upload)
        return DescribedUpload(upload, expected, whole_length, "if-match" in lines)

    def authorize(self, principal: Mapping[str, Any] | None) -> None:
        """Apply the default authorization, where no handler decides instead. Raises `Refusal`."""
        if not self.hooks.replaces_authorization():
            self.auth.authorize(principal)

    def check_file(self, upload: Upload, match: PathMatch) -> None:
        """Check the type and the name that a client gave, but not those of a part. Raises `Refusal`.

        What scripts save through another gateway of the installation is not checked, as none is that
        they save here.
        """
        if not upload.part_of_concat and upload.principal != INTERNAL:
            check_allowed(self.settings, upload.content_type, match.path)

    def has_handlers(self) -> bool:
        """Whether handlers decide about uploads."""
        return self.hooks.has_handlers(UPLOADING)

    def decides_received(self, upload: Upload) -> bool:
        """Whether handlers decide about the whole file, before it is visible.

        Not about what scripts save through another gateway of the installation, as about none that they
        save here.
        """
        return self.hooks.has_handlers(RECEIVED) and upload.principal != INTERNAL

    def accept(self, upload: Upload, match: PathMatch) -> None:
        """Check path and size as the handlers left them. Raises `Refusal`."""
        limit_to_credential(upload)
        upload.principal = truncated_principal(upload.principal)
        _check_path(upload, match)
        _check_size(upload)
        if self.event_size is not None:
            self.event_size.check(upload)

    def _needs_web_token(self) -> bool:
        return self.auth.mode == JWT and not self.hooks.replaces_authorization()


def _content_type(lines: Mapping[str, Sequence[str]]) -> str | None:
    """Return the declared media type, None where the client did not choose one.

    `application/x-www-form-urlencoded` is what curl (`--data-binary`) and urllib send when nobody chose.
    """
    declared = lines.get("content-type")
    if declared is None or declared[0].strip().lower() == UNCHOSEN_TYPE:
        return None
    return replace_surrogates(declared[0])


def _apply_terms(terms: ResumableTerms, upload: Upload) -> None:
    upload.resumable, upload.part_of_concat = terms.protocol, terms.part_of_concat
    if terms.protocol == "tus":
        upload.content_type = None  # of the envelope
    upload.content_type = terms.content_type or upload.content_type
    upload.metadata = normalize_metadata({**upload.metadata, **terms.metadata})


def _check_path(upload: Upload, match: PathMatch) -> None:
    try:
        paths.check_path(upload.path)
    except Refusal as refusal:
        if failure := as_hook_failure(refusal, upload, match.path):
            raise failure from refusal
        raise


def as_hook_failure(refusal: Refusal, upload: Upload, asked_path: str) -> Refusal | None:
    """Return `hook_failed` (503) where a handler wrote the refused path: that is no client's mistake.

    `asked_path` is the path without it.
    """
    if upload.path == asked_path or refusal.code not in {"bad_path", "forbidden"}:
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
