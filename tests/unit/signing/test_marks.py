"""The marks of stored objects: good on every gateway, for one upload at one path."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode

import pytest

from gateway.signing.keys import ObjectMarker

KEY, OLD = b"k" * 32, b"o" * 32
ID, PATH = "01ABC-0", "/up/ü.png"


def test_a_mark_is_an_hmac_over_upload_id_and_path() -> None:
    derived = hmac.digest(KEY, b"upload-gateway stored object v1", hashlib.sha256)
    signed = b"7:01ABC-0,10:" + PATH.encode() + b","
    mac = urlsafe_b64encode(hmac.digest(derived, signed, hashlib.sha256)).rstrip(b"=").decode()
    assert ObjectMarker([KEY]).mark(ID, PATH) == mac


def test_every_gateway_that_has_the_key_knows_the_mark() -> None:
    made = ObjectMarker([KEY, OLD]).mark(ID, PATH)
    assert ObjectMarker([KEY]).is_genuine(made, ID, PATH)
    assert ObjectMarker([OLD, KEY]).is_genuine(made, ID, PATH)
    assert not ObjectMarker([OLD]).is_genuine(made, ID, PATH)


@pytest.mark.parametrize(
    ("upload_id", "path"), [("01ABD-0", PATH), (ID, "/up/a.png"), (f"{ID}/up", "/ü.png"), ("", "")]
)
def test_a_mark_is_good_for_no_other_upload_and_no_other_path(upload_id: str, path: str) -> None:
    assert not ObjectMarker([KEY]).is_genuine(ObjectMarker([KEY]).mark(ID, PATH), upload_id, path)


@pytest.mark.parametrize("mark", ["", "x", "ü" * 43, "\ud800", "A" * 43])
def test_what_is_no_mark_is_never_genuine(mark: str) -> None:
    assert not ObjectMarker([KEY]).is_genuine(mark, ID, PATH)


def test_a_marker_tells_no_key() -> None:
    assert "k" * 4 not in repr(ObjectMarker([KEY]))
