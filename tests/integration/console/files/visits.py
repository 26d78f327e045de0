"""Visits of the page of files, and what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.async_api import Locator, expect

from gateway.server.app import Gateway
from tests.support.browser import BrowserVisit, visiting_as
from tests.support.harness import GatewayProcess

MANY = 100_000


class FilesVisit(BrowserVisit):
    """The page of files."""

    async def go(self, gateway: Gateway | GatewayProcess, **fields: str) -> None:
        query = "&".join(f"{name}={quote(value, safe='/')}" for name, value in fields.items())
        await self.page.goto(f"{gateway.url}/-/files?{query}")

    @property
    def rows(self) -> Locator:
        return self(".files-rows > [role=row]")

    @property
    def names(self) -> Locator:
        return self(".files-rows .files-text")

    @property
    def panel(self) -> Locator:
        return self("dialog.files-panel")

    def row(self, name: str) -> Locator:
        return self.rows.filter(has=self.page.get_by_text(name, exact=True))

    def link(self, name: str) -> Locator:
        return self.row(name).locator("[data-part=name]")

    async def shows(self, names: Sequence[str]) -> None:
        await expect(self.names).to_have_text(list(names))

    async def press(self, *keys: str) -> None:
        for key in keys:
            await self.page.keyboard.press(key)

    async def focused(self) -> str:
        """Return the text of what has the focus."""
        return str(await self.page.evaluate("document.activeElement.textContent.trim()"))


def visiting_files(**how: Any) -> AbstractAsyncContextManager[FilesVisit]:
    """Open an empty page: `async with visiting_files(bypass_csp=True)`, which `check_looks` needs."""
    return visiting_as(FilesVisit, **how)


def store(upload: Path, *names: str, **contents: bytes) -> None:
    """Write files below a folder: names with small contents, and `contents` under theirs."""
    for name, content in {**{name: name.encode() for name in names}, **contents}.items():
        (upload / name).parent.mkdir(parents=True, exist_ok=True)
        (upload / name).write_bytes(content)
