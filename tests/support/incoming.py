"""Requests as `Auth` gets them, without a connection."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import cast

from aiohttp import web

from gateway.auth.request import IncomingRequest


def incoming_request(
    headers: Mapping[str, str], method: str = "GET", target: str = "/"
) -> IncomingRequest:
    """Return a request with these headers (a case-insensitive mapping where case matters)."""
    request = SimpleNamespace(method=method, raw_path=target, headers=headers)
    return IncomingRequest(cast(web.BaseRequest, request))
