"""`callout`, the way a script calls another HTTP service or this gateway.

One rule: an answer is bounded in bytes, the wait is bounded by the handler's own time-out. One
client session a lane loop, closed with the lane. The credential of the installation goes to its own
gateways and nowhere else, not even after a redirect.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from yarl import URL

from gateway.signing.credential import FindCredentials, TrustedCall
from gateway.telemetry.redaction import INTERNAL_HEADER

LARGEST_ANSWER: Final = 64 * 1024 * 1024
"""Bytes of an answer that a script may hold in memory; larger ones are for `aiohttp` and a file."""

CONNECT_SECONDS: Final = 30.0
CONNECTIONS: Final = 1000


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
    """What a callout got: status, headers (looked up without regard to case), body."""

    code: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"<Answer {self.code}, {len(self.body)} bytes>"

    def json(self) -> Any:
        """Return the body as JSON. Raises `ValueError` where it is none."""
        return json.loads(self.body)


def nobody(_method: str, _url: URL) -> TrustedCall | None:
    """Recognise no gateway at all."""
    return None


class Callout:
    """Calls HTTP services. `own_endpoint` returns `host:port` or a URL of this gateway."""

    def __init__(
        self, own_endpoint: Callable[[], str], credentials_for: FindCredentials = nobody
    ) -> None:
        self._own_endpoint = own_endpoint
        self._credentials_for = credentials_for
        self._sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}

    async def __call__(
        self,
        endpoint: str | None = None,
        path: str = "/",
        method: str = "GET",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> CalloutResponse:
        """Send a request and return its answer.

        `endpoint` is `host:port`, a URL, or None for this gateway. A dict or list is sent as
        JSON. Raises `HTTPError(code, body)` from 400 on, `ValueError` for an answer over 64 MiB,
        `aiohttp.ClientError` and `TimeoutError` where there is no answer. Redirects are followed,
        but not those of a gateway of this installation: they are answers like others.
        """
        url = URL(_url(endpoint or self._own_endpoint(), path))
        fields = {k: v for k, v in (headers or {}).items() if k.lower() != INTERNAL_HEADER.lower()}
        if isinstance(body, dict | list):
            body = json.dumps(body).encode()
            if not any(name.lower() == "content-type" for name in fields):
                fields["Content-Type"] = "application/json"
        answer = await self._send(method.upper(), url, body, fields)
        if answer.code >= 400:
            error = HTTPError(answer.code, answer.body)
            error.add_note(f"{method} {url.with_user(None).with_query(None)}")
            raise error
        return answer

    async def _send(self, method: str, url: URL, body: Any, fields: dict[str, str]) -> CalloutResponse:
        how: dict[str, Any] = {}
        trusted = self._credentials_for(method, url)
        if trusted is not None:
            url = trusted.url
            fields[INTERNAL_HEADER] = trusted.credential
            how = {"allow_redirects": False, "ssl": trusted.tls}
        async with self._session().request(method, url, data=body, headers=fields, **how) as response:
            return CalloutResponse(response.status, response.headers, await _read(response))

    async def close(self) -> None:
        """Close the session of the running loop."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()

    def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if loop not in self._sessions:
            self._sessions[loop] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._sessions[loop]


def _url(endpoint: str, path: str) -> str:
    base = endpoint if "://" in endpoint else f"http://{endpoint}"
    return f"{base.rstrip('/')}/{path.removeprefix('/')}"


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > LARGEST_ANSWER:
            response.close()
            raise ValueError(f"the answer is larger than {LARGEST_ANSWER} bytes")
    return bytes(body)
