"""The response to an upload that is stored or held. Pure."""

from __future__ import annotations

import json

from gateway.auth.signed_urls import StoredUrls
from gateway.domain.digests import digest_field
from gateway.domain.held import Held
from gateway.domain.model import Stored
from gateway.http.responses import SmallResponse, encode_json_string


def stored_response(stored: Stored | Held, urls: StoredUrls) -> SmallResponse:
    """Return the response to an upload: 201, 200 where it replaced a file, 202 where it is held."""
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Location": f"/-/uploads/{stored.upload_id}",
    }
    if stored.digests:
        headers["Repr-Digest"] = digest_field(stored.digests)
    text = f"{stored_json(stored, urls)}\n"
    return SmallResponse(stored_status(stored), headers, text.encode())


def stored_status(stored: Stored | Held) -> int:
    """Return 201 Created, 200 OK where a file was replaced, or 202 Accepted where it is held."""
    if isinstance(stored, Held):
        return 202
    return 200 if stored.replaced else 201


def stored_json(stored: Stored | Held, urls: StoredUrls) -> str:
    """Return what a client reads of a stored or held upload, as one line of JSON."""
    digest = result = ""
    if stored.digests:
        digest = f', "digest": {encode_json_string(digest_field(stored.digests))}'
    if stored.quotas:
        digest += f', "quotas": {json.dumps([left.as_dict() for left in stored.quotas])}'
    if stored.result is not None:
        result = f', "result": {json.dumps(stored.result, ensure_ascii=False)}'
    mime, begin = encode_json_string(stored.mime), f'{{"upload_id": "{stored.upload_id}",'
    if isinstance(stored, Held):
        begin += ' "state": "held",'
    if stored.tells_path:
        begin += f' "path": {encode_json_string(stored.path)},'
        if not isinstance(stored, Held):
            begin += f' "url": {encode_json_string(urls.address_of(stored.path))},'
    return f'{begin} "bytes": {stored.bytes}, "mime": {mime}{digest}{result}}}'
