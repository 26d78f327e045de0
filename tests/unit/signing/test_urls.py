"""Signed URLs as texts: what is signed comes back whole, and nothing else ever does."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import string
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.domain.grant import MAX_LIFETIME, Grant
from gateway.errors import Refusal
from gateway.signing.targets import carries_signature
from gateway.signing.urls import UrlSigner

NOW = 1_750_000_000
KEY, OTHER = b"k" * 32, b"o" * 32
SIGNER = UrlSigner([KEY], lambda: NOW)

BODY: dict[str, Any] = {
    "content_type": "image/png",
    "max_length": 1000,
    "metadata": {"title": "Küste & Meer", "event-id": "7"},
    "once": "n" * 22,
    "on_conflict": "reject",
    "query": (("a", "1"), ("a", "2;b=3")),
}


def verify(signer: UrlSigner, method: str, target: str) -> Grant:
    path, _, query = target.partition("?")
    return signer.verify(method, path, query)


def grant(method: str = "PUT", path: str = "/upload/a b/ü;1.png", **given: Any) -> Grant:
    return Grant(method=method, path=path, expires=given.pop("expires", NOW + 900), **given)


def refused(method: str, target: str, signer: UrlSigner = SIGNER) -> str:
    with pytest.raises(Refusal) as caught:
        verify(signer, method, target)
    assert caught.value.status == 403
    return caught.value.code


# -- what anybody may wish to sign

_segments = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="/\\"),
    min_size=1,
    max_size=20,
).filter(lambda text: text not in {".", ".."})
_paths = st.lists(_segments, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
_values = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=20)
_header_values = st.text(string.ascii_letters + string.digits + "/;=-+.", min_size=1, max_size=20)
_names = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=20)
_queries = st.lists(st.tuples(_values, _values), max_size=4).map(tuple)
_puts = st.builds(
    Grant,
    method=st.just("PUT"),
    path=_paths,
    expires=st.integers(NOW + 1, NOW + MAX_LIFETIME),
    content_type=st.none() | _header_values,
    length=st.none(),
    max_length=st.none() | st.integers(0, 1 << 40),
    metadata=st.dictionaries(_names, _values, max_size=3),
    once=st.none() | st.text(string.ascii_letters, min_size=16, max_size=30),
    on_conflict=st.none() | st.just("reject"),
    query=_queries,
)
_gets = st.builds(
    Grant,
    method=st.sampled_from(["GET", "HEAD", "DELETE"]),
    path=_paths,
    expires=st.integers(NOW + 1, NOW + MAX_LIFETIME),
    cache_control=st.none() | _header_values,
    query=_queries,
)
_grants = (_puts | _gets).filter(
    lambda one: not any(name.lower().startswith("x-gateway-") for name, _ in one.query)
)

_posts = _grants.filter(lambda one: one.method == "PUT").map(lambda one: replace(one, method="POST"))


@given(_grants)
def test_what_is_signed_comes_back_whole(one: Grant) -> None:
    target = SIGNER.target(one)
    assert target.isascii()
    assert carries_signature(target.partition("?")[2])
    assert verify(SIGNER, one.method, target) == one


@given(_grants, _grants)
def test_two_grants_never_share_a_signature(one: Grant, other: Grant) -> None:
    assume(one != other)
    first, second = SIGNER.target(one), SIGNER.target(other)
    assert first.rpartition("=")[2] != second.rpartition("=")[2]


@given(_grants, st.data())
def test_no_character_of_a_signed_url_can_be_changed(one: Grant, data: st.DataObject) -> None:
    target = SIGNER.target(one)
    at = data.draw(st.integers(1, len(target) - 1))
    new = data.draw(st.sampled_from(string.ascii_letters + string.digits + "%&=+;/.-_~?X"))
    changed = target[:at] + new + target[at + 1 :]
    assume(changed != target)
    if _plain(changed) == _plain(target):  # another spelling, which means the very same to everybody
        with contextlib.suppress(Refusal):
            assert verify(SIGNER, one.method, changed) == one
    else:
        assert refused(one.method, changed) == "bad_signature"


@given(_grants, st.data())
def test_nothing_can_be_left_out_of_a_signed_url(one: Grant, data: st.DataObject) -> None:
    path, _, query = SIGNER.target(one).partition("?")
    pieces = query.split("&")
    gone = data.draw(st.integers(0, len(pieces) - 1))
    left = [piece for at, piece in enumerate(pieces) if at != gone]
    assert refused(one.method, f"{path}?{'&'.join(left)}") == "bad_signature"


@given(_grants, _values, _values, st.data())
def test_nothing_can_be_put_into_a_signed_url(
    one: Grant, name: str, value: str, data: st.DataObject
) -> None:
    path, _, query = SIGNER.target(one).partition("?")
    pieces = query.split("&")
    known = st.sampled_from([piece.partition("=")[0] for piece in pieces])
    new = f"{data.draw(known | st.just(quote(name, safe='')))}={quote(value, safe='')}"
    at = data.draw(st.integers(0, len(pieces)))
    more = [*pieces[:at], new, *pieces[at:]]
    assert refused(one.method, f"{path}?{'&'.join(more)}") == "bad_signature"


@given(_grants, st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "PATCH", "OPTIONS", "put", ""]))
def test_no_other_method_is_allowed(one: Grant, method: str) -> None:
    assume(method != one.method and (one.method, method) != ("GET", "HEAD"))
    assert refused(method, SIGNER.target(one)) == "bad_signature"


@given(_grants)
def test_order_of_the_urls_own_fields_is_of_no_importance(one: Grant) -> None:
    path, _, query = SIGNER.target(one).partition("?")
    own = [piece for piece in query.split("&") if piece.startswith("X-Gateway-")]
    others = [piece for piece in query.split("&") if not piece.startswith("X-Gateway-")]
    assert verify(SIGNER, one.method, f"{path}?{'&'.join([*reversed(own), *others])}") == one


def _form(one: Grant) -> tuple[str, str, dict[str, str]]:
    """Return path, query and fields of a grant that is given as a form."""
    own = {name.removeprefix("X-Gateway-"): value for name, value in SIGNER.form_fields(one).items()}
    path, _, query = SIGNER.target(one).partition("?")
    others = [piece for piece in query.split("&") if not piece.startswith("X-Gateway-")]
    return path, "&".join(others), own


def refused_form(path: str, query: str, fields: dict[str, str]) -> str:
    with pytest.raises(Refusal) as caught:
        SIGNER.verify_form(path, query, fields)
    return caught.value.code


@given(_posts)
def test_the_fields_of_a_form_say_what_was_signed(one: Grant) -> None:
    path, query, fields = _form(one)
    assert SIGNER.verify_form(path, query, fields) == one
    for_put = _form(replace(one, method="PUT"))
    assert refused_form(*for_put) == "bad_signature"


@given(_posts, st.data())
def test_no_field_of_a_form_can_be_changed_left_out_or_added(one: Grant, data: st.DataObject) -> None:
    path, query, fields = _form(one)
    name = data.draw(st.sampled_from(sorted(fields)))
    left = {key: value for key, value in fields.items() if key != name}
    assert refused_form(path, query, left) == "bad_signature"
    assert refused_form(path, query, fields | {name: f"{fields[name]}x"}) == "bad_signature"
    assert refused_form(path, query, fields | {f"{name}x": "y"}) == "bad_signature"
    assert refused_form(f"{path}x", query, fields) == "bad_signature"
    assert refused_form(path, f"{query}&x=y" if query else "x=y", fields) == "bad_signature"
    assert refused_form(path, SIGNER.target(one).partition("?")[2], fields) == "bad_signature"


def _plain(target: str) -> tuple[str, str]:
    path, _, query = target.partition("?")
    return unquote(path), unquote(query.replace("+", " "))


# -- spellings


@pytest.mark.parametrize(
    "spelled",
    [
        "/upload/a%20b/%C3%BC;1.png",
        "/upload/a%20b/%c3%bc;1.png",
        "/upload/%61%20b/%C3%BC;1%2Epng",
        "/upload/a%20b/\udcc3\udcbc;1.png",
        "/upload/a b/%C3%BC;1.png",
    ],
)
def test_equivalent_spellings_of_the_path_are_the_same(spelled: str) -> None:
    query = SIGNER.sign(grant())
    assert verify(SIGNER, "PUT", f"{spelled}?{query}").path == "/upload/a b/ü;1.png"


@pytest.mark.parametrize(
    "spelled",
    [
        "/upload%2Fa%20b/%C3%BC;1.png",
        "/upload/a%20b%2F%C3%BC;1.png",
        "/upload/a%2520b/%C3%BC;1.png",
        "/upload/a+b/%C3%BC;1.png",
        "/upload/a%20b/%C3%BC%3B1.png",
        "/upload/a%20b/%C3%BC%3b1.png",
        "/upload/a%20b/%C3%BC;1.png/",
        "/upload/a%20b//%C3%BC;1.png",
        "//upload/a%20b/%C3%BC;1.png",
        "/upload/./a%20b/%C3%BC;1.png",
        "/upload/x/../a%20b/%C3%BC;1.png",
        "/upload/x/%2e%2e/a%20b/%C3%BC;1.png",
        "/upload/a%20b/%C3%BC;1.PNG",
        "/Upload/a%20b/%C3%BC;1.png",
        "/upload/a%20b/%C3%BC;1.png%00",
        "/upload/a%20b/%C3%BC;1.png;x",
        "/upload/a%20b/%C3%BC;1%",
        "/upload/a%20b/%C3;1.png",
        "/upload/a%20b\\%C3%BC;1.png",
        "/upload/a%20b/u%CC%88;1.png",
        "http://elsewhere/upload/a%20b/%C3%BC;1.png",
        "upload/a%20b/%C3%BC;1.png",
        "",
    ],
)
def test_any_other_spelling_of_the_path_is_refused(spelled: str) -> None:
    assert refused("PUT", f"{spelled}?{SIGNER.sign(grant())}") == "bad_signature"


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("X-Gateway-Expires=", "x-gateway-expires="),
        ("X-Gateway-Expires=", "X-Gateway-EXPIRES="),
        ("X-Gateway-Meta-title=", "X-Gateway-Meta-Title="),
        ("X-Gateway-Signature=", "X-GATEWAY-SIGNATURE="),
        ("X-Gateway-Content-Type=image%2Fpng", "X-Gateway-Content-Type=IMAGE%2Fpng"),
        ("&X-Gateway-", ";X-Gateway-"),
        ("&X-Gateway-", "&&X-Gateway-"),
        ("X-Gateway-Max-Length=1000", "X-Gateway-Max-Length=01000"),
        ("X-Gateway-Max-Length=1000", "X-Gateway-Max-Length=1000%20"),
        ("X-Gateway-Max-Length=1000", "X-Gateway-Length=1000"),
        ("a=1&a=2%3Bb%3D3", "a=2%3Bb%3D3&a=1"),
        ("a=1&a=2%3Bb%3D3", "a=1&a=2&b=3"),
        ("a=1&", "A=1&"),
    ],
)
def test_any_other_spelling_of_the_query_is_refused(part: str, other: str) -> None:
    target = SIGNER.target(grant(**BODY))
    assert part in target
    assert refused("PUT", target.replace(part, other, 1)) == "bad_signature"


def test_texts_cannot_be_moved_from_one_field_to_another() -> None:
    one = SIGNER.sign(grant(query=(("a", "1"), ("b", "2"))))
    other = one.replace("a=1&b=2", "a=1b&=2", 1)
    assert one != other
    assert refused("PUT", f"/upload/a%20b/%C3%BC;1.png?{other}") == "bad_signature"


@pytest.mark.parametrize(
    "query",
    [
        "X-Gateway-Signature=x",
        "x-gateway-signature=x",
        "a=1&%58-Gateway-Expires=1",
        "X-Gateway-Anything",
        "x%2Dgateway%2Dkey=",
    ],
)
def test_whatever_looks_like_a_signature_is_one_and_has_to_be_good(query: str) -> None:
    assert carries_signature(query)
    assert refused("PUT", f"/upload/x?{query}") == "bad_signature"


@pytest.mark.parametrize(
    "target", ["/upload/x", "/upload/x?", "/x?a=X-Gateway-Key", "/x?X-Gatewa=1", "/X-Gateway-Key=1?a"]
)
def test_other_requests_bear_no_signature(target: str) -> None:
    assert not carries_signature(target.partition("?")[2])


# -- time


def test_a_url_is_good_up_to_the_very_second_and_never_after() -> None:
    target = SIGNER.target(grant())
    assert verify(UrlSigner([KEY], lambda: NOW + 899.9), "PUT", target)
    for now in (NOW + 900, NOW + 900.1, NOW + 10**6):
        late = UrlSigner([KEY], functools.partial(float, now))
        assert refused("PUT", target, late) == "expired"


def test_a_clock_that_is_behind_takes_the_longest_url_but_none_from_far_ahead() -> None:
    target = SIGNER.target(grant(expires=NOW + MAX_LIFETIME))
    assert verify(UrlSigner([KEY], lambda: NOW - 59), "PUT", target)
    assert refused("PUT", target, UrlSigner([KEY], lambda: NOW - 61)) == "bad_signature"


def test_expiry_is_told_only_where_the_signature_is_good() -> None:
    late = UrlSigner([KEY], lambda: NOW + 10_000)
    target = SIGNER.target(grant())
    assert refused("PUT", target.replace("upload", "download"), late) == "bad_signature"


# -- keys


def test_a_url_of_another_key_is_refused_also_where_it_names_ours() -> None:
    foreign = UrlSigner([OTHER], lambda: NOW).target(grant())
    ours = SIGNER.target(grant())
    assert refused("PUT", foreign) == "bad_signature"
    name = ours.partition("X-Gateway-Key=")[2][:8]
    theirs = foreign.partition("X-Gateway-Key=")[2][:8]
    assert refused("PUT", foreign.replace(theirs, name)) == "bad_signature"


def test_the_first_key_signs_and_all_verify() -> None:
    both = UrlSigner([OTHER, KEY], lambda: NOW)
    assert verify(both, "PUT", SIGNER.target(grant())) == grant()
    assert refused("PUT", both.target(grant())) == "bad_signature"
    assert verify(UrlSigner([OTHER], lambda: NOW), "PUT", both.target(grant())) == grant()


def test_neither_keys_nor_signatures_show_where_a_signer_is_printed() -> None:
    assert "kkk" not in repr(SIGNER)
    with pytest.raises(ValueError, match="at least 32 bytes"):
        UrlSigner([])
    with pytest.raises(ValueError, match="at least 32 bytes"):
        UrlSigner([KEY, b"short"])


# -- what cannot be signed


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"method": "put"}, "the method must be one of"),
        ({"method": "TRACE"}, "the method must be one of"),
        ({"path": "upload/x"}, "start with a slash"),
        ({"path": ""}, "start with a slash"),
        ({"path": "/"}, "segment 1"),
        ({"path": "/a//b"}, "segment 2"),
        ({"path": "/a/../b"}, "segment 2"),
        ({"path": "/a/b\\c"}, "segment 2"),
        ({"path": "/a/b\nc"}, "segment 2"),
        ({"path": "/" + "a" * 3500}, "longer than 3500 bytes"),
        ({"expires": NOW}, "at least a second"),
        ({"expires": NOW + MAX_LIFETIME + 1}, "at most 7 days"),
        ({"content_type": "a\r\nb"}, "content type must be"),
        ({"content_type": ""}, "content type must be"),
        ({"cache_control": "no-store\n"}, "cache control must be"),
        ({"length": 1, "max_length": 2}, "not both"),
        ({"length": -1}, "a length is"),
        ({"length": 5.0}, "a whole number"),
        ({"max_length": True}, "a whole number"),
        ({"max_length": 6 << 40}, "5 TiB"),
        ({"metadata": {"Title": "x"}}, "lower case"),
        ({"metadata": {"a": "b\nc"}}, "must be one line"),
        ({"metadata": {"a": "b" * 2048}}, "at most 2048"),
        ({"once": "short"}, "16 to 64"),
        ({"on_conflict": "rename"}, "only conflict policy"),
        ({"filename": "x"}, "a file name applies to downloads"),
        ({"method": "GET", "filename": "a/b"}, "no slashes"),
        ({"method": "GET", "filename": "a\rb"}, "no slashes and no control"),
        ({"method": "GET", "content_type": "text/html"}, "apply to requests with a body"),
        ({"method": "GET", "metadata": {"a": "b"}}, "apply to requests with a body"),
        ({"method": "PATCH", "once": "n" * 22}, "apply to uploads"),
        ({"query": (("x-Gateway-Key", ""),)}, "reserved for the signature"),
    ],
)
def test_what_makes_no_sense_is_not_signed(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        SIGNER.sign(dataclasses.replace(grant(), **changes))
