"""Results of operations as responses of tus: which fields they have."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gateway.auth.signed_urls import StoredUrls
from gateway.domain.model import Stored
from gateway.domain.path_template import UploadPathTemplate
from gateway.endpoints.uploads.resumable.operations import Concatenation, PartialRefusal, PartialResult
from gateway.endpoints.uploads.resumable.tus_response import (
    add_refusal_fields,
    appended_response,
    capabilities,
    created_response,
    status_response,
    terminated_response,
)
from gateway.errors import Refusal
from gateway.http.responses import refusal_response

ID = "01KB7Z2T5V3N8Q4R6S9W1X0Y2Z-0"
URL = f"https://files.example/upload/a?upload={ID}.secret"
RESULT = PartialResult(ID, URL, 70, 100, is_complete=False, expires=1403712000.5)
FINAL = "final;?upload=x"
STORED = Stored(ID, "/upload/a", 100, "text/plain", True, {})


URLS = StoredUrls(UploadPathTemplate.parse("/upload/{filepath}"), "https://files.example")


def fields_of_refusal(refusal: Refusal, max_size: int | None = None) -> dict[str, str]:
    add_refusal_fields(refusal, max_size)
    return dict(refusal.headers)


def test_what_is_supported_is_listed() -> None:
    fields = capabilities(1000)
    assert fields["Tus-Version"] == "1.0.0"
    assert fields["Tus-Max-Size"] == "1000"
    assert fields["Tus-Checksum-Algorithm"].split(",")[0] == "sha1"
    assert "checksum-trailer" not in fields["Tus-Extension"]
    assert "concatenation-unfinished" not in fields["Tus-Extension"]
    assert "Tus-Max-Size" not in capabilities(None)


def test_a_creation_has_the_absolute_url_and_the_offset() -> None:
    response = created_response(RESULT, URLS)
    assert response.status == 201
    assert response.headers["Location"] == URL
    assert response.headers["Upload-Offset"] == "70"
    assert response.headers["Upload-Expires"] == "Wed, 25 Jun 2014 16:00:00 GMT"
    assert response.headers["Link"] == f'</-/uploads/{ID}>; rel="status"'
    assert response.body is None


def test_a_creation_that_completes_the_file_tells_what_a_put_tells() -> None:
    result = replace(RESULT, offset=100, is_complete=True, expires=None, stored=STORED)
    response = created_response(result, URLS)
    assert response.status == 201
    assert response.headers["Location"] == URL
    assert "Upload-Expires" not in response.headers
    assert isinstance(response.body, bytes)
    assert json.loads(response.body)["path"] == "/upload/a"
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"


def test_an_append_has_no_content() -> None:
    response = appended_response(RESULT)
    assert (response.status, response.body) == (204, None)
    assert response.headers["Upload-Offset"] == "70"
    assert response.headers["Upload-Expires"]


@pytest.mark.parametrize(
    ("result", "fields"),
    [
        (RESULT, {"Upload-Offset": "70", "Upload-Length": "100"}),
        (replace(RESULT, length=None), {"Upload-Offset": "70", "Upload-Defer-Length": "1"}),
        (replace(RESULT, metadata_text="a,b YQ=="), {"Upload-Metadata": "a,b YQ=="}),
        (replace(RESULT, part_of_concat=True), {"Upload-Concat": "partial"}),
        (replace(RESULT, concat=Concatenation(["x"], FINAL)), {"Upload-Concat": FINAL}),
    ],
)
def test_the_status_has_what_was_sent(result: PartialResult, fields: dict[str, str]) -> None:
    response = status_response(result)
    assert response.status == 200
    assert response.headers.items() >= fields.items()
    assert ("Upload-Length" in response.headers) != ("Upload-Defer-Length" in response.headers)


def test_every_response_says_the_version_and_is_not_cached() -> None:
    responses = [
        created_response(RESULT, URLS),
        appended_response(RESULT),
        status_response(RESULT),
        terminated_response(),
        refusal_response(told(Refusal("not_found", "no"))),
        refusal_response(told(PartialRefusal("no_space", "no", RESULT))),
    ]
    for response in responses:
        assert response.headers["Tus-Resumable"] == "1.0.0"
        assert response.headers["Cache-Control"] == "no-store"


def told(refusal: Refusal) -> Refusal:
    add_refusal_fields(refusal, None)
    return refusal


def test_a_refusal_has_the_true_offset_while_the_upload_can_go_on() -> None:
    fields = fields_of_refusal(PartialRefusal("no_space", "no", RESULT))
    assert fields["Upload-Offset"] == "70"
    assert fields["Upload-Length"] == "100"
    assert fields["Upload-Expires"]
    over = fields_of_refusal(PartialRefusal("conflict", "no", RESULT, keeps=False))
    assert "Upload-Offset" not in over
    whole = replace(RESULT, offset=100)
    assert "Upload-Offset" not in fields_of_refusal(PartialRefusal("no_space", "no", whole))
    assert "Upload-Offset" not in fields_of_refusal(Refusal("not_found", "no"))


def test_a_checksum_that_does_not_match_has_a_status_without_a_phrase() -> None:
    refusal = PartialRefusal("checksum_mismatch", "no", RESULT)
    response = refusal_response(told(refusal))
    assert response.status == 460
    assert response.headers["Upload-Offset"] == "70"


def test_too_large_a_file_is_refused_with_the_greatest_size() -> None:
    assert fields_of_refusal(Refusal("too_large", "no"), 1000)["Tus-Max-Size"] == "1000"
    assert "Tus-Max-Size" not in fields_of_refusal(Refusal("too_large", "no"))
    assert "Tus-Max-Size" not in fields_of_refusal(Refusal("not_found", "no"), 1000)
