"""Visits of the pages of links."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from tests.support.browser import BrowserVisit, visiting_as


@dataclass
class LinkVisit(BrowserVisit):
    """A person who makes a link, or has one."""

    async def choose(self, *files: tuple[str, bytes], mime: str = "application/octet-stream") -> None:
        """Choose files to send."""
        chosen: Any = [{"name": name, "mimeType": mime, "buffer": body} for name, body in files]
        await self("#choose-files").set_input_files(chosen)


def visiting(**how: Any) -> AbstractAsyncContextManager[LinkVisit]:
    """Open a browser of another person: `bypass_csp=True` for `check_looks`."""
    return visiting_as(LinkVisit, **how)
