"""Links: who has one may upload into one folder, or read one. What other packages must know of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

LINK: Final = "link"
"""The kind of principal of whoever has a link; its name is the id of the link."""

LinkKind = Literal["drop", "share"]
LINK_KINDS: Final[tuple[LinkKind, ...]] = ("drop", "share")
"""`drop`: upload, and nothing else. `share`: read, and nothing else."""

_QUOTA_PREFIX: Final = "link "


def link_quota(link_id: str) -> str:
    """Return the key by which the uploads of a link are counted."""
    return _QUOTA_PREFIX + link_id


def counts_for_ever(key: str) -> bool:
    """Tell whether what was uploaded stays counted, even where its file is removed: that of a link."""
    return key.startswith(_QUOTA_PREFIX)


def is_of_link(principal: Mapping[str, Any] | None) -> bool:
    """Tell whether a principal is that of a link."""
    return principal is not None and principal.get("kind") == LINK
