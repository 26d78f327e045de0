"""What has come through drop links: counted with the quotas, exact over all processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from gateway.auth.links.link import Link
from gateway.commit.quotas.files import QuotaFiles
from gateway.domain.links import link_quota
from gateway.limits.quota_sweeps import usage_of


class LinkUsage(NamedTuple):
    """Files and bytes that came through a link, those on their way included."""

    files: int
    bytes: int


class LinkCounts:
    """Reads the counts of links."""

    def __init__(self, files: QuotaFiles) -> None:
        self._files = files

    async def of(self, links: Sequence[Link]) -> Mapping[str, LinkUsage]:
        """Return what came through some links, by id. Raises `Refusal("records_unavailable")`."""
        keys = {link.id: link_quota(link.id) for link in links if link.kind == "drop"}
        if not keys or not self._files.store.exists():
            return dict.fromkeys(keys, LinkUsage(0, 0))
        used = await self._files.run(partial(usage_of, tuple(keys.values())))
        return {link_id: LinkUsage(used[key][1], used[key][0]) for link_id, key in keys.items()}
