"""Checks the JSON of responses against the schemas of their route, beside the stream.

A response is sent whatever it is: what violates its schema is logged and counted. A copy of at most the
route's `max_body` bytes is held until the response has ended; longer ones are not checked.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Final

from aiohttp import hdrs

from gateway.endpoints.routing.model import Check, Next, RequestContext, SchemaFault
from gateway.endpoints.routing.proxy.response import ProxyResponse
from gateway.endpoints.routing.proxy.unpack import UnpackError, codings, unpack
from gateway.endpoints.routing.validation.media_types import is_json, plain_type
from gateway.endpoints.routing.validation.request_check import MAX_BYTES_ON_LOOP, json_faults
from gateway.errors import Refusal
from gateway.http.responses import GatewayResponse, Response
from gateway.limits import FairShare
from gateway.telemetry.logs import event
from gateway.telemetry.metrics import Metrics

log = logging.getLogger("gateway.routing")

MAX_COPIED_BYTES: Final = 128 << 20
"""Bytes of copies of responses that all requests together may hold, each client its share."""

_WITHOUT_BODY: Final = frozenset({204, 304})


class ResponseCheckStep:
    """Checks responses that have a schema. `metrics` counts the violations; None counts none."""

    def __init__(self, metrics: Metrics | None, max_bytes: int = MAX_COPIED_BYTES) -> None:
        self._metrics = metrics
        self._share = FairShare("bytes of copied responses", max_bytes)

    async def __call__(self, context: RequestContext, call_next: Next) -> GatewayResponse:
        """Return the response; the one of an upstream is checked once it has been sent."""
        response = await call_next(context)
        check = _check_of(context, response)
        if check is not None and isinstance(response, ProxyResponse):
            response.copy_to(_Copy(self, context, response, check))
        elif check is not None and isinstance(response, Response) and isinstance(response.body, bytes):
            await self.check(context, _Sent(response), check, response.body)
        return response

    async def check(self, context: RequestContext, response: _Sent, check: Check, body: bytes) -> None:
        """Check a whole body, in a thread where it is large or packed, and tell what is wrong."""
        find = functools.partial(_faults, check, body, response.encoding, context.route.limits.max_body)
        in_thread = len(body) > MAX_BYTES_ON_LOOP or codings(response.encoding)
        faults = await asyncio.to_thread(find) if in_thread else find()
        context.response_faults = faults
        if not faults or self._metrics is None:
            return
        name, first = context.route.name, faults[0]
        self._metrics.abnormal_answers.labels(context.route.label).inc()
        log.warning(
            "response that violates its schema",
            extra=event(
                "response.invalid",
                route=name,
                status=response.status,
                faults=len(faults),
                pointer=first.pointer,
                rule=first.rule,
            ),
        )

    def share(self) -> FairShare:
        """Return what bounds the copies."""
        return self._share


class _Sent:
    """What is remembered of a response, whose headers later steps change."""

    def __init__(self, response: GatewayResponse) -> None:
        self.status = response.status
        self.encoding = response.headers.get(hdrs.CONTENT_ENCODING, "")


class _Copy:
    """The copy of a response that streams."""

    def __init__(
        self, step: ResponseCheckStep, context: RequestContext, response: ProxyResponse, check: Check
    ) -> None:
        self._step = step
        self._context = context
        self._response = _Sent(response)
        self._check = check
        self._body: bytearray | None = bytearray()
        self._lease = step.share().acquire(context.client, 0)

    def add(self, chunk: bytes) -> None:
        """Copy what is sent; what is too much ends the copy."""
        if self._body is None:
            return
        if len(self._body) + len(chunk) > self._context.route.limits.max_body:
            self.drop()
            return
        try:
            self._lease.extend(len(chunk))
        except Refusal:  # the client holds its share: its response goes unchecked
            self.drop()
            return
        self._body += chunk

    async def end(self) -> None:
        """Check the copy of a response that has ended well."""
        if self._body is not None:
            await self._step.check(self._context, self._response, self._check, bytes(self._body))
        self.drop()

    def drop(self) -> None:
        """Give the memory back. A second call does nothing."""
        self._body = None
        self._lease.close()


def _check_of(context: RequestContext, response: GatewayResponse) -> Check | None:
    """Return the check of a response, None where nothing is checked."""
    operation = context.operation
    if operation is None or not operation.checks_responses:
        return None
    if context.incoming.method == hdrs.METH_HEAD or response.status in _WITHOUT_BODY:
        return None
    if not is_json(plain_type(response.headers.get(hdrs.CONTENT_TYPE, ""))):
        return None
    return operation.response_check(response.status)


def _faults(check: Check, body: bytes, encoding: str, limit: int) -> list[SchemaFault]:
    """Return the violations; a body that cannot be unpacked has none."""
    try:
        return json_faults(check, unpack(body, encoding, limit))
    except UnpackError:
        return []
