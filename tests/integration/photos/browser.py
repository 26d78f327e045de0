"""A real browser on the page: Chromium of the system, driven by playwright; it downloads nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from playwright.async_api import ConsoleMessage, Locator, Page, Request, async_playwright, expect

from tests.support import PROJECT
from tests.support.harness import TIMEOUT

PICTURES: Final = PROJECT / "docs" / "pictures"
TAKE_PICTURES: Final = bool(os.environ.get("TAKE_PICTURES"))
"""`TAKE_PICTURES=1 scripts/check tests/integration/photos/test_page.py` writes those of docs/ anew."""

expect.set_options(timeout=TIMEOUT * 1000)


@dataclass
class Visit:
    """A visit of the page: what it shows, what its console said, and how many photos it sent at once."""

    page: Page
    said: list[str] = field(default_factory=list)
    puts: set[Request] = field(default_factory=set)
    most_puts: int = 0

    def watch(self) -> None:
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("request", self._begin)
        self.page.on("requestfinished", self._end)
        self.page.on("requestfailed", self._end)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.said.append(f"{message.type}: {message.text}")

    def _begin(self, request: Request) -> None:
        if request.method in {"PUT", "PATCH"}:
            self.puts.add(request)
            # A photo is a PUT and a PATCH of one path; the end of the first may be told later.
            photos = {one.url.partition("?")[0] for one in self.puts}
            self.most_puts = max(self.most_puts, len(photos))

    def _end(self, request: Request) -> None:
        self.puts.discard(request)

    def __call__(self, selector: str) -> Locator:
        return self.page.locator(selector)

    async def open(self, url: str, event: str = "harvest-2026") -> None:
        await self.page.goto(f"{url}/photos/?event={event}")
        await expect(self("#limits")).not_to_be_empty()

    async def choose(self, *files: tuple[str, str, bytes]) -> None:
        """Choose files in the picker: name, type, content of each."""
        payloads: Any = [{"name": name, "mimeType": kind, "buffer": body} for name, kind, body in files]
        await self("#files").set_input_files(payloads)

    async def drop(self, *files: tuple[str, str, bytes]) -> None:
        """Drag files over the page and drop them."""
        carried = await self.page.evaluate_handle(
            """files => {
                const carried = new DataTransfer();
                for (const [name, type, bytes] of files)
                    carried.items.add(new File([new Uint8Array(bytes)], name, { type }));
                return carried;
            }""",
            [[name, kind, list(body)] for name, kind, body in files],
        )
        area = self("#drop")
        await area.dispatch_event("dragenter", {"dataTransfer": carried})
        await expect(area).to_have_class("drop over")
        await area.dispatch_event("drop", {"dataTransfer": carried})
        await expect(area).to_have_class("drop")

    async def shows(self, count: int) -> None:
        """Wait until so many thumbnails are there, and are pictures that the browser could draw."""
        await expect(self("#gallery li")).to_have_count(count)
        for image in await self("#gallery img").all():
            await image.scroll_into_view_if_needed()
            await image.evaluate("image => image.decode()")

    async def take(self, name: str, **how: Any) -> None:
        """Take a picture for the docs, where that is asked for."""
        if TAKE_PICTURES:
            PICTURES.mkdir(exist_ok=True)
            await self.page.evaluate("scrollTo(0, 0)")
            await self.page.screenshot(path=PICTURES / f"{name}.png", animations="disabled", **how)


@asynccontextmanager
async def visiting(**how: Any) -> AsyncIterator[Visit]:
    """Start a browser and open an empty page: `async with visiting(color_scheme="dark") as visit`."""
    program = shutil.which("chromium")
    assert program, "chromium is missing: scripts/test installs it (Debian: apt-get install chromium)"
    async with async_playwright() as play:
        browser = await play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            size = {"width": 1100, "height": 860}
            page = await browser.new_page(**{"viewport": size, "locale": "en-GB", **how})
            visit = Visit(page)
            visit.watch()
            yield visit
        finally:
            await browser.close()
