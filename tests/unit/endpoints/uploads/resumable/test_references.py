"""References to partial uploads: made by one key, verified by all, and by nothing else."""

from __future__ import annotations

import pytest

from gateway.domain.model import new_id
from gateway.endpoints.uploads.resumable.references import PartialReferences
from gateway.signing.keys import UPLOAD_SECRET_LENGTH, CredentialSigner, ObjectMarker, UploadSecrets

OLD, NEW = b"a" * 32, b"b" * 32
BASE = "https://files.example.org"


def references(*keys: bytes) -> PartialReferences:
    return PartialReferences(UploadSecrets(keys), lambda: BASE)


def test_a_reference_is_verified_by_every_key_of_the_installation() -> None:
    upload_id = new_id(3)
    reference = references(OLD).reference(upload_id)
    assert references(NEW, OLD).verify(reference) == upload_id
    assert references(NEW).verify(reference) is None


def test_the_secret_of_one_upload_is_that_of_no_other() -> None:
    made, first, second = references(OLD), new_id(0), new_id(0)
    secret = made.reference(first).partition(".")[2]
    assert len(secret) == UPLOAD_SECRET_LENGTH  # 132 bits
    assert made.verify(f"{second}.{secret}") is None
    assert made.verify(f"{first}.{secret}") == first


@pytest.mark.parametrize("change", ["", "x", ".", "%", "é", "\udc80", "A" * 200])
def test_what_is_not_exactly_a_reference_is_none(change: str) -> None:
    reference = references(OLD).reference(new_id(0))
    identifier, _, secret = reference.partition(".")
    for text in (
        reference + (change or "="),
        change + identifier.lower() + "." + secret,
        f"{identifier}.{change}",
        f"../{reference}",
        f"{identifier}{change.replace('.', ':')}{secret}",
        change,
    ):
        assert references(OLD).verify(text) is None, text


def test_nothing_else_that_the_key_signs_is_a_secret() -> None:
    upload_id = new_id(0)
    mark = ObjectMarker([OLD]).mark(upload_id, "")
    credential = CredentialSigner([OLD]).credential("h:1", "GET", upload_id).rpartition(".")[2]
    for signature in (mark, credential):
        assert references(OLD).verify(f"{upload_id}.{signature[:UPLOAD_SECRET_LENGTH]}") is None


def test_a_url_is_the_path_that_was_asked_for_behind_the_public_address() -> None:
    upload_id = new_id(0)
    url = references(OLD).url("/upload/a%20b", upload_id)
    assert url.startswith(f"{BASE}/upload/a%20b?upload={upload_id}.")
    assert references(OLD).verify(url.partition("?upload=")[2]) == upload_id


def test_keys_do_not_show() -> None:
    assert repr(UploadSecrets([OLD])) == "<UploadSecrets>"
