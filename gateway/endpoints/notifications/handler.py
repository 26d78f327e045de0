"""`POST /-/notifications`: object stores report the objects that were put into them.

A 2xx means that the events are durable; after any other response, or none, the store sends again.
The first process of a gateway handles all notifications, because its journal detects repetitions;
the other processes forward theirs. A sender is a principal of the gateway or has the shared secret of
notifications, which object stores send in different places.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from gateway.auth.request import IncomingRequest, RequestHead
from gateway.domain import failpoints
from gateway.endpoints.notifications.parser import NotificationMessage, parse_message
from gateway.endpoints.notifications.processor import NotificationProcessor
from gateway.endpoints.notifications.sns import SnsVerifier
from gateway.errors import EventEngineUnavailable, Refusal
from gateway.http.request_body import read_small_body
from gateway.http.responses import ApiHandler, Response, json_response
from gateway.limits import FairShare
from gateway.telemetry.logs import event

MAX_BODY: Final = 1 << 20
"""Bytes of one request. Amazon's messages have at most 256 KiB."""

MAX_CONCURRENT: Final = 128
"""Requests of known senders that are handled at once, of which each sender gets its share."""

MAX_UNKNOWN: Final = 64
"""Requests at once whose body has to tell who sends them, of which each address gets its share.

They are counted apart: whoever has no secret can never keep out who has one.
"""

FORWARD_TIMEOUT: Final = aiohttp.ClientTimeout(total=60.0)

SIGNATURE: Final = "X-Hub-Signature-256"
"""`sha256=` and the HMAC of the body in hex. Source: w3.org/TR/websub, section 7."""

CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="upload-gateway", Bearer realm="upload-gateway"'}
"""Amazon SNS sends the password of its URL only after this challenge."""

MAX_SECRET_LENGTH: Final = 2000
"""Characters of a presented secret that are compared."""

log = logging.getLogger("gateway.notifications")


class NotificationHandler:
    """The endpoint. `first_process` is a session with the first process, None if this is it.

    `client_of` tells whom a request counts for.
    """

    def __init__(
        self,
        authenticator: NotificationAuthenticator,
        processor: NotificationProcessor,
        sns: SnsVerifier,
        client_of: Callable[[RequestHead], str],
        first_process: aiohttp.ClientSession | None = None,
    ) -> None:
        self._authenticator = authenticator
        self._processor = processor
        self._sns = sns
        self._first_process = first_process
        self._client_of = client_of
        self._trusted = FairShare("notifications", MAX_CONCURRENT)
        self._strangers = FairShare("notifications of unknown senders", MAX_UNKNOWN)

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"notifications": self._notify}

    async def _notify(self, incoming: IncomingRequest) -> Response:
        request, client = incoming.request, self._client_of(incoming)
        authorized = incoming.owner or incoming.operator is not None
        trusted = self._check_headers(request.headers, authorized=authorized)
        with self._trusted.acquire(client) if trusted else self._strangers.acquire(client):
            body = await read_small_body(request, MAX_BODY)
            message = self._parse_authenticated(request.headers, body, trusted=trusted)
            if trusted:
                return await self._handle(body, message)
        with self._trusted.acquire(client):
            return await self._handle(body, message)

    def _check_headers(self, headers: Mapping[str, str], *, authorized: bool) -> bool:
        """Return whether the sender is known; if not, its body may tell. Raises `Refusal`."""
        if "Origin" in headers or headers.get("Sec-Fetch-Site", "none") != "none":
            raise Refusal("forbidden", "notifications are not accepted from web pages")
        trusted = True if authorized else self._authenticator.check_headers(headers)
        if trusted is False:
            raise _unauthorized()
        return trusted is True

    async def _handle(self, body: bytes, message: NotificationMessage) -> Response:
        if self._first_process is not None:
            return await _forward(self._first_process, body)
        if message.envelope is not None and not message.notifications and not message.ignored:
            return await self._handle_sns(message.envelope)
        try:
            counts = await self._processor.process(message.notifications)
        except EventEngineUnavailable as error:
            raise Refusal("journal_unavailable", f"events cannot be stored now: {error}") from error
        if message.ignored:
            text = "ignoring %d notifications that report no new object"
            log.debug(text, message.ignored, extra=event("notification.ignored"))
            counts["other"] = message.ignored
        failpoints.hit("before answer")
        return json_response({"notifications": counts})

    def _parse_authenticated(
        self, headers: Mapping[str, str], body: bytes, *, trusted: bool
    ) -> NotificationMessage:
        """Parse a body whose sender is authenticated, if need be by the body. Raises `Refusal`."""
        trusted = trusted or self._authenticator.is_signed(headers, body)
        try:
            message = parse_message(body)
        except Refusal:
            if not trusted:
                raise _unauthorized() from None
            raise
        if not trusted and not self._authenticator.are_authentic(message.secrets):
            raise _unauthorized()
        return message

    async def _handle_sns(self, envelope: Mapping[str, Any]) -> Response:
        """Handle a message of Amazon SNS about itself."""
        kind = str(envelope.get("Type"))
        if kind == "SubscriptionConfirmation":
            return json_response({"confirmed": await self._sns.confirm(envelope)})
        if kind not in {"Notification", "UnsubscribeConfirmation"}:
            raise Refusal("bad_request", "this is no notification of an object store: Type is unknown")
        return json_response({"notifications": {}})


