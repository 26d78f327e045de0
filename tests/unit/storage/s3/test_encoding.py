"""Texts in headers of S3: what was written is read back; names and keys are exact. No server."""

from __future__ import annotations

import email.header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Refusal
from gateway.settings.values import Bucket
from gateway.storage.s3.encoding import (
    DIGEST_NAME,
    MAX_KEY_BYTES,
    PrefixedKeys,
    decode_metadata,
    encode_metadata,
    put_object_params,
    stored_digest,
    user_metadata,
    with_digest,
)

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=200)
SEGMENT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1)


@given(TEXT)
def test_any_metadata_is_read_back(value: str) -> None:
    spelt = encode_metadata({"title": value})
    assert spelt["title"].isascii()
    assert spelt["title"] == spelt["title"].strip()
    assert decode_metadata(spelt) == {"title": value}


@given(TEXT)
def test_what_is_not_plain_is_read_by_any_program_that_reads_mail(value: str) -> None:
    spelt = encode_metadata({"title": value})["title"]
    if spelt.startswith("=?"):
        assert str(email.header.make_header(email.header.decode_header(spelt))) == value
        assert max(map(len, spelt.split())) <= 75


@pytest.mark.parametrize("plain", ["", "Keynote Speech", "50% off + more", "a=b?c"])
def test_plain_texts_stay_plain(plain: str) -> None:
    assert encode_metadata({"title": plain}) == {"title": plain}


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("=?UTF-8?Q?caf=C3=A9_au_lait?=", "café au lait"),
        ("=?ISO-8859-1?Q?caf=E9?=", "café"),
        ("=?no-such-charset?B?w6k=?=", "=?no-such-charset?B?w6k=?="),
        ("=?UTF-8?B?%%%?=", "=?UTF-8?B?%%%?="),
        ("before =?UTF-8?B?w6k=?= after", "before é after"),
        ("=?", "=?"),
        ("\udce9", "?"),
    ],
)
def test_foreign_metadata_is_read_as_far_as_possible(sent: str, read: str) -> None:
    assert decode_metadata({"Title": sent}) == {"title": read}


@given(st.lists(SEGMENT, min_size=1, max_size=3), st.sampled_from(["", "p", "a b/c"]))
def test_a_path_has_one_key_and_a_key_one_path(segments: list[str], prefix: str) -> None:
    keys, path = PrefixedKeys(Bucket("bucket", prefix)), "/" + "/".join(segments)
    try:
        key = keys.key_of(path)
    except Refusal:
        return  # not every text is a path; see the tests of paths
    assert key == (f"{prefix}/" if prefix else "") + path[1:]
    assert keys.path_of(key) == path


def test_a_key_that_s3_cannot_store_is_refused_with_the_longest_path() -> None:
    keys = PrefixedKeys(Bucket("bucket", "prefix"))
    longest = "/" + "/".join(["é" * 100] * 5)[: (MAX_KEY_BYTES - len("prefix/")) // 2]
    assert keys.key_of(longest)
    with pytest.raises(Refusal, match="takes 1017 bytes") as refused:
        keys.key_of("/" + "/".join(["x" * 200] * 6))
    assert refused.value.code == "bad_path"
    with pytest.raises(Refusal):
        keys.key_of("/\ud800")


def test_the_gateways_own_objects_are_reached_by_no_path() -> None:
    keys = PrefixedKeys(Bucket("bucket", "prefix"))
    with pytest.raises(Refusal) as refused:
        keys.key_of("/.gateway/probe")
    assert refused.value.code == "bad_path"
    assert keys.path_of("prefix/.gateway/probe") is None
    assert keys.key_of("/.gateways")


@pytest.mark.parametrize("key", ["other/a", "prefix", "prefix/", "prefix/folder/", "prefix/a//b", "pre"])
def test_a_key_that_is_no_file_has_no_path(key: str) -> None:
    assert PrefixedKeys(Bucket("bucket", "prefix")).path_of(key) is None


def test_the_digest_of_an_object_is_the_gateways_and_never_what_a_client_says() -> None:
    client = {"a": "b", DIGEST_NAME: "sha-256=:AAAA:"}
    params = put_object_params("u", "mark", "text/plain", client, {})
    assert stored_digest(params["Metadata"]) == {}
    told = with_digest(params, "sha-256=:BBBB:")["Metadata"]
    assert stored_digest(told) == {"sha-256": "BBBB"}
    assert user_metadata(told) == {"a": "b"}
    assert with_digest(params, "") == params
    assert stored_digest({DIGEST_NAME: "junk"}) == {}
