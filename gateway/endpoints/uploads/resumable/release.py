"""Lets other processes of this gateway take a partial upload over, through the owner's socket."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.auth.request import IncomingRequest
from gateway.endpoints.uploads.resumable.handover import Released, RunningRequests
from gateway.errors import Refusal
from gateway.http.responses import ApiHandler, Response, json_response


@dataclass(slots=True, frozen=True)
class ReleaseEndpoint:
    """Serves `/-/uploads/<id>/give-up`; `running` is None where there are no partial uploads."""

    running: RunningRequests | None

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"upload.give_up": self._release}

    async def _release(self, incoming: IncomingRequest) -> Response:
        """End the request of this process that has the upload open, as `RunningRequests.release`."""
        released: Released = "none"
        if self.running is not None:
            offset = _offset(incoming.params.get("offset"))
            released = await self.running.release(incoming.variables["upload_id"], offset)
        return json_response({"released": released})


def _offset(texts: list[str] | None) -> int | None:
    if texts is None:
        return None
    if len(texts) != 1 or not texts[0].isascii() or not texts[0].isdigit() or len(texts[0]) > 18:
        raise Refusal("bad_request", "offset must be a number of bytes")
    return int(texts[0])
