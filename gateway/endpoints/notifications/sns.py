"""Messages of Amazon's notification service (SNS), and whether they are Amazon's.

One rule: nothing that a message says is followed before its signature is found good, and then only
to Amazon's own hosts, over HTTPS. Source: Amazon SNS developer guide, "Verifying the signatures of
Amazon SNS messages".
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import aiohttp

if TYPE_CHECKING:
    from gateway.endpoints.notifications.certificates import Certificate

SECONDS: Final = 10.0
MOST_BYTES: Final = 64 << 10
CERTIFICATES: Final = 8
"""Certificates that are kept; Amazon changes them about once a year, one a region."""

FRESH: Final = timedelta(hours=1)
"""How old a message may be. It is sent again for about as long."""

_HOST: Final = re.compile(r"sns\.[a-z0-9-]{3,30}\.amazonaws\.com(?:\.cn)?", re.ASCII)
_SIGNED: Final[Mapping[str, tuple[str, ...]]] = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": (
        "Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type",
    ),
}  # fmt: skip

Fetch = Callable[[str], Awaitable[bytes]]

log = logging.getLogger("gateway.notifications")


class InvalidSnsMessage(Exception):
    """A message that is not, or not provably, Amazon's. The words are for the operator's log."""


class SnsVerifier:
    """Verifies messages and confirms subscriptions. `fetch` gets a URL of Amazon's."""

    def __init__(self, fetch: Fetch | None = None) -> None:
        self._fetch = fetch or _get
        self._certificates: OrderedDict[str, Certificate] = OrderedDict()

    async def confirm(self, message: Mapping[str, Any]) -> bool:
        """Answer a `SubscriptionConfirmation` where it is Amazon's, else tell the operator the URL."""
        url = str(message.get("SubscribeURL", ""))[:2000]
        try:
            await self.verify(message)
            await self._fetch(_amazons(url))
        except (InvalidSnsMessage, aiohttp.ClientError, TimeoutError, OSError) as fault:
            log.warning(
                "a subscription to %r was not confirmed: %s. Where it is yours, open its URL: %r",
                str(message.get("TopicArn", ""))[:300], fault, url,
            )  # fmt: skip
            return False
        log.info("confirmed the subscription to %r", str(message.get("TopicArn", ""))[:300])
        return True

    async def verify(self, message: Mapping[str, Any]) -> None:
        """Raise `InvalidSnsMessage` for a message whose signature is not good, or is of long ago."""
        signed = _SIGNED.get(str(message.get("Type")))
        if signed is None:
            raise InvalidSnsMessage("it is of no known type")
        _check_age(message.get("Timestamp"))
        certificate = await self._certificate(str(message.get("SigningCertURL", "")))
        try:
            signature = base64.b64decode(str(message.get("Signature", "")), validate=True)
        except (binascii.Error, ValueError):
            raise InvalidSnsMessage("its signature is no base64") from None
        version = str(message.get("SignatureVersion"))
        if not certificate.signed(_text_of(message, signed), signature, version):
            raise InvalidSnsMessage("its signature does not fit")

    async def _certificate(self, url: str) -> Certificate:
        from gateway.endpoints.notifications.certificates import Certificate

        known = self._certificates.get(_amazons(url, suffix=".pem"))
        if known is not None and known.is_good:
            return known
        try:
            fetched = Certificate(await self._fetch(url))
        except ValueError as fault:
            raise InvalidSnsMessage(f"its certificate is not good: {fault}") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as fault:
            raise InvalidSnsMessage(
                f"its certificate cannot be fetched: {type(fault).__name__}"
            ) from None
        self._certificates[url] = fetched
        while len(self._certificates) > CERTIFICATES:
            self._certificates.popitem(last=False)
        return fetched


def _amazons(url: str, *, suffix: str = "") -> str:
    """Return a URL of Amazon's notification service. Raises `InvalidSnsMessage` for any other."""
    try:
        parts = urlsplit(url)
        plain = parts.scheme == "https" and parts.netloc == parts.hostname and url.isascii()
    except ValueError:
        plain = False
    if not plain or not _HOST.fullmatch(parts.netloc) or not parts.path.endswith(suffix):
        raise InvalidSnsMessage("it leads to a host that is not Amazon's, or not over HTTPS")
    return url


def _check_age(said: Any) -> None:
    try:
        age = datetime.now(UTC) - datetime.fromisoformat(str(said))
    except (ValueError, TypeError):
        raise InvalidSnsMessage("it has no date") from None
    if abs(age) > FRESH:
        raise InvalidSnsMessage("it is more than an hour old")


def _text_of(message: Mapping[str, Any], names: tuple[str, ...]) -> bytes:
    """Return what is signed: each name and its value, a line each; what is not there is left out."""
    told = [name for name in names if isinstance(message.get(name), str)]
    return "".join(f"{name}\n{message[name]}\n" for name in told).encode("utf-8", "replace")


async def _get(url: str) -> bytes:
    patience = aiohttp.ClientTimeout(total=SECONDS)
    async with aiohttp.request("GET", url, allow_redirects=False, timeout=patience) as answer:
        if answer.status != 200:
            raise OSError(f"it answers {answer.status}")
        return await answer.content.read(MOST_BYTES)
