"""`GET /-/quotas`: what is used of quotas, those with the most first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.auth.request import IncomingRequest
from gateway.commit.quotas.quotas import Quotas
from gateway.domain.units import count_up_to
from gateway.errors import Refusal
from gateway.http.responses import ApiHandler, Response, json_response

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100
"""Keys that one response tells of: there may be millions."""


@dataclass(frozen=True, slots=True)
class QuotasEndpoint:
    """Tells what is counted, which is the same in all processes."""

    quotas: Quotas

    def handlers(self) -> dict[str, ApiHandler]:
        """Return the handlers of `API_ROUTES`."""
        return {"quotas": self.get}

    async def get(self, incoming: IncomingRequest) -> Response:
        """Serve the request. Raises `Refusal`."""
        limit = count_up_to(incoming.params.get("limit", [str(DEFAULT_LIMIT)])[-1], MAX_LIMIT)
        if limit is None:
            raise Refusal("bad_request", f"limit must be a number from 1 to {MAX_LIMIT}")
        return json_response(await self.quotas.report(limit))
