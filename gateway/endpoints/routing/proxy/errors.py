"""Why an upstream gave no response, and what the client reads of it."""

from __future__ import annotations

from typing import Final

from gateway.errors import GatewayError, Refusal, descriptor_refusal

FINAL_STATUSES: Final = range(200, 600)
"""Statuses of whole responses; others are invalid (RFC 9110 section 15)."""


class UpstreamFailed(GatewayError):
    """An upstream gave no response. `refusal` is for the client.

    `connected`: the request may have arrived. `closed`: the upstream closed the connection.
    """

    def __init__(self, refusal: Refusal, *, connected: bool, closed: bool = False) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.connected = connected
        self.closed = closed


def unreachable(error: Exception, seconds: float) -> GatewayError:
    """Return the error of a request that was not sent: it could not connect within `seconds`."""
    refusal = descriptor_refusal(error)
    if refusal is not None:
        return refusal
    if isinstance(error, TimeoutError):
        message = f"the upstream could not be reached within {seconds:g} seconds"
        return UpstreamFailed(Refusal("gateway_timeout", message), connected=False)
    return UpstreamFailed(Refusal("bad_gateway", "the upstream cannot be reached"), connected=False)


def silent(seconds: float) -> Refusal:
    """Return the refusal where an upstream sent no byte for so many seconds."""
    return Refusal("gateway_timeout", f"the upstream sent nothing for {seconds:g} seconds")


def too_long(seconds: float | None) -> Refusal:
    """Return the refusal where `limits.total` has passed."""
    return Refusal("gateway_timeout", f"the response did not end within {seconds or 0:g} seconds in all")


def not_http() -> Refusal:
    """Return the refusal where what came is no response."""
    return Refusal("bad_gateway", "the upstream closed the connection, or its response is not HTTP")


def not_final(status: int) -> Refusal:
    """Return the refusal of a status outside of FINAL_STATUSES."""
    return Refusal("bad_gateway", f"the upstream's status {status} is no final one of HTTP")