async def _forward(session: aiohttp.ClientSession, body: bytes) -> Response:
    try:
        url = "http://process/-/notifications"
        async with session.post(url, data=body, timeout=FORWARD_TIMEOUT) as response:
            content = await response.read()
            return Response(
                status=response.status, body=content, content_type=response.content_type, charset="utf-8"
            )
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Refusal(
            "process_unavailable", "the process that handles notifications does not respond now"
        ) from error


# -- authentication


@dataclass(frozen=True, slots=True)
class NotificationAuthenticator:
    """Checks senders against `secrets`, each of them valid; `open_here` accepts all if there is none.

    Secrets are compared in constant time and never quoted.
    """

    secrets: Sequence[str] = field(default=(), repr=False)
    open_here: bool = False

    def check_headers(self, headers: Mapping[str, str]) -> bool | None:
        """Return whether the headers authenticate the sender; None if the body may."""
        if not self.secrets:
            return self.open_here
        return True if self._matches_any(_presented_secrets(headers)) else None

    def is_signed(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Return whether the body is signed with a secret."""
        presented = headers.get(SIGNATURE, "")[:MAX_SECRET_LENGTH].encode("utf-8", "replace")
        valid = False
        for secret in self.secrets:
            expected = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
            valid |= hmac.compare_digest(expected.encode(), presented)
        return valid

    def are_authentic(self, presented: Sequence[str | None]) -> bool:
        """Return whether every record repeats a secret, so that none was added to the body."""
        return bool(presented) and all(
            text is not None and self._matches_any([text]) for text in presented
        )

    def _matches_any(self, presented: Sequence[str]) -> bool:
        valid = False
        for text in presented:
            for secret in self.secrets:  # all of them: the time must not depend on which one matches
                valid |= hmac.compare_digest(_digest(text), _digest(secret))
        return valid


def _unauthorized() -> Refusal:
    return Refusal(
        "unauthorized",
        "notifications need authentication: send a token, or the notifications' secret as Bearer token,"
        f" as password of the URL, as opaqueData or in {SIGNATURE}",
        CHALLENGE,
    )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text[:MAX_SECRET_LENGTH].encode("utf-8", "surrogateescape")).digest()


def _presented_secrets(headers: Mapping[str, str]) -> list[str]:
    """Return the Bearer token, or the password of RFC 7617, whose user name is ignored."""
    scheme, _, credentials = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return [credentials.strip()]
    if scheme.lower() == "basic":
        try:
            return [base64.b64decode(credentials.strip(), validate=True).decode().partition(":")[2]]
        except ValueError:
            return []
    # MinIO sends its `auth_token` unchanged if it contains a scheme of its own, or is one word.
    return [scheme] if scheme and not credentials else []
