"""`POST /-/reload`: plugins, tokens and certificates are loaded anew, in every process.

The process that is called loads first: where it finds faults, no other process tries.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from typing import Final

from gateway.auth.request import IncomingRequest
from gateway.endpoints.admin.processes import ProcessClients, this_process_only
from gateway.endpoints.json_changes import read_change
from gateway.errors import Refusal
from gateway.http.responses import ApiHandler, Response, json_response

RELOAD_TIMEOUT: Final = 150.0
"""Seconds that another process may take; its plugins alone may take 120 (`plugins.loader`)."""

_PATH: Final = "/-/reload?scope=slot"


@dataclass(frozen=True, slots=True)
class ReloadOutcome:
    """What a reload has led to: without `faults` it is in force, with them nothing has changed.

    `plugin_set` counts the sets of this process; `plugins` has a line for each plugin in force.
    """

    plugin_set: int
    plugins: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    processes: int = 1


Reload = Callable[[], Awaitable[ReloadOutcome]]
"""Reloads this process."""


class ReloadEndpoint:
    """Serves `/-/reload`, once `serve_with` was called.

    `latest` is the newest outcome in this process, and the Unix time of it.
    """

    def __init__(self, processes: ProcessClients) -> None:
        self._processes = processes
        self._reload: Reload | None = None
        self.latest: tuple[float, ReloadOutcome] | None = None

    def serve_with(self, reload: Reload) -> None:
        """Reload this process with `reload` from now on."""
        self._reload = reload

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"reload": self._post}

    async def reload_all(self) -> ReloadOutcome:
        """Reload this process, then all others. Raises `Refusal` while the process starts.

        Another process that fails, or does not respond, is a fault; the others have what is new.
        """
        outcome = await self._reload_own()
        if outcome.faults:
            return outcome
        answers = await self._processes.post_all(_PATH, {}, timeout=RELOAD_TIMEOUT)
        faults: list[str] = []
        for slot, answer in answers.items():
            if answer is None:
                faults.append(f"process {slot} does not respond: it has what it had, until it restarts")
            else:
                faults += [f"process {slot}: {fault}" for fault in answer["faults"]]
        return replace(outcome, faults=tuple(faults), processes=1 + len(answers))

    async def _reload_own(self) -> ReloadOutcome:
        if self._reload is None:
            raise Refusal("process_unavailable", "the process is starting")
        return await self._reload()

    async def _post(self, incoming: IncomingRequest) -> Response:
        try:
            body = await read_change(incoming.request)
        except ValueError as error:
            raise Refusal("bad_request", str(error)) from error
        if body:
            raise Refusal("bad_request", "a reload takes an empty JSON object")
        reload = self._reload_own if this_process_only(incoming) else self.reload_all
        return json_response(asdict(await reload()))
