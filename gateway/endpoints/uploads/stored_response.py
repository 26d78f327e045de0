"""The response to a stored upload. Pure."""

from __future__ import annotations

from gateway.domain.digests import digest_field
from gateway.domain.model import Stored
from gateway.http.responses import SmallResponse, encode_json_string


def stored_response(stored: Stored) -> SmallResponse:
    """Return the response to an upload: 201, or 200 where it replaced a file."""
    digest, field = "", digest_field(stored.digests) if stored.digests else None
    if field is not None:
        digest = f', "digest": {encode_json_string(field)}'
    text = (
        f'{{"upload_id": "{stored.upload_id}", "path": {encode_json_string(stored.path)},'
        f' "bytes": {stored.bytes}, "mime": {encode_json_string(stored.mime)}{digest}}}\n'
    )
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Location": f"/-/uploads/{stored.upload_id}",
    }
    if field is not None:
        headers["Repr-Digest"] = field
    return SmallResponse(200 if stored.replaced else 201, headers, text.encode())
