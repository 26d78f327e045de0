"""`POST /-/notifications`, where object stores tell of what was put into them.

One rule: a 2xx means that the events are durable; who gets another answer, or none, sends again.
One process of a gateway takes all notifications, so that its journal knows a repetition: the others
pass theirs on to it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
from aiohttp import web

from gateway.auth.request import ApiHandler, IncomingRequest
from gateway.domain import failpoints
from gateway.endpoints.notifications.authentication import NotificationAuthenticator, unknown
from gateway.endpoints.notifications.parser import NotificationMessage, read
from gateway.endpoints.notifications.processor import NotificationProcessor
from gateway.endpoints.notifications.sns import SnsVerifier
from gateway.errors import EventEngineUnavailable, Refusal
from gateway.http.request_body import read_small_body
from gateway.http.responses import json_answer

MAX_BODY: Final = 1 << 20
"""Bytes of one request. Amazon's messages have 256 KiB at the most."""

AT_ONCE: Final = 64
"""Requests that are served at once; more are asked to come back."""

PASSING: Final = aiohttp.ClientTimeout(total=60.0)

log = logging.getLogger("gateway.notifications")


class NotificationHandler:
    """The door. `keeper` is a session with the process that takes notifications, None where we do."""

    def __init__(
        self,
        senders: NotificationAuthenticator,
        arrivals: NotificationProcessor,
        sns: SnsVerifier,
        keeper: aiohttp.ClientSession | None = None,
    ) -> None:
        self._senders = senders
        self._arrivals = arrivals
        self._sns = sns
        self._keeper = keeper
        self._serving = 0

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is answered here."""
        return {"notifications": self._answer}

    async def _answer(self, incoming: IncomingRequest) -> web.Response:
        if self._serving >= AT_ONCE:
            raise Refusal("overloaded", "too many notifications at once")
        self._serving += 1
        try:
            known = incoming.owner or incoming.operator is not None
            return await self._take(incoming.request, known=known)
        finally:
            self._serving -= 1

    async def _take(self, request: web.BaseRequest, *, known: bool) -> web.Response:
        headers = request.headers
        if "Origin" in headers or headers.get("Sec-Fetch-Site", "none") != "none":
            raise Refusal("forbidden", "notifications are not taken from web pages")
        trusted = True if known else self._senders.known(headers)
        if trusted is False:
            raise unknown()
        body = await read_small_body(request, MAX_BODY)
        message = self._message(headers, body, trusted=trusted is True)
        if self._keeper is not None:
            return await _passed_on(self._keeper, body)
        if message.envelope is not None and not message.notices and not message.others:
            return await self._service(message.envelope)
        try:
            counts = await self._arrivals.take(message.notices)
        except EventEngineUnavailable as fault:
            raise Refusal("journal_unavailable", f"events cannot be kept now: {fault}") from fault
        if message.others:
            log.debug("%d notifications of something else are ignored", message.others)
            counts["other"] = message.others
        failpoints.hit("before answer")
        return json_answer({"notifications": counts})

    def _message(self, headers: Mapping[str, str], body: bytes, *, trusted: bool) -> NotificationMessage:
        """Read the body of somebody who may send one. Raises `Refusal`."""
        trusted = trusted or self._senders.signed(headers, body)
        try:
            message = read(body)
        except Refusal:
            if not trusted:
                raise unknown() from None
            raise
        if not trusted and not self._senders.repeated(message.secrets):
            raise unknown()
        return message

    async def _service(self, envelope: Mapping[str, Any]) -> web.Response:
        """Answer what Amazon's notification service says of itself."""
        kind = str(envelope.get("Type"))
        if kind == "SubscriptionConfirmation":
            return json_answer({"confirmed": await self._sns.confirm(envelope)})
        if kind not in {"Notification", "UnsubscribeConfirmation"}:
            raise Refusal("bad_request", "this is no notification of an object store: Type is unknown")
        return json_answer({"notifications": {}})


async def _passed_on(keeper: aiohttp.ClientSession, body: bytes) -> web.Response:
    try:
        async with keeper.post("http://process/-/notifications", data=body, timeout=PASSING) as answer:
            said = await answer.read()
            return web.Response(
                status=answer.status, body=said, content_type=answer.content_type, charset="utf-8"
            )
    except (aiohttp.ClientError, TimeoutError, OSError) as fault:
        raise Refusal(
            "process_unavailable", "the process that takes notifications is being started again"
        ) from fault
