"""Which digests a body must have, by the headers of its request."""

from __future__ import annotations

import base64
import hashlib
import zlib

import pytest

from gateway.endpoints.uploads.digests import ExpectedDigest, expected_digests
from gateway.errors import Refusal
from gateway.http.header_fields import read_headers

BODY = b"precious bytes"
VALUES = {
    "md5": hashlib.md5(BODY, usedforsecurity=False).digest(),
    "sha1": hashlib.sha1(BODY, usedforsecurity=False).digest(),
    "sha256": hashlib.sha256(BODY).digest(),
    "sha512": hashlib.sha512(BODY).digest(),
    "crc32": zlib.crc32(BODY).to_bytes(4, "big"),
    "crc32c": bytes.fromhex("11e03c0f"),
    "crc64nvme": bytes.fromhex("aa6211ba1acd366f"),
    "adler32": zlib.adler32(BODY).to_bytes(4, "big"),
}
TEXTS = {name: base64.b64encode(value).decode() for name, value in VALUES.items()}


@pytest.mark.parametrize(
    ("header", "value", "algorithm"),
    [
        ("Content-MD5", TEXTS["md5"], "md5"),
        ("Content-Digest", f"sha-256=:{TEXTS['sha256']}:", "sha256"),
        ("Repr-Digest", f"sha=:{TEXTS['sha1']}:;a=b", "sha1"),
        ("Digest", f"SHA-512={TEXTS['sha512']}", "sha512"),
        ("x-amz-checksum-crc32", TEXTS["crc32"], "crc32"),
        ("x-amz-checksum-crc32c", TEXTS["crc32c"], "crc32c"),
        ("x-amz-checksum-crc64nvme", TEXTS["crc64nvme"], "crc64nvme"),
        ("x-amz-checksum-sha1", TEXTS["sha1"], "sha1"),
        ("x-amz-checksum-sha256", TEXTS["sha256"], "sha256"),
        ("x-amz-content-sha256", VALUES["sha256"].hex(), "sha256"),
        ("Content-Digest", f"crc32c=:{TEXTS['crc32c']}:", "crc32c"),
        ("x-goog-hash", f"crc32c={TEXTS['crc32c']}", "crc32c"),
        ("X-Checksum-Md5", VALUES["md5"].hex(), "md5"),
        ("X-Checksum-Sha1", VALUES["sha1"].hex().upper(), "sha1"),
        ("X-Checksum-Sha256", VALUES["sha256"].hex(), "sha256"),
        ("ETag", f'"{VALUES["md5"].hex()}"', "md5"),
        ("OC-Checksum", f"SHA1:{VALUES['sha1'].hex()}", "sha1"),
        ("OC-Checksum", f"Adler32:{VALUES['adler32'].hex()}", "adler32"),
    ],
)
def test_each_header_names_a_digest_of_the_body(header: str, value: str, algorithm: str) -> None:
    digests = expected_digests(read_headers({header: value}).lines)
    assert digests == (ExpectedDigest(algorithm, VALUES[algorithm], header),)
    with pytest.raises(Refusal) as caught:
        expected_digests({header.lower(): [value, value[:-6] + value[-2:]]})
    assert caught.value.code == "bad_digest"
    assert header in caught.value.message


def test_every_line_and_every_member_counts() -> None:
    lines = {
        "repr-digest": [
            f"sha-256=:{TEXTS['sha256']}:, unixsum=:AAAA:",
            f"sha-512=:{TEXTS['sha512']}:",
        ],
        "oc-checksum": [f"SHA1:{VALUES['sha1'].hex()} MD5:{VALUES['md5'].hex()}"],
    }
    algorithms = [digest.algorithm for digest in expected_digests(lines)]
    assert algorithms == ["sha256", "sha512", "sha1", "md5"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-amz-checksum-crc32c", "AAAAAA==-2"),
        ("x-amz-checksum-crc64nvme", "AAAAAA=="),
        ("x-amz-checksum-anything-new", "AAAA"),
        ("x-amz-checksum-sha256", "AAAA"),
        ("x-amz-checksum-sha256", "AAAA-3"),
        ("x-amz-checksum-type", "COMPOSITE"),
        ("x-amz-sdk-checksum-algorithm", "CRC32"),
        ("x-amz-content-sha256", "AAAA"),
        ("x-amz-content-sha256", ""),
        ("x-goog-hash", "crc32c=n03x"),
        ("x-goog-hash", "sha1=n03x6A=="),
        ("x-ms-content-crc64", "AAAAAAAAAAA="),
        ("upload-checksum", "sha1 AAAA"),
        ("content-digest", "crc32c=:AAAA:"),
        ("content-digest", ""),
        ("digest", "crc32c=AAAA"),
        ("digest", "sha-256=:AAAA:"),
        ("oc-checksum", "SHA3-256:aa"),
        ("oc-checksum", "SHA1"),
        ("etag", '"an-entity-tag"'),
        ("trailer", "Expires, Repr-Digest"),
        ("trailer", "x-amz-checksum-crc32"),
        ("content-md5", "\udcff"),
        ("x-checksum-md5", "\udcff"),
    ],
)
def test_a_check_that_cannot_be_done_is_refused(name: str, value: str) -> None:
    with pytest.raises(Refusal) as caught:
        expected_digests(read_headers({name: value}).lines)
    assert caught.value.code == "bad_digest"


def test_an_sdk_may_name_the_checksum_that_it_sends() -> None:
    lines = {"x-amz-sdk-checksum-algorithm": ["CRC32"], "x-amz-checksum-crc32": [TEXTS["crc32"]]}
    assert [digest.algorithm for digest in expected_digests(lines)] == ["crc32"]


def test_no_digest_is_expected_of_a_body_that_its_client_did_not_digest() -> None:
    lines = {"x-amz-content-sha256": ["UNSIGNED-PAYLOAD"], "trailer": ["Expires"]}
    assert expected_digests(lines) == ()
