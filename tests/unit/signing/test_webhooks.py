"""Tests of the signatures of webhooks, against the reference library of Standard Webhooks."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from gateway.signing.webhooks import read_secret, sign_webhook

ONE = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TWO = "whsec_b2xkLXNlY3JldC1vZi1hdC1sZWFzdC0yNC1ieXRlcw=="
PAYLOAD = '{"type":"APIGW.OnFileUploaded","data":{"path":"/upload/\\u00e4.bin"}}'


def signed(*secrets: str, payload: str = PAYLOAD, at: int | None = None) -> dict[str, str]:
    timestamp = int(time.time()) if at is None else at
    keys = [read_secret(secret) for secret in secrets]
    signature = sign_webhook(keys, "01J-0", timestamp, payload.encode())
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    return dict(zip(names, ("01J-0", str(timestamp), signature), strict=True))


def test_the_example_of_another_implementation_is_signed_the_same() -> None:
    at = datetime(2021, 2, 25, 10, 0, tzinfo=UTC)
    theirs = Webhook(ONE).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, '{"test": 2432232314}')
    ours = sign_webhook(
        [read_secret(ONE)], "msg_p5jXN8AQM9LWM0D4loKWxJek", int(at.timestamp()), b'{"test": 2432232314}'
    )
    assert ours == theirs


def test_each_of_two_secrets_verifies_what_both_signed() -> None:
    headers = signed(ONE, TWO)
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in (ONE, TWO):
        Webhook(secret).verify(PAYLOAD, headers)


@pytest.mark.parametrize("changed", ["webhook-id", "webhook-timestamp", "payload", "secret"])
def test_nothing_that_was_changed_is_verified(changed: str) -> None:
    headers, payload, secret = signed(ONE), PAYLOAD, ONE
    if changed == "payload":
        payload += " "
    elif changed == "secret":
        secret = TWO
    elif changed == "webhook-id":
        headers["webhook-id"] = "01J-1"
    else:
        headers[changed] = str(int(headers[changed]) - 1)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(payload, headers)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_",
        "whsec_c2hvcnQ=",
        "whsec_%%%%",
        "whsec_" + "A" * 100,
    ],
)
def test_a_secret_that_is_none_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="whsec_") as refused:
        read_secret(text)
    assert len(text) < 8 or text not in str(refused.value)
