"""`callout`, the way a script calls another HTTP service or this gateway.

A response is bounded in bytes; the wait is bounded by the time-out of the handler. Each executor loop
has one client session, and no call waits for a connection: a service that hangs takes no place of the
others. The credential of the installation goes to its own gateways only, not even to the target of a
redirect.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from yarl import URL

from gateway.plugins.scripting.http_sessions import HttpSessions
from gateway.signing.keys import FindCredentials, TrustedCall
from gateway.telemetry import tracing
from gateway.telemetry.logs import bound_fields
from gateway.telemetry.redaction import INTERNAL_HEADER

MAX_RESPONSE_BYTES: Final = 64 * 1024 * 1024
"""Bytes of a response that a script may hold in memory; for larger ones it uses `aiohttp` and a file."""


SPAN: Final = "gateway.callout"
"""The name of the span of a request that a script or a webhook sends."""


class HTTPError(Exception):
    """An HTTP status as an exception: raised by `callout` from 400 on, and by scripts."""

    def __init__(self, code: int, body: Any = None) -> None:
        super().__init__(code, body)
        self.code = code
        self.body = body

    def __str__(self) -> str:
        return f"HTTP {self.code}"


@dataclass(frozen=True, slots=True, repr=False)
class CalloutResponse:
    """The response of a callout: status, headers (looked up without regard to case), body."""

    code: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"<CalloutResponse {self.code}, {len(self.body)} bytes>"

    def json(self) -> Any:
        """Return the body as JSON. Raises `ValueError` if it is not JSON."""
        return json.loads(self.body)


OVERLOADED: Final = CalloutResponse(
    503,
    {},
    b'{"error": "overloaded", "message": "too many callouts of this host have no response yet"}',
)
"""In place of the response of a host that has its share of `MAX_CALLS`."""


def no_credentials(_method: str, _url: URL) -> TrustedCall | None:
    """Know no gateway of this installation."""
    return None


class Callout:
    """Calls HTTP services. `own_endpoint` returns `host:port` or a URL of this gateway."""

    def __init__(
        self,
        own_endpoint: Callable[[], str],
        credentials_for: FindCredentials = no_credentials,
        sessions: HttpSessions | None = None,
    ) -> None:
        self._own_endpoint = own_endpoint
        self._credentials_for = credentials_for
        self._sessions = HttpSessions() if sessions is None else sessions

    async def __call__(
        self,
        endpoint: str | None = None,
        path: str = "/",
        method: str = "GET",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> CalloutResponse:
        """Send a request and return its response.

        `endpoint` is `host:port`, a URL, or None for this gateway. A dict or list is sent as
        JSON. Raises `HTTPError(code, body)` from 400 on, and with 503 at once where the host has its
        share of `MAX_CALLS`; `ValueError` for a response over 64 MiB, `aiohttp.ClientError` and
        `TimeoutError` without a response. Redirects are followed, except those of a gateway of this
        installation. `X-Request-Id` is that of the request which the script serves.
        """
        url = URL(_url(endpoint or self._own_endpoint(), path))
        fields = {k: v for k, v in (headers or {}).items() if k.lower() != INTERNAL_HEADER.lower()}
        served = bound_fields().get("request_id")
        if served is not None and not any(name.lower() == "x-request-id" for name in fields):
            fields["X-Request-Id"] = served
        if isinstance(body, dict | list):
            body = json.dumps(body).encode()
            if not any(name.lower() == "content-type" for name in fields):
                fields["Content-Type"] = "application/json"
        response = await self._send(method.upper(), url, body, fields)
        if response.code >= 400:
            error = HTTPError(response.code, response.body)
            error.add_note(f"{method} {url.with_user(None).with_query(None)}")
            raise error
        return response

    async def _send(self, method: str, url: URL, body: Any, fields: dict[str, str]) -> CalloutResponse:
        options: dict[str, Any] = {}
        trusted = self._credentials_for(method, url)
        if trusted is not None:
            url = trusted.url
            fields[INTERNAL_HEADER] = trusted.credential
            options = {"allow_redirects": False, "ssl": trusted.tls}
        client, host = self._sessions.client(), f"{url.host}:{url.port}"
        if not client.calls.would_fit(host):
            return OVERLOADED
        with client.calls.acquire(host), _span(method, url) as span:
            async with client.session.request(
                method, url, data=body, headers=tracing.outgoing(fields, span), **options
            ) as response:
                note_status(span, response.status)
                return CalloutResponse(response.status, response.headers, await _read(response))

    async def close(self) -> None:
        """Close the session of the running loop."""
        await self._sessions.close()


def _span(method: str, url: URL) -> tracing.Span:
    if not tracing.is_on():
        return tracing.NO_SPAN
    shown = str(url.with_user(None).with_query(None).with_fragment(None))
    return tracing.begin(SPAN, "client", {"http.request.method": method, "url.full": shown})


def note_status(span: tracing.Span, status: int) -> None:
    """Note the status of a response; from 400 on the request has failed, as seen by its client."""
    span.set({"http.response.status_code": status})
    if status >= 400:
        span.fail(str(status))


def _url(endpoint: str, path: str) -> str:
    base = endpoint if "://" in endpoint else f"http://{endpoint}"
    return f"{base.rstrip('/')}/{path.removeprefix('/')}"


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            response.close()
            raise ValueError(f"the response is larger than {MAX_RESPONSE_BYTES} bytes")
    return bytes(body)
