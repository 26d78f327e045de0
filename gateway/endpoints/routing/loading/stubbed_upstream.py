"""The upstream of the `tests:` of a route: it gives one response, and remembers what it got."""

from __future__ import annotations

from multidict import CIMultiDict

from gateway.endpoints.routing.model import RequestContext
from gateway.endpoints.routing.proxy.upstream_call import target_of
from gateway.endpoints.routing.proxy.whole_response import BufferedResponse, request_whole
from gateway.endpoints.routing.websocket_handshake import SWITCHING_PROTOCOLS, is_websocket
from gateway.http.responses import GatewayResponse, Response
from gateway.plugins.route_models import SentModel
from gateway.plugins.stubs import body_bytes
from gateway.plugins.testing_models import AnswerModel


class StubbedUpstream:
    """An upstream that gives one response to every request. `sent`: the latest request that it got."""

    def __init__(self, answer: AnswerModel) -> None:
        self._answer = answer
        self.sent: SentModel | None = None
        self.body = b""

    async def __call__(self, context: RequestContext) -> GatewayResponse:
        """Return the response."""
        status, headers, body = await self._receive(context)
        return Response(status=status, body=body, headers=headers)

    async def fetch_whole(self, context: RequestContext, limit: int) -> BufferedResponse:
        """Return the response, for a script."""
        request_whole(context)
        return await self._receive(context)

    async def _receive(self, context: RequestContext) -> BufferedResponse:
        self.body = await context.request.content.read() if context.body is None else context.body
        self.sent = SentModel(method=context.upstream_method, target=target_of(context))
        answer, code = self._answer, self._answer.code
        if "code" not in answer.model_fields_set and is_websocket(context.incoming.headers):
            code = SWITCHING_PROTOCOLS
        headers = CIMultiDict(answer.headers)
        if isinstance(answer.body, dict | list):
            headers.setdefault("Content-Type", "application/json")
        return BufferedResponse(code, headers, body_bytes(answer.body))
