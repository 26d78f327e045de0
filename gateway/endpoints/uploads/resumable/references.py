"""References to partial uploads: `<id>.<secret>` in the query of their URLs. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.domain.partial import UPLOAD_QUERY
from gateway.signing.keys import UploadSecrets

_REFERENCE: Final = re.compile(r"([0-9A-HJKMNP-TV-Z]{26}-[0-9]{1,6})\.([A-Za-z0-9_-]{1,100})", re.ASCII)


@dataclass(frozen=True, slots=True)
class PartialReferences:
    """Makes and verifies references. `base` returns what absolute URLs begin with."""

    secrets: UploadSecrets
    base: Callable[[], str]

    def reference(self, upload_id: str) -> str:
        """Return the reference to an upload."""
        return f"{upload_id}.{self.secrets.secret(upload_id)}"

    def url(self, asked_path: str, upload_id: str) -> str:
        """Return the absolute URL of a partial upload; `asked_path` is encoded."""
        return f"{self.base()}{asked_path}?{UPLOAD_QUERY}={self.reference(upload_id)}"

    def verify(self, reference: str) -> str | None:
        """Return the id that a reference was made for, None where its secret is wrong."""
        parsed = _REFERENCE.fullmatch(reference)
        if parsed is None or not self.secrets.is_genuine(parsed[2], parsed[1]):
            return None
        return parsed[1]
