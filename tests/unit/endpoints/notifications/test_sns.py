"""Messages of Amazon's notification service: only what is signed by Amazon's key is followed."""

from __future__ import annotations

import base64
import logging
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from gateway.endpoints.notifications.sns import InvalidSnsMessage, SnsVerifier
from tests.support.notifications.samples import sns

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
HOST = "https://sns.us-west-2.amazonaws.com"
NAME = f"SimpleNotificationService-{'01234567' * 4}"
CERTIFICATE = f"{HOST}/{NAME}.pem"
CONFIRM = "https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&Token=2336412f37"


def pem(ends: timedelta = timedelta(days=1)) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(7)
    builder = builder.public_key(KEY.public_key()).not_valid_before(now - timedelta(days=2))
    made = builder.not_valid_after(now + ends).sign(KEY, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


def signed(kind: str = "SubscriptionConfirmation", version: str = "2", **more: str) -> dict[str, str]:
    """A message as Amazon would sign it."""
    message = sns(b"You have chosen to subscribe", kind)
    message |= {"Timestamp": datetime.now(UTC).isoformat(), "SignatureVersion": version}
    message |= {"SigningCertURL": CERTIFICATE, "SubscribeURL": CONFIRM, "Token": "2336412f37", **more}
    names = ["Message", "MessageId", "Timestamp", "TopicArn", "Type"]
    names += ["SubscribeURL", "Token"] if kind == "SubscriptionConfirmation" else ["Subject"]
    text = "".join(f"{name}\n{message[name]}\n" for name in sorted(names) if name in message)
    used = hashes.SHA256() if version == "2" else hashes.SHA1()
    signature = KEY.sign(text.encode(), padding.PKCS1v15(), used)
    return {**message, "Signature": base64.b64encode(signature).decode()}


class Amazon:
    """What stands behind the URLs; notes which were asked for."""

    def __init__(self, certificate: bytes | None = None) -> None:
        self.certificate = pem() if certificate is None else certificate
        self.asked: list[str] = []

    async def __call__(self, url: str) -> bytes:
        self.asked.append(url)
        return self.certificate if url.endswith(".pem") else b"<ConfirmSubscriptionResponse/>"


@pytest.mark.parametrize("version", ["1", "2"])
async def test_a_signed_subscription_is_confirmed(version: str) -> None:
    amazon = Amazon()
    assert await SnsVerifier(amazon).confirm(signed(version=version))
    assert amazon.asked == [CERTIFICATE, CONFIRM]


async def test_the_certificate_is_fetched_once() -> None:
    amazon = Amazon()
    service = SnsVerifier(amazon)
    await service.verify(signed("Notification"))
    await service.verify(signed())
    assert amazon.asked == [CERTIFICATE]


@pytest.mark.parametrize(
    "changes",
    [
        {"Token": "another"},
        {"Signature": "FAKE"},
        {"Signature": base64.b64encode(b"x" * 256).decode()},
        {"SignatureVersion": "3"},
        {"Type": "UnsubscribeConfirmation"},
        {"Timestamp": "2020-01-01T00:00:00Z"},
        {"Timestamp": "yesterday"},
        {"SigningCertURL": "http://sns.us-west-2.amazonaws.com/x.pem"},
        {"SigningCertURL": "https://sns.us-west-2.amazonaws.com.evil.example/x.pem"},
        {"SigningCertURL": "https://evil.example/sns.us-west-2.amazonaws.com/x.pem"},
        {"SigningCertURL": "https://sns.us-west-2.amazonaws.com@evil.example/x.pem"},
        {"SigningCertURL": "https://sns.us-west-2.amazonaws.com:8443/x.pem"},
        {"SigningCertURL": "https://s3.amazonaws.com/x.pem"},
        {"SigningCertURL": f"{HOST}/x.html"},
        {"SigningCertURL": f"{HOST}/x.pem"},
        {"SigningCertURL": f"{HOST}/?Action=Echo&Text={NAME}.pem"},
        {"SigningCertURL": f"{HOST}/{NAME}.pem?Action=Echo"},
        {"SigningCertURL": f"{HOST}/{NAME}.pem#x"},
        {"SigningCertURL": f"{HOST}/{NAME}.pem/"},
        {"SigningCertURL": f"{HOST}/a/../{NAME}.pem"},
        {"SigningCertURL": f"{HOST}/{NAME}0.pem"},
        {"SigningCertURL": f"{HOST}/{NAME}.pem\n"},
        {"SigningCertURL": f"{HOST}/{NAME.upper()}.pem"},
        {"SigningCertURL": "https://[::1/x.pem"},
    ],
)
async def test_what_is_not_amazons_is_not_followed(
    changes: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    amazon = Amazon()
    with caplog.at_level(logging.WARNING):
        assert not await SnsVerifier(amazon).confirm(signed() | changes)
    assert CONFIRM not in amazon.asked
    assert set(amazon.asked) <= {CERTIFICATE}
    assert CONFIRM in caplog.text  # for the operator to open


@pytest.mark.parametrize(
    "url",
    ["https://evil.example/", f"{HOST}/?Action=DeleteTopic&Token=1", f"{HOST}/x?{CONFIRM[-40:]}",
     f"{HOST}/", f"{CONFIRM}#x"],
)  # fmt: skip
async def test_a_signed_message_that_leads_elsewhere_is_not_followed(url: str) -> None:
    amazon = Amazon()
    assert not await SnsVerifier(amazon).confirm(signed(SubscribeURL=url))
    assert amazon.asked == [CERTIFICATE]


BAD = {
    "expired": pem(timedelta(days=-1)),
    "junk": b"junk",
    "reflected": b"<Text>\n" + pem() + b"</Text>",
    "behind text": b"text\n" + pem(),
    "two": pem() + pem(),
}


@pytest.mark.parametrize("certificate", BAD.values(), ids=BAD.keys())
async def test_a_bad_certificate_proves_nothing(certificate: bytes) -> None:
    with pytest.raises(InvalidSnsMessage):
        await SnsVerifier(Amazon(certificate)).verify(signed())


async def test_a_url_in_the_log_cannot_begin_a_line_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        await SnsVerifier(Amazon()).confirm(
            {"Type": "SubscriptionConfirmation", "SubscribeURL": "x\nERROR all"}
        )
    assert "\nERROR" not in caplog.text
