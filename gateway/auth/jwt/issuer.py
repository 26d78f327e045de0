"""Fetches and caches the keys of the issuer of JSON Web Tokens.

One fetch runs at a time and never more often than the intervals here allow, however many requests
come; what the issuer sends is bounded in size and time. While it is unreachable its last keys serve
for a while. Sources: OpenID Connect Discovery 1.0 section 4, RFC 7517, RFC 9111 section 5.2.2.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Self
from urllib.parse import urlsplit

import aiohttp

from gateway.auth.jwt.keys import BadKeysError, KeySet, parse_jwks
from gateway.errors import GatewayError, Refusal
from gateway.settings import Settings
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.jwt")

FETCH_TIMEOUT: Final = 5.0
"""Seconds that one request to the issuer may take."""

MAX_RESPONSE_BYTES: Final = 1 << 18
DEFAULT_FRESH_TTL: Final = 300.0
"""Seconds for which keys are fresh, where the issuer does not tell."""

MIN_FRESH_TTL: Final = 60.0
MAX_FRESH_TTL: Final = 3600.0
"""Bounds, in seconds, of what the issuer may set with `Cache-Control`."""

RENEW_FRACTION: Final = 0.8
"""The fraction of that time after which new keys are fetched while these still serve."""

STALE_TTL: Final = 3600.0
"""Seconds for which expired keys still serve while the issuer is unreachable."""

COOL_DOWN_INTERVAL: Final = 10.0
"""Shortest time in seconds between two fetches that unknown key names cause."""

RETRY_INTERVAL: Final = 2.0
"""Shortest time in seconds between two fetches while there are no fresh keys."""

_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age\s*=\s*\"?(\d{1,9})", re.IGNORECASE | re.ASCII)
_NO_STORE: Final = re.compile(r"(?:^|[\s,])no-(?:store|cache)(?:$|[\s,=])", re.IGNORECASE)


class IssuerError(GatewayError):
    """The issuer cannot be reached or its response is invalid; the message is for the operator."""


class Issuer:
    """The source of the keys, on the server's loop. A context manager: it closes its connections."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = settings.jwt_issuer or ""
        self._url = settings.jwt_jwks_url
        self._allowed = settings.signatures
        self._clock = clock
        self._keys: KeySet | None = None
        self._document = b""
        self._renew_at = self._fresh_until = self._stale_until = self._fetched_at = float("-inf")
        self._failing = False
        self._fetching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT)
        self._session = aiohttp.ClientSession(
            timeout=timeout,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._fetching
        await self._session.close()

    @property
    def ready(self) -> bool:
        """Whether tokens can be verified, if only with expired keys."""
        return self._clock() < self._stale_until

    @property
    def current(self) -> KeySet | None:
        """The fresh keys, None where they have to be fetched first."""
        return self._keys if self._clock() < self._fresh_until else None

    async def keys(self) -> KeySet:
        """Return usable keys. Raises Refusal `issuer_unavailable` where there are none."""
        now = self._clock()
        if self._keys is not None and now < self._fresh_until:
            if now >= max(self._renew_at, self._fetched_at + COOL_DOWN_INTERVAL):
                self.fetch_in_background()  # no request waits: these keys serve meanwhile
            return self._keys
        if self._fetching is not None or now >= self._fetched_at + RETRY_INTERVAL:
            fetching = self.fetch_in_background()
            if not (self._failing and self.ready):  # else no request waits for a failing issuer
                await asyncio.shield(fetching)
        if self._keys is None or not self.ready:
            raise Refusal(
                "issuer_unavailable", "the keys of the token issuer are unavailable now; try again"
            )
        return self._keys

    async def renewed(self, seen: KeySet) -> KeySet:
        """Return newer keys than `seen`, which lack a name, or the same ones."""
        may_fetch = self._fetching is not None or self._clock() >= self._fetched_at + COOL_DOWN_INTERVAL
        if self._keys is seen and may_fetch:
            await asyncio.shield(self.fetch_in_background())
        return self._keys or seen

    def fetch_in_background(self) -> asyncio.Task[None]:
        """Return the task that fetches the keys, started if none runs. It never fails."""
        if self._fetching is None:
            self._fetched_at = self._clock()
            self._fetching = asyncio.create_task(self._renew())
            self._fetching.add_done_callback(self._fetched)
        return self._fetching

    def _fetched(self, _: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _renew(self) -> None:
        try:
            document, keys, seconds = await self.fetch()
        except IssuerError as error:
            if not self._failing:
                log.warning(
                    "the keys of JSON Web Tokens are unavailable: %s",
                    error,
                    extra=event("issuer.unavailable"),
                )
            self._failing = True
            return
        if self._failing or self._keys is None:
            log.info(
                "fetched %d keys of JSON Web Tokens from %s",
                len(keys.keys),
                self._name,
                extra=event("issuer.fetched", keys=len(keys.keys)),
            )
        self._failing = False
        if document != self._document or self._keys is None:
            self._keys, self._document = keys, document
            for reason in keys.skipped:
                log.info("a key of the issuer is ignored: %s", reason, extra=event("issuer_key.ignored"))
        now = self._clock()
        self._renew_at = now + seconds * RENEW_FRACTION
        self._fresh_until, self._stale_until = now + seconds, now + seconds + STALE_TTL

    async def fetch(self) -> tuple[bytes, KeySet, float]:
        """Fetch once. Return the document, its keys, and for how many seconds they are fresh.

        Raises `IssuerError`.
        """
        url = self._url or self.endpoint(await self.configuration(), "jwks_uri")
        document, cache = await self._get(url)
        try:
            return document, parse_jwks(document, self._allowed), fresh_seconds(cache)
        except BadKeysError as error:
            raise IssuerError(f"{url}: {error}") from None

    async def configuration(self) -> Mapping[str, Any]:
        """Fetch what the issuer tells of itself (OpenID Connect Discovery 1.0 section 4).

        Raises `IssuerError`.
        """
        url = self._name.rstrip("/") + "/.well-known/openid-configuration"
        document, _ = await self._get(url)
        try:
            configuration: dict[str, Any] = json.loads(document)
            name = configuration["issuer"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise IssuerError(f"{url} is no discovery document: set --jwt-jwks-url") from None
        if name != self._name:  # section 4.3: else the keys of another issuer could pass for its own
            raise IssuerError(f"{url} names the issuer {name!r:.200}: the setting must equal that")
        return configuration

    def endpoint(self, configuration: Mapping[str, Any], name: str) -> str:
        """Return a URL that the issuer tells. Raises `IssuerError`."""
        url = configuration.get(name)
        schemes = ("https:", urlsplit(self._name).scheme + ":")
        if not isinstance(url, str) or not url.startswith(schemes):
            raise IssuerError(f"{self._name}: its `{name}` is not an https URL")
        return url

    async def _get(self, url: str) -> tuple[bytes, str]:
        """Return a document and its `Cache-Control`. Follows no redirect. Raises `IssuerError`."""
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status != 200:
                    raise IssuerError(f"{url} answers {response.status}")
                return await read_bounded(response, url), response.headers.get("Cache-Control", "")
        except CALL_ERRORS as error:
            raise call_error(url, error) from None


CALL_ERRORS: Final = (TimeoutError, aiohttp.ClientError, OSError, ValueError)
"""What a request to the issuer may raise."""


def call_error(url: str, error: BaseException) -> IssuerError:
    """Return what went wrong with a request to the issuer, for the operator."""
    if isinstance(error, TimeoutError):
        return IssuerError(f"{url} takes longer than {FETCH_TIMEOUT:g} s")
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return IssuerError(f"{url}: {reason}")


async def read_bounded(response: aiohttp.ClientResponse, url: str) -> bytes:
    """Return the body of a response of the issuer. Raises `IssuerError`."""
    document = bytearray()
    async for chunk in response.content.iter_any():
        document += chunk
        if len(document) > MAX_RESPONSE_BYTES:
            raise IssuerError(f"{url} sends more than {MAX_RESPONSE_BYTES >> 10} KiB")
    return bytes(document)


def fresh_seconds(cache_control: str) -> float:
    """Return for how many seconds keys are fresh by this `Cache-Control`, within the bounds."""
    if _NO_STORE.search(cache_control):
        return MIN_FRESH_TTL
    max_age = _MAX_AGE.search(cache_control)
    if max_age is None:
        return DEFAULT_FRESH_TTL
    return min(max(float(max_age[1]), MIN_FRESH_TTL), MAX_FRESH_TTL)
