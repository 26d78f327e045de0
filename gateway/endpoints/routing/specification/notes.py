"""What a gateway cannot check of an OpenAPI document, for `gateway check`: one line for each reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.endpoints.routing.specification.source import Source


class Unchecked:
    """The reasons, each with its first place and how often there is another."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._places: dict[str, set[int]] = {}

    def note(self, reason: str, where: Sequence[str | int]) -> None:
        """Note that something at a place passes without a check."""
        self._places.setdefault(reason, set()).add(self._source.line(where))

    def lines(self) -> Iterator[str]:
        """Yield a line for each reason."""
        for reason, places in self._places.items():
            more = f" (and in {len(places) - 1} more lines)" if len(places) > 1 else ""
            yield f"{self._source.file}:{min(places)}: {reason}{more}"
