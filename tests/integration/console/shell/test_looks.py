"""The theme of an operator, and pages below a prefix of a proxy, as docs/how-to shows both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import expect

from tests.integration.console.shell.visits import PHONE, visiting
from tests.support import PROJECT
from tests.support.browser import check_looks
from tests.support.harness import put, wait_until
from tests.support.routing.identity_nginx import identity_nginx
from tests.support.routing.scripted import Serve
from tests.unit.docs.test_docs import shown

pytestmark = pytest.mark.slow

HOW_TO: Final = PROJECT / "docs/how-to"

FOREIGN: Final = """
@import url("https://foreign.example/a.css");
@font-face { font-family: theirs; src: url("https://foreign.example/a.woff2"); }
body { font-family: theirs; background: url("https://foreign.example/a.png"); }
"""


async def test_the_theme_of_the_docs_changes_every_page(serve: Serve, tmp_path: Path) -> None:
    [css] = re.findall(
        r"<<'END'\n(.*?)^END$", (HOW_TO / "theme.md").read_text(), re.DOTALL | re.MULTILINE
    )
    (tmp_path / "theme.css").write_text(css)
    gateway = await serve(auth="none", web_theme=str(tmp_path / "theme.css"))
    async with visiting(bypass_csp=True) as visit:
        for path in ("/", "/-/", "/-/docs"):
            await visit.page.goto(gateway.url + path)
            await expect(visit("#bar nav")).to_be_visible()
            focused = visit("#bar h1 a")
            for scheme, accent in (("light", "rgb(29, 107, 69)"), ("dark", "rgb(127, 214, 166)")):
                await visit.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
                color = "element => getComputedStyle(element).color"
                link = await visit.page.evaluate_handle(
                    "document.body.appendChild(Object.assign(document.createElement('a'), {href: '#'}))"
                )
                assert await link.evaluate(color) == accent
                await link.evaluate("element => element.remove()")
                logo = "element => getComputedStyle(element, '::before').backgroundImage"
                assert "data:image/svg+xml" in await focused.evaluate(logo)
            await visit.page.emulate_media(color_scheme="light")
            await check_looks(visit, keep=f"theme{path.replace('/', '-')}")
        await visit.page.goto(f"{gateway.url}/")
        await expect(visit.page.get_by_role("button", name="Add files")).to_be_visible()
        await visit.take("theme")
        assert visit.said == []


async def test_a_theme_fetches_nothing_from_elsewhere(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "theme.css").write_text(FOREIGN)
    gateway = await serve(auth="none", web_theme=str(tmp_path / "theme.css"))
    async with visiting() as visit:
        hosts: set[str] = set()
        visit.page.on("response", lambda response: hosts.add(response.url.split("/")[2]))
        await visit.page.goto(f"{gateway.url}/-/")
        await expect(visit("main h2")).to_have_text("Overview")
        await wait_until(lambda: len(visit.said) > 1)
        assert all("violates the following Content Security Policy" in text for text in visit.said)
        assert hosts == {gateway.url.removeprefix("http://")}


async def test_pages_work_below_a_prefix_that_a_proxy_takes_away(serve: Serve, tmp_path: Path) -> None:
    gateway = await serve(trusted_proxies="127.0.0.1", listing=True)
    [block] = shown(HOW_TO / "console.md", "nginx")
    location = block.text.replace("127.0.0.1:8080", "{}:{}".format(*gateway.address))
    with identity_nginx(tmp_path / "nginx", location) as origin:
        base = f"{origin}/files"
        async with visiting() as visit:
            await visit.page.goto(f"{base}/-/events")
            await visit.page.wait_for_url(f"{base}/-/session?return=%2Ffiles%2F-%2Fevents")
            await expect(visit("#bar h1")).to_be_visible()
        async with visiting("secret-alice", viewport=PHONE) as visit:
            urls: list[str] = []
            visit.page.on("request", lambda request: urls.append(request.url))
            await visit.page.goto(f"{base}/-/")
            await expect(visit("main")).to_contain_text(
                "No upload has ended lately."
            )  # the stream is open
            assert (
                await put(gateway, "/upload/a.txt", b"x", "X-Auth-Token: secret-alice")
            ).status == 201
            await visit.page.get_by_role("link", name="/upload/a.txt").click()
            await expect(visit.page).to_have_url(re.compile(re.escape(f"{base}/-/uploads/")))
            await expect(visit("main h2")).to_be_visible()
            await visit.page.get_by_role("button", name="Menu").click()
            await visit.page.get_by_role("link", name="Upload", exact=True).click()
            await expect(visit.page).to_have_url(f"{base}/")
            await visit("input[type=file]").first.set_input_files(
                {"name": "b.txt", "mimeType": "text/plain", "buffer": b"below the prefix"}
            )
            stored = gateway.resources.settings.directory / "upload/b.txt"
            await wait_until(stored.exists)
            assert stored.read_bytes() == b"below the prefix"
            assert [url for url in urls if not url.startswith(f"{base}/")] == []
            assert visit.said == []
