"""JSON Web Tokens: the issuer's keys: fetched, remembered, asked for again where that may help.

The rule: however many requests come, the issuer is asked by one of them at a time and never oftener
than the pauses here allow; what it sends is bounded in size and time. While it is away its last
keys serve for a while. One object per process, on the server's loop. Sources: OpenID Connect
Discovery 1.0 section 4, RFC 7517, RFC 9111 section 5.2.2.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import Callable
from typing import Final, Self
from urllib.parse import urlsplit

import aiohttp

from gateway.auth.jwt.keys import BadKeysError, KeySet, parse_jwks
from gateway.errors import GatewayError, Refusal
from gateway.settings import Settings
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.jwt")

FETCH_TIMEOUT: Final = 5.0
"""The longest that one question to the issuer may take."""

MAX_RESPONSE_BYTES: Final = 1 << 18
DEFAULT_FRESH_TTL: Final = 300.0
"""How long keys serve without a question, where the issuer does not say."""

MIN_FRESH_TTL: Final = 60.0
MAX_FRESH_TTL: Final = 3600.0
"""Bounds of what the issuer may say with `Cache-Control`."""

RENEW_FRACTION: Final = 0.8
"""The part of that time after which newer keys are asked for while these still serve."""

STALE_TTL: Final = 3600.0
"""How long keys that should have been renewed still serve while the issuer is away."""

COOL_DOWN_INTERVAL: Final = 10.0
"""Shortest time between two questions that unknown key names cause."""

RETRY_INTERVAL: Final = 2.0
"""Shortest time between two questions while there are no keys at all, or only old ones."""

_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age\s*=\s*\"?(\d{1,9})", re.IGNORECASE)
_NO_STORE: Final = re.compile(r"(?:^|[\s,])no-(?:store|cache)(?:$|[\s,=])", re.IGNORECASE)


class IssuerError(GatewayError):
    """The issuer cannot be reached or says nonsense; the message is for the operator."""


class Issuer:
    """Where the keys come from. A context manager: its connections end with it."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = settings.jwt_issuer or ""
        self._url = settings.jwt_jwks_url
        self._allowed = settings.signatures
        self._clock = clock
        self._keys: KeySet | None = None
        self._document = b""
        self._renew_at = self._fresh_until = self._stale_until = self._asked = float("-inf")
        self._failing = False
        self._question: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        patience = aiohttp.ClientTimeout(total=FETCH_TIMEOUT)
        self._session = aiohttp.ClientSession(
            timeout=patience,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._question is not None:
            self._question.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._question
        await self._session.close()

    @property
    def ready(self) -> bool:
        """Tell whether tokens can be judged, if only by keys that should have been renewed."""
        return self._usable()

    @property
    def current(self) -> KeySet | None:
        """The keys in force, or None where the issuer has to be asked first."""
        return self._keys if self._clock() < self._fresh_until else None

    async def keys(self) -> KeySet:
        """Return keys in force. Raises Refusal `issuer_unavailable` where there are none."""
        now = self._clock()
        if self._keys is not None and now < self._fresh_until:
            if now >= max(self._renew_at, self._asked + COOL_DOWN_INTERVAL):
                self.ask()  # nobody waits: these serve until then
            return self._keys
        if self._question is not None or now >= self._asked + RETRY_INTERVAL:
            question = self.ask()
            if not (self._failing and self._usable()):  # else nobody waits for one who is away
                await asyncio.shield(question)
        if self._keys is None or not self._usable():
            raise Refusal(
                "issuer_unavailable", "the keys of the tokens' issuer cannot be had now; try again"
            )
        return self._keys

    async def renewed(self, seen: KeySet) -> KeySet:
        """Return newer keys than those `seen`, which miss a name, or the same ones."""
        may_ask = self._question is not None or self._clock() >= self._asked + COOL_DOWN_INTERVAL
        if self._keys is seen and may_ask:
            await asyncio.shield(self.ask())
        return self._keys or seen

    def ask(self) -> asyncio.Task[None]:
        """Ask for the keys, or join who is asking already. The task never fails."""
        if self._question is None:
            self._asked = self._clock()
            self._question = asyncio.create_task(self._renew())
            self._question.add_done_callback(self._answered)
        return self._question

    def _answered(self, _: asyncio.Task[None]) -> None:
        self._question = None

    def _usable(self) -> bool:
        return self._clock() < self._stale_until

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
            for reason in keys.passed_over:
                log.info("a key of the issuer is ignored: %s", reason, extra=event("issuer_key.ignored"))
        now = self._clock()
        self._renew_at = now + seconds * RENEW_FRACTION
        self._fresh_until, self._stale_until = now + seconds, now + seconds + STALE_TTL

    async def fetch(self) -> tuple[bytes, KeySet, float]:
        """Ask once: the document, its keys, and for how many seconds they are fresh.

        Raises IssuerFault.
        """
        url = self._url or await self._discover()
        document, cache = await self._get(url)
        try:
            return document, parse_jwks(document, self._allowed), fresh_seconds(cache)
        except BadKeysError as fault:
            raise IssuerError(f"{url}: {fault}") from None

    async def _discover(self) -> str:
        """Return where the issuer says that its keys are (OpenID Connect Discovery 1.0 section 4)."""
        url = self._name.rstrip("/") + "/.well-known/openid-configuration"
        document, _ = await self._get(url)
        try:
            said = json.loads(document)
            name, place = said["issuer"], said["jwks_uri"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise IssuerError(f"{url} tells no `issuer` and `jwks_uri`: say --jwt-jwks-url") from None
        if name != self._name:  # section 4.3: else anybody's keys could be passed off as its own
            raise IssuerError(f"{url} speaks of the issuer {name!r:.200}: say that in --jwt-issuer")
        schemes = ("https:", urlsplit(self._name).scheme + ":")
        if not isinstance(place, str) or not place.startswith(schemes):
            raise IssuerError(f"{url}: its `jwks_uri` is no https address")
        return place

    async def _get(self, url: str) -> tuple[bytes, str]:
        """Return a document and its `Cache-Control`. Redirects are not followed. Raises IssuerFault."""
        try:
            async with self._session.get(url, allow_redirects=False) as answer:
                if answer.status != 200:
                    raise IssuerError(f"{url} answers {answer.status}")
                return await _bounded(answer, url), answer.headers.get("Cache-Control", "")
        except TimeoutError:
            raise IssuerError(f"{url} takes longer than {FETCH_TIMEOUT:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as fault:
            why = getattr(fault, "strerror", None) or str(fault) or type(fault).__name__
            raise IssuerError(f"{url}: {why}") from None


async def _bounded(answer: aiohttp.ClientResponse, url: str) -> bytes:
    document = bytearray()
    async for piece in answer.content.iter_any():
        document += piece
        if len(document) > MAX_RESPONSE_BYTES:
            raise IssuerError(f"{url} sends more than {MAX_RESPONSE_BYTES >> 10} KiB")
    return bytes(document)


def fresh_seconds(cache_control: str) -> float:
    """Return how long keys are fresh by this `Cache-Control`, within our bounds."""
    if _NO_STORE.search(cache_control):
        return MIN_FRESH_TTL
    said = _MAX_AGE.search(cache_control)
    if said is None:
        return DEFAULT_FRESH_TTL
    return min(max(float(said[1]), MIN_FRESH_TTL), MAX_FRESH_TTL)
