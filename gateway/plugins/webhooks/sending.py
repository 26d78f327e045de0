"""Sends one webhook and reads its answer, both bounded. Redirects are not followed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol

import aiohttp
from yarl import URL

from gateway.domain.model import created_at
from gateway.errors import GatewayError
from gateway.plugins.scripting.callout import SPAN, note_status
from gateway.plugins.scripting.http_sessions import REUSED, HttpSessions
from gateway.signing.webhooks import sign_webhook
from gateway.telemetry import tracing

MAX_ANSWER_BYTES: Final = 64 * 1024
"""Bytes of an answer; a larger one is a failure."""

GONE: Final = 410
"""A receiver that answers so wants no such event any more: its delivery is dead at once."""


class WebhookFailed(GatewayError):
    """A webhook was not received. The message says why, `body` is what the receiver answered.

    `retry_after` are the seconds that it asked to wait, `final` whether it wants no further attempt.
    """

    def __init__(
        self, message: str, *, body: bytes = b"", retry_after: float = 0.0, final: bool = False
    ) -> None:
        super().__init__(message)
        self.body = body
        self.retry_after = retry_after
        self.final = final


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    """The answer of a receiver."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class Post(Protocol):
    """Sends a request and returns its answer. Raises `WebhookFailed` without one."""

    async def __call__(self, url: URL, payload: bytes, headers: Mapping[str, str]) -> WebhookAnswer:
        """Send `payload`."""


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """Where events are sent. Without `secrets` they are not signed. Texts have `shown`, not `url`."""

    url: URL = field(repr=False)
    shown: str
    secrets: tuple[bytes, ...] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)

    def request_headers(self, message_id: str, now: float, payload: bytes) -> dict[str, str]:
        """Return the headers of a request at the Unix time `now`."""
        timestamp = int(now)
        headers = {
            "User-Agent": "upload-gateway",
            **self.headers,
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
        }
        if self.secrets:
            signature = sign_webhook(self.secrets, message_id, timestamp, payload)
            headers["webhook-signature"] = signature
        return headers


def payload_of(event_name: str, event: Mapping[str, Any], created: float | None) -> bytes:
    """Return the body of a webhook: `type`, `timestamp` (ISO 8601, UTC) and `data`, in ASCII.

    `created` is the Unix time of the event; with None that of its id.
    """
    moment = datetime.fromtimestamp(_time_of(event["id"]) if created is None else created, UTC)
    timestamp = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    message = {"type": event_name, "timestamp": timestamp, "data": event}
    return json.dumps(message, separators=(",", ":")).encode()


def _time_of(event_id: str) -> float:
    try:
        return created_at(event_id)
    except ValueError:  # an id that is a hash
        return time.time()


async def send(
    post: Post, target: WebhookTarget, event_name: str, event: Mapping[str, Any], created: float | None
) -> WebhookAnswer:
    """Send an event. Raises `WebhookFailed` without an answer, and for a redirect."""
    payload = payload_of(event_name, event, created)
    headers = target.request_headers(event["id"], time.time(), payload)
    with tracing.begin(
        SPAN, "client", {"http.request.method": "POST", "url.full": target.shown}
    ) as span:
        answer = await post(target.url, payload, tracing.outgoing(headers, span))
        note_status(span, answer.status)
    if 300 <= answer.status < 400:
        raise WebhookFailed(
            f"the receiver answered {answer.status}, a redirect: redirects are not followed,"
            " name the final URL",
            body=answer.body,
        )
    return answer


def failure_of(answer: WebhookAnswer) -> WebhookFailed:
    """Return the failure that an answer means which is no success."""
    return WebhookFailed(
        f"the receiver answered {answer.status}",
        body=answer.body,
        retry_after=_retry_after(answer.headers.get("Retry-After", "")),
        final=answer.status == GONE,
    )


def _retry_after(text: str) -> float:
    """Return the seconds of a `Retry-After` (RFC 9110 section 10.2.3), 0 for what is none."""
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


class WebhookSender:
    """Posts webhooks over the session of the executor's loop: a `Post`. TLS is verified."""

    def __init__(self, sessions: HttpSessions) -> None:
        self._sessions = sessions

    async def __call__(self, url: URL, payload: bytes, headers: Mapping[str, str]) -> WebhookAnswer:
        """Send `payload`. Raises `WebhookFailed`."""
        client, host = self._sessions.client(), f"{url.host}:{url.port}"
        if not client.calls.would_fit(host):
            raise WebhookFailed("too many requests to this receiver have no answer yet")
        with client.calls.acquire(host):
            try:
                facts: dict[str, bool] = {}
                try:
                    return await _post(client.session, url, payload, headers, facts)
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                    if REUSED not in facts:
                        raise
                # The receiver has closed an idle connection just then: it knows the request by its id.
                return await _post(client.session, url, payload, headers, facts)
            except aiohttp.ClientResponseError as error:  # its text has the URL with the query
                raise WebhookFailed(f"the receiver did not answer in HTTP: {error.message}") from None
            except (aiohttp.ClientError, OSError) as error:
                text = str(error) or "the connection broke"
                raise WebhookFailed(
                    f"the receiver did not answer: {type(error).__name__}: {text}"
                ) from None


async def _post(
    session: aiohttp.ClientSession,
    url: URL,
    payload: bytes,
    headers: Mapping[str, str],
    facts: dict[str, bool],
) -> WebhookAnswer:
    """Send a request once; `facts` has `REUSED` where an earlier one had its connection."""
    async with session.post(
        url,
        data=payload,
        headers=headers,
        allow_redirects=False,
        auto_decompress=False,
        trace_request_ctx=facts,
    ) as response:
        return WebhookAnswer(response.status, response.headers, await _read(response))


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            response.close()
            raise WebhookFailed(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)
