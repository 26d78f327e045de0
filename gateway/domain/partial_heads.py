"""Heads of partial uploads as JSON, the same on disk and in a bucket. Pure."""

from __future__ import annotations

import dataclasses
import json
from typing import Final

from gateway.domain.partial import DigestOfWhole, PartialHead
from gateway.domain.upload_fields import upload_fields, upload_of_fields

FORMAT: Final = 1
"""It grows when a head can no longer be read by older gateways."""


def head_to_json(head: PartialHead) -> bytes:
    """Return a head as JSON. ASCII only: also half a surrogate pair of a header can be written."""
    fields = {field.name: getattr(head, field.name) for field in dataclasses.fields(head)}
    fields["upload"] = upload_fields(head.upload)
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
        fields["upload"] = upload_of_fields(fields["upload"])
        fields["digests"] = tuple(
            DigestOfWhole(digest["algorithm"], bytes.fromhex(digest["value"]), digest["header"])
            for digest in fields["digests"]
        )
        return PartialHead(**fields)
    except (TypeError, KeyError, AttributeError, RecursionError, ValueError) as error:
        raise ValueError(f"this is no head of a partial upload: {error}") from error
