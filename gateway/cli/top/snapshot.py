"""What one look at the running server shows, and the changes that the screen makes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.cli.events.formatting import event_lines
from gateway.cli.owner import AnswerError, OwnerClient, answering_server
from gateway.cli.uploads import path_of, upload_lines
from gateway.errors import ConfigError, EventEngineUnavailable
from gateway.events.protocols import DeliveryRow, Selection, Verb, run_all
from gateway.settings import Settings

MAX_DEAD: Final = 100
"""Dead deliveries that are listed; `gateway events list --state dead` has all."""

MAX_LISTED: Final = 50

FACTS_INTERVAL: Final = 2.0
"""Seconds between two reads of the facts: the count of 100,000 deliveries takes some tenths of one."""

MAX_LINES: Final = 1000
"""Lines of details that are shown."""

Json = dict[str, Any]


class ServerUnreachable(Exception):
    """The server does not answer now."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look: what `/-/status` and `/-/live` say, the oldest dead deliveries, and the Unix time.

    `listed` are uploads of before the start of the server too, newest first.
    """

    facts: Json
    live: Json
    dead: Sequence[DeliveryRow]
    listed: Sequence[Json]
    moment: float


@dataclass(slots=True)
class ServerReader:
    """Reads the server of a directory over its owner's socket, with a connection for each look."""

    settings: Settings
    _facts: Json = field(default_factory=dict)
    _dead: Sequence[DeliveryRow] = ()
    _listed: Sequence[Json] = ()
    _read: float = float("-inf")

    async def read(self) -> Snapshot:
        """Return the next look. Raises `ServerUnreachable`."""
        async with self._server() as server:
            live: Json = await server.request("GET", "/-/live", {})
            if time.monotonic() - self._read >= FACTS_INTERVAL:
                self._facts = await server.request("GET", "/-/status", {})
                page = await server.ledger().page(Selection(state="dead"), None, MAX_DEAD)
                uploads = await server.request("GET", "/-/uploads", {"limit": str(MAX_LISTED)})
                self._dead, self._listed = page.rows, uploads["uploads"]
                self._read = time.monotonic()
            return Snapshot(self._facts, live, self._dead, self._listed, time.time())

    async def describe_upload(self, upload_id: str) -> list[str]:
        """Return the lines of an upload and its handlers' runs. Raises `ServerUnreachable`."""
        async with self._server() as server:
            shown: Json = await server.request("GET", path_of(upload_id), {})
            return [*upload_lines(shown)][:MAX_LINES]

    async def describe_event(self, event_id: str) -> list[str]:
        """Return the lines of an event, its runs and their errors. Raises `ServerUnreachable`."""
        async with self._server() as server:
            history = await server.ledger().history(event_id)
            if history is None:
                return [f"event {event_id} is not there any more"]
            return [*event_lines(history)][:MAX_LINES]

    async def change(self, verb: Verb, selection: Selection) -> int:
        """Retry or drop deliveries; return how many. Raises `ServerUnreachable`."""
        async with self._server() as server:
            try:
                return await run_all(server.ledger(), verb, selection)
            finally:
                self._read = float("-inf")

    @asynccontextmanager
    async def _server(self) -> AsyncIterator[OwnerClient]:
        try:
            async with answering_server(self.settings) as server:
                yield server
        except TimeoutError as error:
            raise ServerUnreachable("no answer in time") from error
        except (AnswerError, ConfigError, EventEngineUnavailable, OSError, ValueError) as error:
            raise ServerUnreachable(str(error)) from error
