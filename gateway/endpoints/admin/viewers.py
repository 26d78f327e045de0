"""Whose uploads a caller sees: an operator all, an uploader its own."""

from __future__ import annotations

from typing import NamedTuple

from gateway.auth.request import RequestHead
from gateway.endpoints.inflight import named_principal


class Viewer(NamedTuple):
    """A principal that sees its own uploads only."""

    name: str
    kind: str

    @property
    def principal(self) -> dict[str, str]:
        """The principal as it is told."""
        return {"name": self.name, "kind": self.kind}


def viewer_of(head: RequestHead) -> Viewer | None:
    """Return who sees its own uploads only, None where all are seen."""
    principal = named_principal(head.uploader)
    return None if principal is None else Viewer(principal["name"], principal["kind"])
