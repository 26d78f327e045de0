"""Verifies messages of Amazon SNS and confirms subscriptions.

No URL of a message is followed before its signature is verified, but that of the certificate. Both
must be exactly as Amazon writes them: another action of the service might return text of a stranger,
and in it a certificate of his. Source: Amazon SNS developer guide, "Verifying the signatures of
Amazon SNS messages".
"""

from __future__ import annotations

import base64
import logging
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urlsplit

import aiohttp

from gateway.telemetry.logs import event

if TYPE_CHECKING:
    from gateway.endpoints.notifications.certificates import Certificate

FETCH_TIMEOUT: Final = aiohttp.ClientTimeout(total=10.0)
MAX_FETCHED_BYTES: Final = 64 << 10
MAX_CERTIFICATES: Final = 8
"""Certificates that are cached; Amazon has one per region and changes it about once a year."""

MAX_AGE: Final = timedelta(hours=1)
"""How old a message may be. Amazon repeats it for about as long."""

_HOST: Final = re.compile(r"sns\.[a-z0-9-]{3,30}\.amazonaws\.com(?:\.cn)?", re.ASCII)
_CERTIFICATE: Final = re.compile(r"/SimpleNotificationService-[0-9a-f]{32}\.pem", re.ASCII)
_CONFIRM: Final = "Action=ConfirmSubscription&"
_SIGNED: Final[Mapping[str, tuple[str, ...]]] = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": (
        "Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type",
    ),
}  # fmt: skip

Fetch = Callable[[str], Awaitable[bytes]]

log = logging.getLogger("gateway.notifications")


class InvalidSnsMessage(Exception):
    """A message that is not verified as Amazon's. Its text goes to the log."""


class SnsVerifier:
    """Verifies messages and confirms subscriptions. `fetch` downloads a URL of Amazon."""

    def __init__(self, fetch: Fetch | None = None) -> None:
        self._fetch = fetch or _get
        self._certificates: OrderedDict[str, Certificate] = OrderedDict()

    async def confirm(self, message: Mapping[str, Any]) -> bool:
        """Confirm a `SubscriptionConfirmation` of Amazon; log the URL of any other."""
        url = str(message.get("SubscribeURL", ""))[:2000]
        topic = str(message.get("TopicArn", ""))[:300]
        try:
            await self.verify(message)
            parts = _amazon_url(url)
            if parts.path != "/" or not parts.query.startswith(_CONFIRM):
                raise InvalidSnsMessage("its URL confirms no subscription")
            await self._fetch(url)
        except (InvalidSnsMessage, aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning(
                "subscription to %r was not confirmed: %s. If it is yours, open its URL: %r",
                topic, error, url, extra=event("subscription.rejected"),
            )  # fmt: skip
            return False
        log.info("confirmed the subscription to %r", topic, extra=event("subscription.confirmed"))
        return True

    async def verify(self, message: Mapping[str, Any]) -> None:
        """Raise `InvalidSnsMessage` for a message with a bad signature, or an old one."""
        signed = _SIGNED.get(str(message.get("Type")))
        if signed is None:
            raise InvalidSnsMessage("its type is unknown")
        _check_age(message.get("Timestamp"))
        certificate = await self._certificate(str(message.get("SigningCertURL", "")))
        try:
            signature = base64.b64decode(str(message.get("Signature", "")), validate=True)
        except ValueError:
            raise InvalidSnsMessage("its signature is not base64") from None
        version = str(message.get("SignatureVersion"))
        if not certificate.verifies(_text_of(message, signed), signature, version):
            raise InvalidSnsMessage("its signature is wrong")

    async def _certificate(self, url: str) -> Certificate:
        from gateway.endpoints.notifications.certificates import Certificate

        parts = _amazon_url(url)
        if not _CERTIFICATE.fullmatch(parts.path) or parts.query:
            raise InvalidSnsMessage("the URL of its certificate is not like those of Amazon")
        cached = self._certificates.get(url)
        if cached is not None and cached.is_current:
            return cached
        try:
            fetched = Certificate(await self._fetch(url))
        except ValueError as error:
            raise InvalidSnsMessage(f"its certificate is invalid: {error}") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise InvalidSnsMessage(
                f"its certificate cannot be fetched: {type(error).__name__}"
            ) from None
        self._certificates[url] = fetched
        while len(self._certificates) > MAX_CERTIFICATES:
            self._certificates.popitem(last=False)
        return fetched


def _amazon_url(url: str) -> SplitResult:
    """Return the parts of a URL of Amazon SNS. Raises `InvalidSnsMessage` for any other."""
    try:
        parts = urlsplit(url)
        plain = parts.scheme == "https" and parts.netloc == parts.hostname and "#" not in url
    except ValueError:
        plain = False
    # `urlsplit` drops blanks and line ends: what is fetched must be what was checked.
    if not plain or not url.isascii() or parts.geturl() != url or not _HOST.fullmatch(parts.netloc):
        raise InvalidSnsMessage("it leads to a host that is not Amazon's, or not over HTTPS")
    return parts


def _check_age(timestamp: Any) -> None:
    try:
        age = datetime.now(UTC) - datetime.fromisoformat(str(timestamp))
    except (ValueError, TypeError):
        raise InvalidSnsMessage("it has no date") from None
    if abs(age) > MAX_AGE:
        raise InvalidSnsMessage("it is more than an hour old")


def _text_of(message: Mapping[str, Any], names: tuple[str, ...]) -> bytes:
    """Return the signed text: a line for each name and for its value; missing ones are left out."""
    present = [name for name in names if isinstance(message.get(name), str)]
    return "".join(f"{name}\n{message[name]}\n" for name in present).encode("utf-8", "replace")


async def _get(url: str) -> bytes:
    async with aiohttp.request("GET", url, allow_redirects=False, timeout=FETCH_TIMEOUT) as response:
        if response.status != 200:
            raise OSError(f"its status is {response.status}")
        return await response.content.read(MAX_FETCHED_BYTES)
