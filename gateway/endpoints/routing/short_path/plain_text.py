"""The text of plain requests and responses. What repeats on a connection is made once.

A client that keeps its connection sends the same headers again and again, but for the length, and so
does an upstream, but for the length and the date. One request, and one response, is remembered for each
connection.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Final, NamedTuple

from aiohttp import hdrs
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.web_response import REASON_PHRASES
from multidict import CIMultiDict

from gateway.auth.request_ids import REQUEST_ID
from gateway.endpoints.routing import forwarding
from gateway.endpoints.routing.model import RequestContext
from gateway.endpoints.routing.proxy.connection import PlainResponse
from gateway.endpoints.routing.proxy.plain_call import complete_request, encode_head
from gateway.endpoints.routing.proxy.response import plain_reason
from gateway.endpoints.routing.proxy.upstream_call import UpstreamCaller, target_of
from gateway.endpoints.routing.table import RouteMatch, RouteTable
from gateway.http.short_request import ShortRequest
from gateway.telemetry.tracing import TRACEPARENT, TRACESTATE

RawHeaders = tuple[tuple[bytes, bytes], ...]

MAX_REMEMBERED_BYTES: Final = 8 << 10
"""Bytes of the longest head that is remembered."""

_LENGTH: Final = b"content-length"
_REQUEST_ID: Final = b"x-request-id"
_CONTEXT: Final = frozenset({TRACEPARENT.encode(), TRACESTATE.encode()})
"""Headers that a gateway with a tracer sets anew."""

_VARYING: Final = frozenset({_LENGTH, b"date"})
"""Headers of a response that differ each time, beside the id of the request."""

_ID, _NOW = -1, -2
_SLOT: Final = re.compile("\0(-?[0-9]+)\0")
"""A value to be filled in: the index of a header line, or one of the two above."""

_VISIBLE: Final = re.compile(rb"[ -~]*")


# -- requests


class RequestMemo:
    """What was made of the last request of a client's connection.

    `headers` are those that the steps have made, which would make the same of them again.
    """

    __slots__ = (
        "_heads", "_ids", "_lines", "_method", "_target", "_varying", "headers", "match", "table",
    )  # fmt: skip

    def __init__(self, table: RouteTable, match: RouteMatch, headers: CIMultiDict[str]) -> None:
        self.table = table
        self.match = match
        self.headers = headers
        self._heads: dict[str, bytes] = {}
        self._ids = True

    def is_for(self, request: ShortRequest, table: RouteTable) -> bool:
        """Tell whether a request is the same, but for its body."""
        return (
            self.table is table
            and self._target == request.raw_path
            and self._method == request.method
            and _are_same(self._lines, request.raw_headers, self._varying)
        )

    def encode(
        self, request: ShortRequest, context: RequestContext, upstream: str, caller: UpstreamCaller
    ) -> bytes:
        """Return the request for an upstream. Raises as `request_headers` and `upstream_target`."""
        head, facts = self._heads.get(upstream), context.incoming.facts
        traced = facts.attempt_span.headers
        if head is None:
            headers = caller.plain_headers(context, upstream, request.scheme)
            if headers[REQUEST_ID] == facts.request_id:
                del headers[REQUEST_ID]  # it is another one each time
            else:
                self._ids = False
            for name in traced:
                del headers[name]  # so is that
            head = encode_head(context.upstream_method, target_of(context), headers)
            self._heads[upstream] = head
            self._method, self._target = request.method, request.raw_path
            self._lines = request.raw_headers
            # A condition on headers may choose another route for another id.
            varying = {_LENGTH} if self.table.has_conditions else {_LENGTH, _REQUEST_ID}
            if traced and not self.table.has_conditions:
                varying |= _CONTEXT
            names = [name.lower() for name, _ in self._lines]
            self._varying = [at for at, name in enumerate(names) if name in varying]
            checks = context.operation is not None and context.operation.check_headers is not None
            if len(head) <= MAX_REMEMBERED_BYTES and not checks:
                request.connection.memo = self
        lines = f"{REQUEST_ID}: {facts.request_id}\r\n" if self._ids else ""
        for name, value in traced.items():
            lines += f"{name}: {value}\r\n"
        return complete_request(head, context.upstream_method, context.body or b"", lines.encode())


def recall_request(request: ShortRequest, table: RouteTable) -> RequestMemo | None:
    """Return what is remembered of a request like this one."""
    memo = request.connection.memo
    return memo if isinstance(memo, RequestMemo) and memo.is_for(request, table) else None


# -- responses


class _ResponseMemo(NamedTuple):
    """The head of a response: the texts between the values of `slots`, and what they were made of."""

    status: int
    reason: str
    lines: RawHeaders
    texts: tuple[bytes, ...]
    slots: tuple[int, ...]


def encode_response(
    response: PlainResponse, content: bytes, more: Mapping[str, str], request_id: str
) -> bytes:
    """Return a whole response for the client, as `ProxyResponse` would send it.

    `more` are headers of the gateway. Raises `Refusal("bad_gateway")` for invalid headers.
    """
    message, memo = response.message, response.memo
    lines = message.raw_headers
    if (
        more
        or not isinstance(memo, _ResponseMemo)
        or memo.status != message.code
        or memo.reason != message.reason
        or not _are_same(memo.lines, lines, memo.slots)
    ):
        memo = _response_memo(response, more)
        if not more and sum(map(len, memo.texts)) <= MAX_REMEMBERED_BYTES:
            response.memo = memo
    parts = [memo.texts[0]]
    for slot, text in zip(memo.slots, memo.texts[1:], strict=True):
        if slot >= 0:
            parts.append(lines[slot][1])
        else:
            parts.append((request_id if slot == _ID else rfc822_formatted_time()).encode())
        parts.append(text)
    if is_chunked(response):
        parts.append(b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content) if content else b"0\r\n\r\n")
    else:
        parts.append(content)
    return b"".join(parts)


def is_chunked(response: PlainResponse) -> bool:
    """Tell whether a response comes in chunks, and goes on in one."""
    return response.headers.get(hdrs.TRANSFER_ENCODING, "").lower() == "chunked"


def _response_memo(response: PlainResponse, more: Mapping[str, str]) -> _ResponseMemo:
    message = response.message
    headers = forwarding.response_headers(response.headers)
    headers.update(more)
    for index, (name, value) in enumerate(message.raw_headers):
        key = name.lower()
        if key in _VARYING and _VISIBLE.fullmatch(value):
            field = name.decode()
            kept = key == _LENGTH or field in headers  # not where `Connection` names it
            if kept and len(response.headers.getall(field)) == 1:
                headers[field] = f"\0{index}\0"
    headers[REQUEST_ID] = f"\0{_ID}\0"
    if is_chunked(response):
        headers[hdrs.TRANSFER_ENCODING] = "chunked"
    headers.setdefault(hdrs.DATE, f"\0{_NOW}\0")
    reason = plain_reason(message.reason)
    if reason is None:
        reason = REASON_PHRASES.get(message.code, "")
    text = [f"HTTP/1.1 {message.code} {reason}", *(f"{n}: {v}" for n, v in headers.items()), "", ""]
    texts = _SLOT.split("\r\n".join(text))
    return _ResponseMemo(
        message.code,
        message.reason,
        message.raw_headers,
        tuple(part.encode() for part in texts[::2]),
        tuple(map(int, texts[1::2])),
    )


def _are_same(remembered: RawHeaders, lines: RawHeaders, varying: Container[int]) -> bool:
    """Tell whether header lines differ in the values of those at `varying` at most."""
    if remembered == lines:
        return True
    if len(remembered) != len(lines):
        return False
    for index, (old, new) in enumerate(zip(remembered, lines, strict=True)):
        same = old == new or (
            index in varying and old[0] == new[0] and _VISIBLE.fullmatch(new[1]) is not None
        )
        if not same:
            return False
    return True
