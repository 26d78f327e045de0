"""The response to a request that is refused before an endpoint sees it."""

from __future__ import annotations

import logging

from aiohttp import web

from gateway.domain.model import random_bytes
from gateway.errors import Refusal
from gateway.http.responses import Response, refusal_response
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.http")


def refuse_request(request: web.BaseRequest, refusal: Refusal) -> Response:
    """Log that a request is refused before an endpoint sees it, and return the response."""
    fields = {"status": refusal.status, "reason": refusal.code, "remote": request.remote}
    words = "malformed request" if refusal.code == "bad_request" else "request refused"
    request_id = random_bytes(8).hex()
    log.info(words, extra=event("request.refused", request_id=request_id, **fields))
    response = refusal_response(refusal)
    response.set_gateway_headers(request_id)
    return response
