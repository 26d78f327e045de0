"""Heads of partial uploads as JSON: what is written is read again; what is no head is refused."""

from __future__ import annotations

import json

import pytest

from gateway.domain.grant import Grant
from gateway.domain.model import Upload, new_id
from gateway.domain.partial import DigestOfWhole, PartialHead
from gateway.domain.partial_heads import head_from_json, head_to_json
from gateway.domain.upload_fields import is_upload_id


def full_head() -> PartialHead:
    """Return a head with a value in every field."""
    grant = Grant(
        "PUT", "/upload/a", 9, max_length=5, metadata={"a": "b"}, once="n" * 16, query=(("q", "1"),)
    )
    upload = Upload(
        new_id(3),
        "/upload/ü b",
        resources={"filepath": "ü b"},
        params={"p": ["1", "2"]},
        headers={"X-Odd": "half \ud83d"},
        remote="10.0.0.1",
        principal={"kind": "token", "name": "x"},
        content_length=5,
        content_type="text/plain",
        max_bytes=7,
        on_conflict="rename",
        must_be_new=True,
        created=12.5,
        metadata={"color": "blue"},
        grant=grant,
    )
    digests = (DigestOfWhole("sha256", bytes(range(32)), "Repr-Digest"),)
    return PartialHead(
        upload,
        "/upload/%C3%BC%20b",
        "tus",
        "token:x",
        digests=digests,
        must_exist=True,
        identity="who",
        metadata_text="a Yg==",
        part_of_concat=True,
        named_by_gateway=True,
    )


def test_a_head_is_read_as_it_was_written() -> None:
    head = full_head()
    assert head_from_json(head_to_json(head)) == head
    plain = PartialHead(Upload(new_id(0), "/x"), "/x", "draft", "10.0.0.1")
    assert head_from_json(head_to_json(plain)) == plain


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"{}", b'{"format": 1}', b"\xff", b"[" * 99_999]
)
def test_what_is_no_head_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        head_from_json(content)


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"upload": {"id": "../../x", "path": "/x", "grant": None}}, {"unknown": 1}]
)
def test_a_head_with_other_fields_is_refused(change: dict[str, object]) -> None:
    content = json.dumps(json.loads(head_to_json(full_head())) | change).encode()
    with pytest.raises(ValueError, match="head"):
        head_from_json(content)


def test_only_ids_of_uploads_may_name_files() -> None:
    assert is_upload_id(new_id(0))
    assert is_upload_id(new_id(1234))
    for text in (
        "",
        "..",
        "../x",
        new_id(0).lower(),
        new_id(0) + "\n",
        new_id(0) + "/x",
        "I" * 26 + "-0",
    ):
        assert not is_upload_id(text)
