"""Admits new partial uploads: the steps of any upload, for the whole file, before its first byte."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.auth.principals import INTERNAL, SIGNED
from gateway.auth.request import IncomingRequest
from gateway.domain.model import Upload, new_id
from gateway.domain.partial import (
    CONCAT_FIELD,
    DigestOfWhole,
    PartialHead,
    part_identity,
    ranged_identity,
)
from gateway.endpoints.inflight import Progress
from gateway.endpoints.uploads.admission import Admission, ResumableTerms
from gateway.endpoints.uploads.resumable.operations import Creation, UploadTarget
from gateway.errors import Refusal
from gateway.http.protocol import RATE_LIMITS
from gateway.limits import client_key
from gateway.telemetry import logs
from gateway.telemetry.redaction import Redaction


@dataclass(slots=True, frozen=True)
class PartialAdmission:
    """Makes the heads of new uploads. `slot` goes into their ids, `redaction` into what is kept."""

    admission: Admission
    redaction: Redaction
    slot: int

    def new_id(self, incoming: IncomingRequest) -> str:
        """Return the id of the upload that a request creates."""
        upload_id = new_id(self.slot)
        incoming.facts.upload_id = upload_id
        logs.add_fields(upload_id=upload_id)
        return upload_id

    async def admit(
        self, incoming: IncomingRequest, target: UploadTarget, creation: Creation, upload_id: str
    ) -> tuple[PartialHead, Progress]:
        """Decide about an upload, and count it as in flight. Raises `Refusal`."""
        length = creation.length
        incoming.whole_lengths = () if length is None else (str(length),)
        if target.signed_only:
            caller = await self.admission.authenticate(incoming)
            if caller.principal not in (SIGNED, INTERNAL):
                raise Refusal("forbidden", "only signed URLs are served here")
        terms = ResumableTerms(
            creation.protocol,
            length,
            creation.content_type,
            creation.metadata,
            creation.part_of_concat,
        )
        described, progress = await self.admission.admit(incoming, target.match, upload_id, terms)
        incoming.request[RATE_LIMITS] = described.rate_headers or {}
        upload = described.upload
        head = PartialHead(
            self._kept(upload, creation),
            target.asked_path,
            creation.protocol,
            client_key(upload.principal, upload.remote),
            tuple(
                DigestOfWhole(digest.algorithm, digest.value, digest.header)
                for digest in creation.digests
            ),
            described.must_exist,
            _identity(target, creation, upload),
            creation.metadata_text,
            creation.part_of_concat,
            target.named_by_gateway,
            staged=self.admission.decides_received(upload) and not creation.part_of_concat,
        )
        return head, progress

    def _kept(self, upload: Upload, creation: Creation) -> Upload:
        """Return an upload without the secrets of its request."""
        grant = None if upload.grant is None else replace(upload.grant, query=())
        return replace(
            upload,
            headers=self.redaction.headers(upload.headers),
            params=self.redaction.params(upload.params),
            grant=grant,
            kept_headers=_kept_headers(creation),
        )


def _kept_headers(creation: Creation) -> dict[str, str]:
    """Return the headers that responses to HEAD repeat. The secrets among them are of removed parts."""
    concat = "" if creation.concat is None else creation.concat.text
    headers = {"Upload-Metadata": creation.metadata_text, CONCAT_FIELD: concat}
    return {name: text for name, text in headers.items() if text}


def _identity(target: UploadTarget, creation: Creation, upload: Upload) -> str | None:
    key = creation.resume_key
    if creation.part_of_concat and target.named_by_gateway:
        return part_identity(target.asked_path.rpartition("/")[2])
    return None if key is None else ranged_identity(target.asked_path, upload.principal, key)
