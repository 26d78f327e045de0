"""Runs the plugin handler of a delivery: the event with its file, the handler, the outcome."""

from __future__ import annotations

from gateway.domain.model import Delivery
from gateway.errors import HandlerFailed, HandlerGone, Postponed
from gateway.events.protocols import Outcome
from gateway.files.service import FilesService
from gateway.plugins.hooks import Hooks


class PluginDispatcher:
    """Dispatches deliveries to the handlers of the loaded plugins: a `DeliveryDispatcher`."""

    def __init__(self, hooks: Hooks, files: FilesService) -> None:
        self._hooks = hooks
        self._files = files

    async def run(self, delivery: Delivery) -> Outcome:
        """Run the handler on its whole event.

        A run that could not connect to the owner of the file is postponed: the handler did not fail.
        """
        event = await self._files.event_for(delivery)
        try:
            await self._hooks.run_delivery(delivery, event)
        except HandlerGone as error:
            return Outcome("gone", str(error))
        except Postponed as error:
            return Outcome("postponed", str(error))
        except HandlerFailed as error:
            if (unavailable := self._files.unavailable_owner(delivery, error)) is not None:
                return Outcome("postponed", str(unavailable))
            return Outcome("failed", "\n".join(filter(None, (str(error), error.traceback))))
        return Outcome("succeeded")
