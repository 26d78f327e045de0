"""Our cookies are taken from the headers of a request; those of others stay as they are."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.auth.sessions.cookie import CookieHeaders, SessionCookie, pending_of, session_of

NAME = "upload-gateway-0a1b2c3d"
SECRET = "s" * 43
OTHER = "o" * 43


def take(*lines: str) -> CookieHeaders | None:
    headers = CIMultiDict([("Host", "h"), *(("Cookie", line) for line in lines), ("X-Last", "1")])
    return SessionCookie(NAME).take(CIMultiDictProxy(headers))


@pytest.mark.parametrize(
    ("lines", "session", "left"),
    [
        ([f"{NAME}={SECRET}"], f"p{SECRET}", []),
        ([f"__Host-{NAME}={SECRET}"], f"s{SECRET}", []),
        ([f"__Host-{NAME}={SECRET}; {NAME}={OTHER}"], f"s{SECRET}", []),
        ([f"a=1; {NAME}={SECRET}; b=2"], f"p{SECRET}", ["a=1; b=2"]),
        (["a=1", f"{NAME}={SECRET}", "b=2"], f"p{SECRET}", ["a=1", "b=2"]),
        ([f"{NAME}={SECRET};a=1"], f"p{SECRET}", ["a=1"]),
        ([f" {NAME} = {SECRET} "], f"p{SECRET}", []),
        ([f"{NAME}={SECRET}; {NAME}={OTHER}"], None, []),
        ([f"{NAME}={SECRET}", f"{NAME}={SECRET}"], None, []),
        ([f"__Host-{NAME}={SECRET}; __Host-{NAME}={OTHER}; {NAME}={OTHER}"], None, []),
        ([f"{NAME}=short"], None, []),
        ([f"{NAME}={SECRET}="], None, []),
        ([f"{NAME}"], None, []),
        ([f"__Secure-{NAME}={SECRET}"], None, []),
        ([f"{NAME}-sign-in=x"], None, []),
    ],
)
def test_the_session_is_the_cookie_of_our_name_and_is_gone_from_the_headers(
    lines: list[str], session: str | None, left: list[str]
) -> None:
    taken = take(*lines)
    assert taken is not None
    assert session_of(taken) == session
    assert taken.getall("Cookie", []) == left
    assert (taken["Host"], taken["X-Last"]) == ("h", "1")
    assert NAME not in str(taken)


@pytest.mark.parametrize("lines", [[], ["a=1; b=2"], ["upload-gateway-ffffffff=" + SECRET]])
def test_cookies_of_others_are_left_alone(lines: list[str]) -> None:
    assert take(*lines) is None


def test_a_copy_of_the_headers_has_no_session() -> None:
    taken = take(f"{NAME}={SECRET}")
    assert taken is not None
    copy = CIMultiDict(taken)
    assert session_of(CIMultiDictProxy(copy)) is None
    assert SECRET not in repr([taken, copy])


def test_a_pending_sign_in_is_no_session() -> None:
    taken = take(f"__Secure-{NAME}-sign-in=pending; a=1")
    assert taken is not None
    assert (session_of(taken), pending_of(taken, secure=True)) == (None, "pending")
    assert pending_of(taken, secure=False) is None


def test_a_pending_sign_in_that_anyone_can_set_does_not_count_over_https() -> None:
    taken = take(f"{NAME}-sign-in=planted")
    assert taken is not None
    assert pending_of(taken, secure=True) is None
    assert pending_of(taken, secure=False) == "planted"


def test_cookies_are_out_of_reach_for_scripts_and_other_sites() -> None:
    cookie = SessionCookie(NAME)
    assert cookie.issue(f"p{SECRET}", 60.5) == (
        f"{NAME}={SECRET}; Path=/; Max-Age=60; HttpOnly; SameSite=Strict"
    )
    assert cookie.issue(f"s{SECRET}", 60) == (
        f"__Host-{NAME}={SECRET}; Path=/; Max-Age=60; HttpOnly; SameSite=Strict; Secure"
    )
    assert cookie.expire(secure=True) == (
        f"__Host-{NAME}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict; Secure"
    )
    pending = cookie.issue_pending("v", "/-/session/oidc", 600, secure=True)
    assert pending == (
        f"__Secure-{NAME}-sign-in=v; Path=/-/session/oidc; Max-Age=600; HttpOnly; SameSite=Lax; Secure"
    )
