"""Uploads as JSON: in the heads of partial uploads, and of those that wait for a decision. Pure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Final

from gateway.domain.grant import Grant
from gateway.domain.model import Upload

_UPLOAD_ID: Final = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}-\d{1,4}")


def is_upload_id(text: str) -> bool:
    """Tell whether `text` has the form of an id of `new_id`: what may name a file or an object."""
    return _UPLOAD_ID.fullmatch(text) is not None


def upload_fields(upload: Upload) -> dict[str, Any]:
    """Return the fields of an upload, which JSON can write; they share their values with it."""
    fields = {field.name: getattr(upload, field.name) for field in dataclasses.fields(upload)}
    grant = upload.grant
    if grant is not None:
        terms = {field.name: getattr(grant, field.name) for field in dataclasses.fields(grant)}
        fields["grant"] = {**terms, "metadata": dict(grant.metadata)}
    return fields


def upload_of_fields(fields: Mapping[str, Any]) -> Upload:
    """Return the upload of `upload_fields`. Raises `ValueError` for what is none, or is newer."""
    try:
        grant = fields["grant"]
        if grant is not None:
            query = tuple((name, value) for name, value in grant["query"])
            grant = Grant(**{**grant, "query": query})
        upload = Upload(**{**fields, "grant": grant})
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"this is no upload: {error}") from error
    if not (isinstance(upload.id, str) and is_upload_id(upload.id) and isinstance(upload.path, str)):
        raise ValueError("there is no upload id or no path")
    return upload
