"""Requests as the plain checks get them."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.auth.request import RequestHead


def head_of(headers: Mapping[str, str], method: str = "GET", target: str = "/") -> RequestHead:
    """Return a request with these headers (a case-insensitive mapping where case matters)."""
    return RequestHead(method, target, headers, None)
