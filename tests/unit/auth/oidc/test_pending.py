"""Pending sign-ins: signed, short-lived, and leading back to this gateway only."""

from __future__ import annotations

import re

import pytest

from gateway.auth.oidc.pending import PENDING_TTL, PendingSigner, challenge_of, checked_return
from gateway.signing.sign_in import SignInSigner


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def signer(clock: Clock) -> PendingSigner:
    return PendingSigner(SignInSigner([b"k" * 32]), clock)


def test_a_pending_sign_in_comes_back_as_it_went_until_it_is_too_old(
    signer: PendingSigner, clock: Clock
) -> None:
    pending = signer.begin("/-/events?state=dead#é", "digest")
    value = signer.encode(pending)
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", value)
    assert signer.decode(value) == pending
    clock.now += PENDING_TTL
    assert signer.decode(value) is None


def test_a_pending_sign_in_that_was_changed_or_signed_by_others_does_not_count(
    signer: PendingSigner, clock: Clock
) -> None:
    value = signer.encode(signer.begin("/", None))
    secret, end, path, replaced, signature = value.split(".")
    forged = PendingSigner(SignInSigner([b"o" * 32]), clock).encode(signer.begin("/", None))
    later = ".".join((secret, str(int(end) + 1), path, replaced, signature))
    for wrong in ("", "....", value + "x", value[1:], later, forged, f"x.{value}"):
        assert signer.decode(wrong) is None


def test_state_nonce_and_verifier_are_others_for_each_sign_in(signer: PendingSigner) -> None:
    first, second = signer.begin("/", None), signer.begin("/", None)
    values = [
        make(one) for one in (first, second) for make in (signer.state, signer.nonce, signer.verifier)
    ]
    assert len({first.secret, second.secret, *values}) == 8
    assert signer.has_state(first, signer.state(first))
    assert not signer.has_state(first, signer.state(second))
    assert not signer.has_state(first, "")
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", signer.verifier(first))  # RFC 7636 section 4.1


def test_the_challenge_is_that_of_the_standard() -> None:
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"  # RFC 7636 appendix B
    assert challenge_of(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@pytest.mark.parametrize(
    ("path", "checked"),
    [
        ("/-/events?state=dead&handler=a#x", "/-/events?state=dead&handler=a#x"),
        ("/gw/-/uploads", "/gw/-/uploads"),
        ("", "/"),
        ("//evil.example", "/"),
        ("///evil.example", "/"),
        ("/\\evil.example", "/"),
        ("\\\\evil.example", "/"),
        ("/\t/evil.example", "/"),
        ("/\n/evil.example", "/"),
        ("/\x00", "/"),
        ("/ /evil.example", "/"),
        ("https://evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("evil.example", "/"),
        ("/" + "a" * 2000, "/"),
    ],
)
def test_only_a_path_of_this_gateway_is_a_way_back(path: str, checked: str) -> None:
    assert checked_return(path) == checked
