"""What a client would rather have, by its `Accept` (RFC 9110 section 12.5.1)."""

from __future__ import annotations

from collections.abc import Mapping

from multidict import MultiMapping


def prefers_html(headers: Mapping[str, str]) -> bool:
    """Tell whether a client would rather have HTML: a browser names it, a program seldom does."""
    lines = (
        headers.getall("Accept", [])
        if isinstance(headers, MultiMapping)
        else [headers.get("Accept", "")]
    )
    kinds = [part.partition(";")[0].strip() for part in ",".join(lines).lower().split(",")]
    return "text/html" in kinds and "application/json" not in kinds
