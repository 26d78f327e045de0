"""A real browser: one Chromium of the system for each test process, driven by playwright."""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from playwright.async_api import Browser, ConsoleMessage, Locator, Page, async_playwright, expect

from tests.support import PROJECT
from tests.support.harness import TIMEOUT
from tests.support.node import node_modules

PICTURES: Final = PROJECT / "docs" / "pictures"
TAKE_PICTURES: Final = bool(os.environ.get("TAKE_PICTURES"))
"""`TAKE_PICTURES=1 scripts/check tests/integration/...` writes those of docs/ anew."""

SHOTS: Final = os.environ.get("SHOTS")
"""A folder: `check_looks` writes a picture of every look there."""

LOOKS: Final = [(1280, "light"), (390, "dark"), (1280, "dark"), (390, "light")]

_SWITCHES: Final = (
    "--headless",
    "--no-sandbox",
    "--remote-debugging-port=0",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-features=Translate,MediaRouter,OptimizationHints,HttpsUpgrades",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
    "--disable-background-timer-throttling",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--mute-audio",
    "--password-store=basic",
)

expect.set_options(timeout=TIMEOUT * 1000)


class Chromium:
    """The process of the browser, which ends with that of the tests."""

    def __init__(self) -> None:
        program = shutil.which("chromium")
        assert program, (
            "chromium is missing: scripts/test installs it (Debian: apt-get install chromium)"
        )
        self._folder = tempfile.TemporaryDirectory(prefix="chromium-")
        # A test process that is killed at its timeout runs no `atexit`.
        command = ["setpriv", "--pdeathsig", "KILL", program, *_SWITCHES]
        self._process = subprocess.Popen(
            [*command, f"--user-data-dir={self._folder.name}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        atexit.register(self.close)

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    async def url(self) -> str:
        """Return where it listens, when it does."""
        port = Path(self._folder.name) / "DevToolsActivePort"
        async with asyncio.timeout(TIMEOUT):
            while not (port.exists() and len(port.read_text().splitlines()) == 2):
                assert self.runs, "chromium does not start"
                await asyncio.sleep(0.02)
        number, path = port.read_text().splitlines()
        return f"ws://127.0.0.1:{number}{path}"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder.name, ignore_errors=True)
        self._folder.cleanup()


_running: Final[list[Chromium]] = []


@asynccontextmanager
async def connected_browser() -> AsyncIterator[Browser]:
    """Connect to the browser of this process: what is open in it ends with the connection."""
    if not (_running and _running[-1].runs):
        _running.append(Chromium())
    async with async_playwright() as play:
        browser = await play.chromium.connect_over_cdp(await _running[-1].url())
        try:
            yield browser
        finally:
            await browser.close()


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
            where = urlsplit(message.location["url"]).path
            self.said.append(f"{message.type}: {message.text} {where}".rstrip())

    def __call__(self, selector: str, **how: Any) -> Locator:
        return self.page.locator(selector, **how)

    async def tab_to(self, selector: str, *, most: int = 30) -> None:
        """Press Tab until what is selected has the focus."""
        for _ in range(most):
            await self.page.keyboard.press("Tab")
            if await self(selector).evaluate("element => element === document.activeElement"):
                return
        raise AssertionError(f"{most} times Tab, and {selector} has no focus")

    async def take(self, name: str, **how: Any) -> None:
        """Take a picture for the docs, where that is asked for."""
        if TAKE_PICTURES:
            PICTURES.mkdir(exist_ok=True)
            await self.page.evaluate("scrollTo(0, 0)")
            await self.page.screenshot(path=PICTURES / f"{name}.png", animations="disabled", **how)


Kind = TypeVar("Kind", bound=BrowserVisit)


@asynccontextmanager
async def visiting_as(kind: type[Kind], **how: Any) -> AsyncIterator[Kind]:
    """Open an empty page in a context of its own: `async with visiting_as(Visit, color_scheme="dark")`.

    The context begins without cookies and storage, and is closed at the end.
    """
    async with connected_browser() as browser:
        size = {"width": 1100, "height": 860}
        context = await browser.new_context(**{"viewport": size, "locale": "en-GB", **how})
        try:
            visit = kind(await context.new_page())
            visit.watch()
            yield visit
        finally:
            await context.close()


async def check_looks(visit: BrowserVisit, *, keep: str = "") -> None:
    """Look at the state that the page shows now: wide and narrow, light and dark.

    axe has no violation and nothing is wider than the page. With the environment's `SHOTS=FOLDER`,
    pictures `<keep>-<width>-<scheme>.png` of it stay there. The context needs `bypass_csp=True`.
    """
    page, size = visit.page, visit.page.viewport_size
    assert size is not None
    before: Any = (
        "dark" if await page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") else "light"
    )
    if not await page.evaluate("'axe' in window"):
        folder = await asyncio.to_thread(node_modules)
        await page.add_script_tag(path=folder / "node_modules" / "axe-core" / "axe.min.js")
    try:
        for width, scheme in LOOKS:
            await page.set_viewport_size({"width": width, "height": 844})
            await _show(visit, scheme)
            await _check_look(visit, width, scheme, keep)
    finally:
        await page.set_viewport_size(size)
        await _show(visit, before)


async def _show(visit: BrowserVisit, scheme: Any) -> None:
    # A transition between two schemes has contrasts of neither.
    await visit.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    await visit.page.evaluate(
        "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )


async def _check_look(visit: BrowserVisit, width: int, scheme: str, keep: str) -> None:
    page, look = visit.page, f"{keep} {width} {scheme}"
    if SHOTS and keep:
        picture = Path(SHOTS) / f"{keep}-{width}-{scheme}.png"
        await page.screenshot(path=picture, animations="disabled", full_page=True)
    widest = await page.evaluate(_WIDEST)
    assert widest[0] <= width, f"{look}: {widest}"
    outcome = await page.evaluate(
        "only => axe.run(only ? { runOnly: [only] } : {})", _rules(width, scheme)
    )
    violations = [
        (rule["id"], node["html"], node["failureSummary"])
        for rule in outcome["violations"]
        for node in rule["nodes"]
    ]
    assert not violations, f"{look}: {violations}"


def _rules(width: int, scheme: str) -> str | None:
    """Each width is checked whole in one scheme: the other one differs from it in colours alone."""
    return None if (width, scheme) in LOOKS[:2] else "color-contrast"


_WIDEST: Final = """() => {
    const edge = document.documentElement.clientWidth + 1;
    const all = [...document.body.querySelectorAll("*")];
    const wider = all.find(one => one.getBoundingClientRect().right > edge);
    return [document.documentElement.scrollWidth, wider?.outerHTML.slice(0, 200)];
}"""
"""How wide the page is, and for the message an element that reaches beyond its edge."""
