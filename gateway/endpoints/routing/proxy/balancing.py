"""Smooth weighted round robin: whose turn it is.

The algorithm of nginx (`ngx_http_upstream_round_robin`): each one that is ready gains its weight, the
one with the most is taken and pays the sum of the weights. Turns of a heavy one lie among those of the
others. Only those that are ready take part, so that what one leaves out is spread by weight over all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class SmoothTurns:
    """The turns of some names. Without `weights` all have the same."""

    __slots__ = ("_gained", "_weights")

    def __init__(self, names: Sequence[str], weights: Sequence[int] = ()) -> None:
        self._weights = dict(zip(names, weights or [1] * len(names), strict=True))
        self._gained = dict.fromkeys(names, 0)

    def take(self, ready: Iterable[str]) -> str:
        """Return whose turn it is of those that are ready: at least one."""
        gained, weights = self._gained, self._weights
        chosen, most, total = "", 0, 0
        for name in ready:
            weight = weights[name]
            credit = gained[name] = gained[name] + weight
            total += weight
            if not chosen or credit > most:
                chosen, most = name, credit
        gained[chosen] = most - total
        return chosen
