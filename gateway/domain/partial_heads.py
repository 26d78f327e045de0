"""Heads of partial uploads as JSON, the same on disk and in a bucket. Pure."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from gateway.domain.grant import Grant
from gateway.domain.model import Upload
from gateway.domain.partial import DigestOfWhole, PartialHead

FORMAT: Final = 1
"""It grows when a head can no longer be read by older gateways."""

_UPLOAD_ID: Final = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}-\d{1,4}")


def is_upload_id(text: str) -> bool:
    """Tell whether `text` has the form of an id of `new_id`: what may name a file or an object."""
    return _UPLOAD_ID.fullmatch(text) is not None


def head_to_json(head: PartialHead) -> bytes:
    """Return a head as JSON. ASCII only: also half a surrogate pair of a header can be written."""
    fields = {field.name: getattr(head, field.name) for field in dataclasses.fields(head)}
    fields["upload"] = _upload_fields(head.upload)
    fields["digests"] = [
        {"algorithm": digest.algorithm, "value": digest.value.hex(), "header": digest.header}
        for digest in head.digests
    ]
    return json.dumps({"format": FORMAT, **fields}).encode()


def head_from_json(content: bytes) -> PartialHead:
    """Return the head of `head_to_json`. Raises `ValueError` for what is none, or is newer."""
    try:
        fields = json.loads(content)
        if fields.pop("format") != FORMAT:
            raise ValueError("a newer gateway wrote this head")
        fields["upload"] = _upload_of(fields["upload"])
        fields["digests"] = tuple(
            DigestOfWhole(digest["algorithm"], bytes.fromhex(digest["value"]), digest["header"])
            for digest in fields["digests"]
        )
        return PartialHead(**fields)
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"this is no head of a partial upload: {error}") from error


def _upload_fields(upload: Upload) -> dict[str, Any]:
    fields = {field.name: getattr(upload, field.name) for field in dataclasses.fields(upload)}
    grant = upload.grant
    if grant is not None:
        terms = {field.name: getattr(grant, field.name) for field in dataclasses.fields(grant)}
        fields["grant"] = {**terms, "metadata": dict(grant.metadata)}
    return fields


def _upload_of(fields: Mapping[str, Any]) -> Upload:
    grant = fields["grant"]
    if grant is not None:
        query = tuple((name, value) for name, value in grant["query"])
        grant = Grant(**{**grant, "query": query})
    upload = Upload(**{**fields, "grant": grant})
    if not (isinstance(upload.id, str) and is_upload_id(upload.id) and isinstance(upload.path, str)):
        raise ValueError("the head has no upload id or no path")
    return upload
