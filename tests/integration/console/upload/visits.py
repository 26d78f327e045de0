"""Visits of the upload page, and files to upload."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.async_api import CDPSession, Locator, Request, expect

from tests.support.browser import BrowserVisit, visiting_as

PIECE = 16 << 20
"""Bytes of a piece, as upload-transfer.js has it."""


@dataclass
class UploadVisit(BrowserVisit):
    """A visit of the upload page."""

    _network: CDPSession | None = None

    async def open(self, url: str, path: str = "/") -> None:
        await self.page.goto(f"{url}{path}")
        await expect(self("#add-files")).to_be_visible()

    async def add(self, *paths: Path, into: str = "#choose-files") -> None:
        """Choose files, or a folder, as with the dialog of the browser.

        playwright would read them all first, and takes no more than 50 MB.
        """
        session = await self.page.context.new_cdp_session(self.page)
        input_ = await session.send(
            "Runtime.evaluate", {"expression": f"document.querySelector('{into}')"}
        )
        where = {"objectId": input_["result"]["objectId"], "files": [str(path) for path in paths]}
        await session.send("DOM.setFileInputFiles", where)
        await session.detach()

    async def make(self, folder: Path, files: dict[str, bytes]) -> None:
        """Write files into a folder, and choose them."""
        folder.mkdir(exist_ok=True)
        for name, body in files.items():
            (folder / name).write_bytes(body)
        await self.add(*(folder / name for name in files))

    def row(self, name: str) -> Locator:
        return self(".upload").filter(has=self.page.get_by_text(name, exact=True))

    async def press(self, label: str) -> None:
        await self.page.get_by_role("button", name=label, exact=True).click()

    async def headline(self, text: str, seconds: float | None = None) -> None:
        """Wait until the summary says `text`."""
        timeout = None if seconds is None else seconds * 1000
        await expect(self(".summary h2")).to_have_text(text, timeout=timeout)

    async def slow(self, bytes_per_second: int) -> None:
        """Let no more bytes leave in a second; 0: as many as there are."""
        if self._network is None:  # conditions of one session stay when another one sets its own
            self._network = await self.page.context.new_cdp_session(self.page)
            await self._network.send("Network.enable")
        throughput = bytes_per_second or -1
        conditions = {"offline": False, "latency": 0, "downloadThroughput": -1}
        await self._network.send(
            "Network.emulateNetworkConditions", {**conditions, "uploadThroughput": throughput}
        )

    def requests(self, wanted: Callable[[Request], bool]) -> list[Request]:
        """Return a list to which each request of the page is added that is wanted."""
        seen: list[Request] = []
        self.page.on("request", lambda request: seen.append(request) if wanted(request) else None)
        return seen


def visiting_uploads(**how: Any) -> AbstractAsyncContextManager[UploadVisit]:
    return visiting_as(UploadVisit, **how)


def write_files(folder: Path, sizes: Sequence[int]) -> dict[str, bytes]:
    """Write files of these sizes; return their bytes by name."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {f"file-{number:03}.bin": os.urandom(size) for number, size in enumerate(sizes)}
    for name, body in files.items():
        (folder / name).write_bytes(body)
    return files


async def count_files(folder: Path) -> int:
    """Count the files that are visible below a folder."""
    return await asyncio.to_thread(lambda: sum(path.is_file() for path in folder.rglob("*")))
