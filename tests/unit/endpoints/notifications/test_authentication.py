"""Who may send notifications: the secret, in each of the ways that stores have, and nobody else."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import pytest

from gateway.endpoints.notifications.handler import SIGNATURE, NotificationAuthenticator
from gateway.errors import ConfigError
from gateway.storage.keyfile import read_secrets

SECRET = "a-secret-of-some-length"
OLDER = "an-older-secret-that-still-holds"
SENDERS = NotificationAuthenticator((SECRET, OLDER))


def basic(words: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(words.encode()).decode()}


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {SECRET}"},
        {"Authorization": f"bearer  {OLDER} "},
        {"Authorization": SECRET},
        basic(f"gateway:{SECRET}"),
        basic(f":{SECRET}"),
    ],
)
def test_the_secret_in_a_header_is_enough(headers: dict[str, str]) -> None:
    assert SENDERS.check_headers(headers) is True


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {SECRET}x"},
        {"Authorization": f"Digest {SECRET}"},
        {"Authorization": "Basic !!"},
        basic(SECRET),
        basic(f"{SECRET}:"),
        {"X-Auth-Token": SECRET},
    ],
)
def test_anything_else_leaves_it_to_the_body(headers: dict[str, str]) -> None:
    assert SENDERS.check_headers(headers) is None


def test_a_signed_body_is_enough_and_another_body_is_not() -> None:
    made = hmac.new(SECRET.encode(), b"body", hashlib.sha256).hexdigest()
    assert SENDERS.is_signed({SIGNATURE: f"sha256={made}"}, b"body")
    assert not SENDERS.is_signed({SIGNATURE: f"sha256={made}"}, b"bodY")
    assert not SENDERS.is_signed({SIGNATURE: made}, b"body")
    assert not SENDERS.is_signed({}, b"body")


def test_every_record_has_to_repeat_the_secret() -> None:
    assert SENDERS.are_authentic([SECRET, OLDER])
    assert not SENDERS.are_authentic([SECRET, None])
    assert not SENDERS.are_authentic([SECRET, "guess"])
    assert not SENDERS.are_authentic([])


def test_without_a_secret_it_is_open_or_closed_and_no_body_helps() -> None:
    assert NotificationAuthenticator(open_here=True).check_headers({}) is True
    assert NotificationAuthenticator().check_headers({"Authorization": "Bearer "}) is False
    assert not NotificationAuthenticator().is_signed({SIGNATURE: ""}, b"")
    assert not NotificationAuthenticator().are_authentic([""])


def test_secrets_are_not_shown() -> None:
    assert SECRET not in repr(SENDERS)


def test_secrets_are_read_line_by_line_and_short_ones_refused(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n{OLDER}\n")
    file.chmod(0o600)
    assert read_secrets(file) == (SECRET, OLDER)
    assert read_secrets(None) == ()
    file.write_text("guess\n")
    with pytest.raises(ConfigError) as caught:
        read_secrets(file)
    assert "guess" not in str(caught.value)
