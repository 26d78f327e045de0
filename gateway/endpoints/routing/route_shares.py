"""What clients may take of each route at the same time."""

from __future__ import annotations

from collections.abc import Collection

from gateway.limits import FairShare


class RouteShares:
    """A `FairShare` of `total` for each route, by name. `what`: see there."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._shares: dict[str, FairShare] = {}

    @property
    def used(self) -> int:
        """What all clients hold of all routes."""
        return sum(share.used for share in self._shares.values())

    def share_of(self, route: str) -> FairShare:
        """Return the share of a route."""
        share = self._shares.get(route)
        if share is None:
            share = self._shares[route] = FairShare(self._what, self._total)
        return share

    def keep(self, routes: Collection[str]) -> None:
        """Forget the shares of other routes, but for those of which something is held."""
        kept = {name: share for name, share in self._shares.items() if name in routes or share.used}
        self._shares = kept
