"""The ledger of another process, over HTTP.

The rule: every request is bounded and may be asked again; whoever made the session closes it. The
other side is `gateway.endpoints.admin.events`, behind an owner's Unix socket or a URL with a token.
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
from gateway.events import json_codec as wire
from gateway.events.protocols import (
    ChunkResult,
    DeliveryPage,
    Depth,
    EventHistory,
    Selection,
    Verb,
)

SECONDS: Final = 30.0
"""How long one request may take. Each asks for a bounded piece of work."""

OWNER: Final = "http://owner"
"""What a server is called behind its owner's socket."""


def socket_session(path: Path | str) -> aiohttp.ClientSession:
    """Return a session with the server behind an owner's Unix socket. Call on a loop."""
    connector = aiohttp.UnixConnector(path=str(path))
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=SECONDS))


class RemoteLedger:
    """A ledger over HTTP. Implements `Ledger`.

    `base` is the URL without a path. `alone`: ask that process for what it has itself, without
    its siblings. Every method raises `EventEngineUnavailable` where no fitting answer comes,
    `ConfigError` where we may not ask, `ValueError` for what makes no sense.
    """

    def __init__(
        self, session: aiohttp.ClientSession, base: str = OWNER, *, alone: bool = False
    ) -> None:
        self._session = session
        self._base = base.rstrip("/")
        self._scope = {"scope": "slot"} if alone else {}

    async def depth(self) -> list[Depth]:
        """Count all that is not done, by handler and state."""
        return wire.depth(await self._get("depth"))

    async def page(self, selection: Selection, after: str | None, limit: int) -> DeliveryPage:
        """Return up to `limit` rows behind the cursor `after`."""
        said = wire.selection_said(selection)
        events = [("event", event) for event in said.pop("events", ())]
        given = {**said, "limit": limit} | ({} if after is None else {"after": after})
        query = [*events, *((name, str(value)) for name, value in given.items())]
        return wire.page(await self._get("", query))

    async def history(self, event_id: str) -> EventHistory | None:
        """Return an event with its stories, or None."""
        if not event_id or event_id in literal_names(EVENTS_PREFIX):
            return None
        said = await self._get(event_id, none_at_404=True)
        return None if said is None else wire.history(said)

    async def paused(self) -> frozenset[str]:
        """Return the handlers that are paused."""
        return frozenset((await self._get("paused"))["paused"])

    async def run_chunk(self, verb: Verb, selection: Selection, after: str | None) -> ChunkResult:
        """Do one bounded chunk of `verb`."""
        return wire.chunk_result(
            await self._post(verb, {**wire.selection_said(selection), "after": after})
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
        asked = [*(query or ()), *self._scope.items()]
        return await self._ask("GET", name, asked, none_at_404=none_at_404)

    async def _post(self, name: str, body: Mapping[str, Any]) -> Any:
        return await self._ask("POST", name, list(self._scope.items()), body=body)

    async def _ask(
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
                method, self._page(name).update_query(query), json=body, allow_redirects=False
            ) as answer:
                if answer.status == 404 and none_at_404:
                    return None
                return await _read(answer)
        except (aiohttp.ClientError, TimeoutError, OSError, LookupError, TypeError) as fault:
            told = str(fault) or type(fault).__name__
            raise EventEngineUnavailable(
                f"{self._base} does not answer as it should ({told})"
            ) from fault

    def _page(self, name: str) -> URL:
        """Quoted, and kept as it is: `../uploads/x` is an id that nobody knows, not another page."""
        quoted = quote(name, safe="").replace(".", "%2E")
        return URL(f"{self._base}/-/events" + (f"/{quoted}" if name else ""), encoded=True)


async def _read(answer: aiohttp.ClientResponse) -> Any:
    if answer.status == 200:
        return await answer.json()
    said = await answer.json(content_type=None)
    told = f"{answer.status} {said['error']}: {said['message']}"
    if answer.status == 400:
        raise ValueError(said["message"])
    if answer.status in {401, 403}:
        raise ConfigError(told)
    raise EventEngineUnavailable(told)
