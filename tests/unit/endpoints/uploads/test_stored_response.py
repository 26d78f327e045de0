"""What a client reads of an upload that is stored or held."""

from __future__ import annotations

import json

from gateway.auth.signed_urls import StoredUrls
from gateway.domain.held import Held
from gateway.domain.model import Stored
from gateway.domain.path_template import UploadPathTemplate
from gateway.endpoints.uploads.stored_response import stored_response

URLS = StoredUrls(UploadPathTemplate.parse("/upload/{filepath}"), "http://gateway.example")
DIGESTS = {"sha-256": "RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o="}


def test_the_answer_to_a_stored_file_has_the_very_bytes_of_before_where_handlers_left_nothing() -> None:
    plain = stored_response(Stored("01-0", "/upload/é", 3, "a/b", False, {}), URLS)
    assert plain.status == 201
    assert plain.content.decode() == (
        '{"upload_id": "01-0", "path": "/upload/é", "url": "http://gateway.example/upload/%C3%A9",'
        ' "bytes": 3, "mime": "a/b"}\n'
    )
    digest = stored_response(Stored("01-0", "/upload/x", 3, "a/b", True, DIGESTS), URLS)
    assert digest.status == 200
    assert digest.content.decode().endswith(
        f', "mime": "a/b", "digest": "sha-256=:{DIGESTS["sha-256"]}:"}}\n'
    )


def test_what_handlers_left_stands_at_the_end() -> None:
    left = {"ü": [1, None], "url": "the handler's"}
    answer = stored_response(Stored("01-0", "/upload/x", 3, "a/b", False, DIGESTS, left), URLS)
    body = json.loads(answer.content)
    assert list(body) == ["upload_id", "path", "url", "bytes", "mime", "digest", "result"]
    assert body["result"] == left
    assert answer.headers["Repr-Digest"] == f"sha-256=:{DIGESTS['sha-256']}:"


def test_a_held_file_is_accepted_and_has_no_url_yet() -> None:
    answer = stored_response(Held("01-0", "/upload/x", 3, "a/b", DIGESTS, {"scan": "later"}), URLS)
    assert (answer.status, answer.headers["Location"]) == (202, "/-/uploads/01-0")
    assert json.loads(answer.content) == {
        "upload_id": "01-0",
        "state": "held",
        "path": "/upload/x",
        "bytes": 3,
        "mime": "a/b",
        "digest": f"sha-256=:{DIGESTS['sha-256']}:",
        "result": {"scan": "later"},
    }
    short = json.loads(stored_response(Held("01-0", "/upload/x", 3, "a/b", {}), URLS).content)
    assert list(short) == ["upload_id", "state", "path", "bytes", "mime"]
