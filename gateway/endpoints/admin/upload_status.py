"""The state of one upload, whichever process has it: in flight, in its journal, or a partial upload."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.auth.request import IncomingRequest
from gateway.commit.partials import PartialStore
from gateway.endpoints.admin.partial_status import progress_of, waiting_upload
from gateway.endpoints.admin.processes import ProcessClients, this_process_only
from gateway.endpoints.admin.status import ENGINE_TIMEOUT
from gateway.endpoints.admin.upload_pages import KEPT_HEADERS, HandlerFacts, journal_page, with_events
from gateway.endpoints.admin.upload_sources import journal_errors
from gateway.endpoints.admin.viewers import viewer_of
from gateway.endpoints.inflight import Inflight
from gateway.errors import EventEngineUnavailable, Refusal
from gateway.events import protocols
from gateway.events.ledger import JournalLedger
from gateway.plugins.hooks import Hooks

_FOR_LINKS: Final = frozenset({
    "upload_id", "state", "bytes", "content_length", "mime", "created", "committed", "error", "result",
    "offset", "length", "expires",
})  # fmt: skip

_ENDED_IN_MEMORY: Final = frozenset({"failed", "rejected"})


@dataclass(slots=True)
class UploadStatusEndpoint:
    """Describes one upload: active, failed lately, held, rejected, or stored, with its handlers' runs.

    `engines` are asked for the deliveries that the journal has relayed to them.
    """

    ledger: JournalLedger
    inflight: Inflight
    hooks: Hooks
    processes: ProcessClients
    engines: Mapping[str, protocols.Ledger] = field(default_factory=dict)
    partials: PartialStore | None = None

    async def describe(self, incoming: IncomingRequest) -> dict[str, Any]:
        """Describe the upload of a request. Raises `Refusal`: `not_found`, `process_unavailable`."""
        return await self.describe_by_id(incoming, incoming.variables["upload_id"])

    async def describe_by_id(self, incoming: IncomingRequest, upload_id: str) -> dict[str, Any]:
        """Describe an upload to the sender of a request. Raises as `describe`."""
        if this_process_only(incoming):
            status = await self._own_status(upload_id)
        else:
            status = await self._status(upload_id)
        if status is None or _belongs_to_others(incoming, status):
            raise Refusal("not_found", "no upload of this id is known (any more)")
        if not incoming.owner:
            status.pop(KEPT_HEADERS, None)  # what one client sent is not for all that may see the status
        return status

    async def _status(self, upload_id: str) -> dict[str, Any] | None:
        """Return the status of an upload of any process, a partial one too."""
        partial = None if self.partials is None else await self.partials.status(upload_id)
        if partial is None:
            return await self.find(upload_id)
        try:
            status = await self.find(upload_id)
        except Refusal:  # a process does not respond: the store knows as much as it can
            status = None
        if status is None or status["state"] in _ENDED_IN_MEMORY:  # an earlier request
            status = waiting_upload(partial)
        return {**status, **progress_of(partial)}

    async def find(self, upload_id: str) -> dict[str, Any] | None:
        """Return what is told of an upload of any process, None where there is none.

        Raises `Refusal("process_unavailable")`.
        """
        status = await self._own_status(upload_id)
        return status or await self.processes.upload_status(upload_id)

    async def _own_status(self, upload_id: str) -> dict[str, Any] | None:
        status = self.inflight.describe(upload_id)
        if status is None or status["state"] in _ENDED_IN_MEMORY:
            # The row of an active upload may yet be undone; of an ended one the journal knows more.
            with journal_errors():
                row = await asyncio.wrap_future(self.ledger.upload_history(upload_id))
            if row is not None:
                return journal_page(await self._with_engines(row), self._facts)
        if status is not None:
            status = {**status, "handlers": with_events(status["handlers"], self._facts)}
        return status

    @property
    def _facts(self) -> HandlerFacts:
        return HandlerFacts(self.hooks.delivery_progress, self.hooks.deciding_event)

    async def _with_engines(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return an upload with what the engines know of relayed deliveries, as far as they answer."""
        relayed = {d["event_id"] for d in row["handlers"] if d["state"] == "relayed"}
        in_engines: dict[tuple[str, str], dict[str, Any]] = {}
        try:
            async with asyncio.timeout(ENGINE_TIMEOUT):
                queries = [engine.history(e) for engine in self.engines.values() for e in relayed]
                for history in await asyncio.gather(*queries):
                    for delivery in history.deliveries if history is not None else ():
                        in_engines[delivery.row.event_id, delivery.row.handler] = delivery.fields()
        except (EventEngineUnavailable, TimeoutError):
            pass
        handlers = [in_engines.get((d["event_id"], d["handler"]), d) for d in row["handlers"]]
        return {**row, "handlers": handlers}


def shown_to(incoming: IncomingRequest, status: dict[str, Any]) -> dict[str, Any]:
    """Return what a caller is told of its upload: through a link not where it is, and who handles it."""
    if incoming.caller is None or incoming.caller.link is None:
        return status
    return {name: value for name, value in status.items() if name in _FOR_LINKS}


def _belongs_to_others(incoming: IncomingRequest, status: Mapping[str, Any]) -> bool:
    """Tell whether an upload is none of the caller's, who sees no others."""
    viewer = viewer_of(incoming)
    return viewer is not None and bool(status["principal"] != viewer.principal)
