"""The ledger of another process, over HTTP.

The server is `gateway.endpoints.admin.events`, behind the owner's Unix socket. Every request is bounded
and may be repeated. The caller closes the session.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from gateway.domain.api_routes import EVENTS_PREFIX, literal_names
from gateway.errors import ConfigError, EventEngineUnavailable
from gateway.events import json_codec
from gateway.events.protocols import (
    ChunkResult,
    DeliveryPage,
    Depth,
    EventHistory,
    Selection,
    Verb,
)

REQUEST_TIMEOUT: Final = 30.0
"""Seconds of one request. Each asks for a bounded piece of work."""

OWNER_URL: Final = "http://owner"
"""The base URL of a server behind its owner's socket."""


def socket_session(path: Path | str) -> aiohttp.ClientSession:
    """Return a session with the server behind an owner's Unix socket. Call on a loop."""
    connector = aiohttp.UnixConnector(path=str(path))
    return aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT)
    )


class RemoteLedger:
    """A ledger over HTTP. Implements `Ledger`.

    `base` is the URL without a path. `alone`: only that process, without the others of its server.
    Every method raises `EventEngineUnavailable` without a valid answer, `ConfigError` where access is
    denied, `ValueError` for invalid arguments.
    """

    def __init__(
        self, session: aiohttp.ClientSession, base: str = OWNER_URL, *, alone: bool = False
    ) -> None:
        self._session = session
        self._base = base.rstrip("/")
        self._scope = {"scope": "slot"} if alone else {}

    async def depth(self) -> list[Depth]:
        """Count all that is not done, by handler and state."""
        return json_codec.decode_depth(await self._get("depth"))

    async def page(self, selection: Selection, after: str | None, limit: int) -> DeliveryPage:
        """Return up to `limit` rows behind the cursor `after`."""
        fields = json_codec.encode_selection(selection)
        events = [("event", event) for event in fields.pop("events", ())]
        fields |= {"limit": limit} | ({} if after is None else {"after": after})
        query = [*events, *((name, str(value)) for name, value in fields.items())]
        return json_codec.decode_page(await self._get("", query))

    async def history(self, event_id: str) -> EventHistory | None:
        """Return an event with its deliveries, or None."""
        if not event_id or event_id in literal_names(EVENTS_PREFIX):
            return None
        data = await self._get(event_id, none_at_404=True)
        return None if data is None else json_codec.decode_history(data)

    async def paused(self) -> frozenset[str]:
        """Return the handlers that are paused."""
        return frozenset((await self._get("paused"))["paused"])

    async def run_chunk(self, verb: Verb, selection: Selection, after: str | None) -> ChunkResult:
        """Do one bounded chunk of `verb`."""
        return json_codec.decode_chunk(
            await self._post(verb, {**json_codec.encode_selection(selection), "after": after})
        )

    async def pause(self, handler: str) -> None:
        """Stop claiming for this handler."""
        await self._post("pause", {"handler": handler})

    async def resume(self, handler: str) -> None:
        """Claim again."""
        await self._post("resume", {"handler": handler})

    async def _get(
        self, name: str, query: list[tuple[str, str]] | None = None, *, none_at_404: bool = False
    ) -> Any:
        scoped = [*(query or ()), *self._scope.items()]
        return await self._request("GET", name, scoped, none_at_404=none_at_404)

    async def _post(self, name: str, body: Mapping[str, Any]) -> Any:
        return await self._request("POST", name, list(self._scope.items()), body=body)

    async def _request(
        self,
        method: str,
        name: str,
        query: list[tuple[str, str]],
        *,
        body: Mapping[str, Any] | None = None,
        none_at_404: bool = False,
    ) -> Any:
        try:
            async with self._session.request(
                method, self._url(name).update_query(query), json=body, allow_redirects=False
            ) as response:
                if response.status == 404 and none_at_404:
                    return None
                return await _decode(response)
        except (aiohttp.ClientError, TimeoutError, OSError, LookupError, TypeError) as error:
            reason = str(error) or type(error).__name__
            raise EventEngineUnavailable(
                f"{self._base} does not answer as it should ({reason})"
            ) from error

    def _url(self, name: str) -> URL:
        """Return the quoted URL: `../uploads/x` is an unknown id, not another page."""
        quoted = quote(name, safe="").replace(".", "%2E")
        return URL(f"{self._base}/-/events" + (f"/{quoted}" if name else ""), encoded=True)


async def _decode(response: aiohttp.ClientResponse) -> Any:
    if response.status == 200:
        return await response.json()
    error = await response.json(content_type=None)
    reason = f"{response.status} {error['error']}: {error['message']}"
    if response.status == 400:
        raise ValueError(error["message"])
    if response.status in {401, 403}:
        raise ConfigError(reason)
    raise EventEngineUnavailable(reason)
