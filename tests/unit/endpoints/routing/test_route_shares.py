"""Shares of routes, over reloads."""

from __future__ import annotations

from gateway.endpoints.routing.route_shares import RouteShares


def test_a_route_keeps_its_share_over_a_reload() -> None:
    shares = RouteShares("requests", 10)
    share = shares.share_of("orders")
    shares.keep({"orders"})
    assert shares.share_of("orders") is share


def test_the_share_of_a_route_that_is_gone_is_forgotten_once_nothing_is_held() -> None:
    shares = RouteShares("requests", 10)
    share = shares.share_of("orders")
    lease = share.acquire("ann")
    shares.keep(())
    assert shares.share_of("orders") is share
    assert shares.used == 1
    lease.close()
    shares.keep(())
    assert shares.share_of("orders") is not share
