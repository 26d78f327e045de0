"""Both sides of the opening handshake (RFC 6455 section 4.2, RFC 9110 section 7.8).

A request that only looks like a handshake must never open a raw connection: what is not exactly one is
refused, and so is a response that does not belong to it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Final

from aiohttp import HttpVersion11, hdrs, web
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.endpoints.routing.forwarding import connection_options
from gateway.errors import Refusal

SWITCHING_PROTOCOLS: Final = 101
VERSION: Final = "13"
"""The only version of the protocol that is registered as a standard."""

UPGRADE: Final[Mapping[str, str]] = {hdrs.UPGRADE: "websocket", hdrs.CONNECTION: "Upgrade"}
"""What both sides send beside their own fields."""

NO_WEBSOCKET: Final = (
    "this path takes no WebSocket connections. Operator: set `websocket: true` in the route"
)

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES: Final = 16


def is_websocket(headers: Mapping[str, str]) -> bool:
    """Tell whether a request asks for a WebSocket connection, well-formed or not."""
    return "websocket" in headers.get(hdrs.UPGRADE, "").lower()


def check_handshake(request: web.BaseRequest) -> str:
    """Return the `Sec-WebSocket-Key` of a handshake.

    Raises `Refusal`: `bad_request` with what is wrong, `upgrade_required` for another version.
    """
    headers = request.headers
    if (problem := _problem(request)) is not None:
        raise Refusal("bad_request", f"malformed WebSocket handshake: {problem}")
    if headers.getall(hdrs.SEC_WEBSOCKET_VERSION) != [VERSION]:
        needed = {str(hdrs.SEC_WEBSOCKET_VERSION): VERSION, **UPGRADE}
        message = f"WebSocket connections have version {VERSION} here"
        raise Refusal("upgrade_required", message, needed)
    return headers[hdrs.SEC_WEBSOCKET_KEY]


def _problem(request: web.BaseRequest) -> str | None:
    headers = request.headers
    upgrade = [line.strip().lower() for line in headers.getall(hdrs.UPGRADE)]
    problems = {
        "it needs HTTP/1.1": request.version != HttpVersion11,
        "it needs the method GET": request.method != hdrs.METH_GET,
        "it has a body": request.body_exists or headers.get(hdrs.CONTENT_LENGTH, "0") != "0",
        "Upgrade has to be `websocket` alone": upgrade != ["websocket"],
        "the header `Connection: Upgrade` is missing": "upgrade" not in connection_options(headers),
        "the header Sec-WebSocket-Version is missing": hdrs.SEC_WEBSOCKET_VERSION not in headers,
        "Sec-WebSocket-Key has to be 16 bytes in Base64": not _has_key(headers),
    }
    return next((problem for problem, applies in problems.items() if applies), None)


def _has_key(headers: CIMultiDictProxy[str]) -> bool:
    keys = headers.getall(hdrs.SEC_WEBSOCKET_KEY, [])
    try:
        return len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == _KEY_BYTES
    except (binascii.Error, ValueError):
        return False


def accept_value(key: str) -> str:
    """Return the `Sec-WebSocket-Accept` that belongs to a key."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def check_switch(headers: CIMultiDictProxy[str] | CIMultiDict[str], key: str) -> None:
    """Check the header fields of an upstream's 101. Raises `Refusal("bad_gateway")`."""
    problem = None
    if headers.get(hdrs.UPGRADE, "").strip().lower() != "websocket":
        problem = "Upgrade is not `websocket`"
    elif "upgrade" not in connection_options(headers):
        problem = "`Connection: Upgrade` is missing"
    elif headers.getall(hdrs.SEC_WEBSOCKET_ACCEPT, []) != [accept_value(key)]:
        problem = "Sec-WebSocket-Accept does not belong to the request"
    if problem is not None:
        raise Refusal("bad_gateway", f"the upstream's 101 is no WebSocket handshake: {problem}")
