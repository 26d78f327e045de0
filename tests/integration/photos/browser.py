"""The page of the photos in a real browser."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Request, expect

from tests.support.browser import BrowserVisit, visiting_as


@dataclass
class Visit(BrowserVisit):
    """A visit of the page: what it shows, what its console said, and how many photos it sent at once."""

    puts: set[Request] = field(default_factory=set)
    most_puts: int = 0

    def watch(self) -> None:
        super().watch()
        self.page.on("request", self._begin)
        self.page.on("requestfinished", self._end)
        self.page.on("requestfailed", self._end)

    def _begin(self, request: Request) -> None:
        if request.method in {"PUT", "PATCH"}:
            self.puts.add(request)
            # A photo is a PUT and a PATCH of one path; the end of the first may be told later.
            photos = {one.url.partition("?")[0] for one in self.puts}
            self.most_puts = max(self.most_puts, len(photos))

    def _end(self, request: Request) -> None:
        self.puts.discard(request)

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


def visiting(**how: Any) -> AbstractAsyncContextManager[Visit]:
    """Start a browser and open an empty page: `async with visiting(color_scheme="dark") as visit`."""
    return visiting_as(Visit, **how)
