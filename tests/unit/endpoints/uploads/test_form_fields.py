"""The fields of a form: metadata, where to redirect to, a signature."""

from __future__ import annotations

import pytest

from gateway.domain.grant import Grant
from gateway.endpoints.uploads.form_fields import MAX_FIELDS, MAX_FIELDS_BYTES, FormFields
from gateway.errors import Refusal


def fields(*pairs: tuple[str, str], origins: tuple[str, ...] = ("https://app.example",)) -> FormFields:
    taken = FormFields(origins)
    for name, value in pairs:
        taken.add(name, value)
    return taken


def test_fields_become_metadata_with_or_without_the_prefix_of_headers() -> None:
    taken = fields(("Title", "Sunrise"), ("x-amz-meta-place", "Zürich"), ("_charset_", "UTF-8"))
    assert taken.metadata == {"title": "Sunrise", "place": "Zürich"}


@pytest.mark.parametrize(
    ("pairs", "code", "text"),
    [
        ([("first name", "x")], "bad_request", "'first name'"),
        ([("first_name", "x")], "bad_request", "'first_name'"),
        ([("", "x")], "bad_request", "''"),
        ([("title", "two\r\nlines")], "bad_request", "'title'"),
        ([("title", "x"), ("X-Amz-Meta-Title", "y")], "bad_request", "twice"),
        ([("title", "x" * 3000)], "bad_request", "2048"),
        ([("_charset_", "windows-1252")], "bad_request", "UTF-8"),
        ([("redirect", "/" + "x" * MAX_FIELDS_BYTES)], "too_large", "fields"),
        ([("redirect", "/")] * (MAX_FIELDS + 1), "too_large", "fields"),
        ([("X-Gateway-Key", "a"), ("X-Gateway-Key", "b")], "bad_signature", "twice"),
        ([("x-gateway-key", "a")], "bad_signature", "spelled"),
    ],
)
def test_a_field_that_cannot_be_kept_is_refused_by_its_name(
    pairs: list[tuple[str, str]], code: str, text: str
) -> None:
    with pytest.raises(Refusal) as caught:
        fields(*pairs)
    assert (caught.value.code, text in caught.value.message) == (code, True)


@pytest.mark.parametrize("name", ["redirect", "success_action_redirect"])
@pytest.mark.parametrize(
    "url", ["/thanks", "/", "/a//b?c=d#e", "https://app.example", "https://APP.example/done?x=%20"]
)
def test_a_redirect_leads_to_this_gateway_or_to_a_named_origin(name: str, url: str) -> None:
    assert fields((name, url)).redirect == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "thanks",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "https://evil.example/",
        "https://app.example.evil.example/",
        "https://app.example@evil.example/",
        "https://app.example\\@evil.example/",
        "https://app.example:8443/",
        "http://app.example/",
        "https:/app.example",
        "javascript:alert(1)",
        "data:text/html,x",
        "/a b",
        "/a\r\nSet-Cookie: x=y",
        "/é",
        "/" + "x" * 2048,
    ],
)
@pytest.mark.parametrize("origins", [("https://app.example",), ("*",), ()])
def test_a_redirect_to_elsewhere_is_refused(url: str, origins: tuple[str, ...]) -> None:
    with pytest.raises(Refusal, match="redirect"):
        fields(("redirect", url), origins=origins)


def test_a_signed_form_has_the_metadata_that_was_signed_and_no_other() -> None:
    grant = Grant("POST", "/upload/a", 0, metadata={"title": "Sunrise"})
    fields(("x-amz-meta-title", "Sunrise")).check_grant(grant)
    for name, value in (("title", "Sunset"), ("place", "here")):
        with pytest.raises(Refusal) as caught:
            fields((name, value)).check_grant(grant)
        assert caught.value.code == "not_granted"
