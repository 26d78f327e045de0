"""A real browser: Chromium of the system, driven by playwright; it downloads nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from playwright.async_api import ConsoleMessage, Locator, Page, async_playwright, expect

from tests.support import PROJECT
from tests.support.harness import TIMEOUT

PICTURES: Final = PROJECT / "docs" / "pictures"
TAKE_PICTURES: Final = bool(os.environ.get("TAKE_PICTURES"))
"""`TAKE_PICTURES=1 scripts/check tests/integration/...` writes those of docs/ anew."""

expect.set_options(timeout=TIMEOUT * 1000)


@dataclass
class BrowserVisit:
    """A visit of a page: what it shows, and what its console said."""

    page: Page
    said: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.said.append(f"{message.type}: {message.text}")

    def __call__(self, selector: str, **how: Any) -> Locator:
        return self.page.locator(selector, **how)

    async def take(self, name: str, **how: Any) -> None:
        """Take a picture for the docs, where that is asked for."""
        if TAKE_PICTURES:
            PICTURES.mkdir(exist_ok=True)
            await self.page.evaluate("scrollTo(0, 0)")
            await self.page.screenshot(path=PICTURES / f"{name}.png", animations="disabled", **how)


Kind = TypeVar("Kind", bound=BrowserVisit)


@asynccontextmanager
async def visiting_as(kind: type[Kind], **how: Any) -> AsyncIterator[Kind]:
    """Start a browser and open an empty page: `async with visiting_as(Visit, color_scheme="dark")`."""
    program = shutil.which("chromium")
    assert program, "chromium is missing: scripts/test installs it (Debian: apt-get install chromium)"
    async with async_playwright() as play:
        browser = await play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            size = {"width": 1100, "height": 860}
            page = await browser.new_page(**{"viewport": size, "locale": "en-GB", **how})
            visit = kind(page)
            visit.watch()
            yield visit
        finally:
            await browser.close()


async def assert_accessible(visit: BrowserVisit, axe: Path, width: int) -> None:
    """Run axe on what the page shows now, and see that nothing is wider than the page."""
    assert await visit.page.evaluate("document.documentElement.scrollWidth") <= width
    await visit.page.add_script_tag(path=axe)
    outcome = await visit.page.evaluate("axe.run()")
    violations = [(rule["id"], rule["nodes"][0]["html"]) for rule in outcome["violations"]]
    assert not violations, violations
