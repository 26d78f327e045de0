"""The response to a stored upload. Pure."""

from __future__ import annotations

import json

from gateway.auth.links import StoredUrls
from gateway.domain.digests import digest_field
from gateway.domain.model import Stored
from gateway.http.responses import SmallResponse, encode_json_string


def stored_response(stored: Stored, urls: StoredUrls) -> SmallResponse:
    """Return the response to an upload: 201, or 200 where it replaced a file."""
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Location": f"/-/uploads/{stored.upload_id}",
    }
    if stored.digests:
        headers["Repr-Digest"] = digest_field(stored.digests)
    text = f"{stored_json(stored, urls)}\n"
    return SmallResponse(stored_status(stored), headers, text.encode())


def stored_status(stored: Stored) -> int:
    """Return 201 Created, or 200 OK where a file was replaced."""
    return 200 if stored.replaced else 201


def stored_json(stored: Stored, urls: StoredUrls) -> str:
    """Return what a client reads of a stored upload, as one line of JSON."""
    digest = ""
    if stored.digests:
        digest = f', "digest": {encode_json_string(digest_field(stored.digests))}'
    if stored.quotas:
        digest += f', "quotas": {json.dumps([left.as_dict() for left in stored.quotas])}'
    return (
        f'{{"upload_id": "{stored.upload_id}", "path": {encode_json_string(stored.path)},'
        f' "url": {encode_json_string(urls.address_of(stored.path))},'
        f' "bytes": {stored.bytes}, "mime": {encode_json_string(stored.mime)}{digest}}}'
    )
