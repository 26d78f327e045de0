"""The page `/-/drop`: another person, with a link and nothing else, sends files."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from playwright.async_api import Route, expect

from tests.conftest import StartGateway
from tests.integration.console.links.visits import visiting
from tests.support.browser import check_looks
from tests.support.links import TOKENS, make_link

pytestmark = pytest.mark.slow

PHONE = {"viewport": {"width": 390, "height": 844}, "bypass_csp": True}


async def test_a_person_with_a_drop_link_sends_files_and_sees_nothing_else(
    start_gateway: StartGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    gateway = await start_gateway(auth="token", tokens=TOKENS)
    link = await make_link(gateway, "drop", "/upload/Holiday photos/", max_files=3, max_bytes="5M")
    async with visiting(**PHONE) as visit:
        await visit.page.goto(link.url)
        await expect(visit("h2").first).to_have_text("Send files to Holiday photos")
        await expect(visit(".facts-of-link")).to_contain_text("3 more files may be sent")
        assert await visit("nav").count() == 0
        assert await visit(".bar a[href]").count() == 0
        await check_looks(visit, keep="drop-open")
        await visit.take("drop-phone")
        await visit.choose(("beach.jpg", b"one" * 1000), ("<img src=x onerror=alert(1)>.txt", b"two"))
        await expect(visit(".thanks")).to_contain_text("Thank you")
        await expect(visit(".facts-of-link")).to_contain_text("1 more file may be sent")
        await expect(visit(".upload-list")).to_contain_text("<img src=x onerror=alert(1)>.txt")
        await check_looks(visit, keep="drop-done")
        await visit.choose(("beach.jpg", b"another"))
        await expect(visit(".facts-of-link")).to_contain_text("This link is full")
        await expect(visit(".chooser")).to_be_hidden()
        await check_looks(visit, keep="drop-full")
        assert visit.said == []
    folder = tmp_path / "data" / "upload" / "Holiday photos"
    assert (folder / "beach.jpg").read_bytes() == b"one" * 1000
    assert (folder / "beach-1.jpg").read_bytes() == b"another"
    row = await link.row()
    assert (row["files"], row["bytes"]) == (3, 3000 + 3 + 7)
    assert link.secret not in repr([vars(record) for record in caplog.records])


async def test_what_does_not_fit_is_refused_before_a_byte_with_what_is_left(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(auth="token", tokens=TOKENS)
    link = await make_link(gateway, "drop", "/upload/in/", max_bytes=1000)
    async with visiting(**PHONE) as visit:
        held = asyncio.Event()

        async def hold(route: Route) -> None:
            await held.wait()
            await route.continue_()

        await visit.page.route("**/upload/**", hold)
        await visit.page.goto(link.url)
        await visit.choose(("large.bin", b"x" * 1001), ("small.bin", b"x" * 10))
        await expect(visit(".upload[data-state=failed]")).to_contain_text("1 kB may still be sent")
        await expect(visit(".upload[data-state=sending]")).to_contain_text("small.bin")
        await check_looks(visit, keep="drop-busy")
        held.set()
        await expect(visit(".upload[data-state=stored]")).to_contain_text("small.bin")
    assert (await link.row())["bytes"] == 10


async def test_the_password_is_asked_for_and_survives_a_reload(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="token", tokens=TOKENS)
    link = await make_link(gateway, "drop", "/upload/in/", password="correct horse")
    async with visiting(**PHONE) as visit:
        await visit.page.goto(link.url)
        await expect(visit("h2")).to_have_text("This link has a password")
        await expect(visit("main")).not_to_contain_text("Send files to")
        await check_looks(visit, keep="drop-password")
        await visit("#link-password").fill("wrong")
        await visit.page.keyboard.press("Enter")
        await expect(visit("#password-fault")).to_have_text("This is not the password.")
        await check_looks(visit, keep="drop-wrong")
        await visit("#link-password").fill("correct horse")
        await visit.page.keyboard.press("Enter")
        await expect(visit("h2").first).to_have_text("Send files to in")
        await visit.page.reload()
        await expect(visit("h2").first).to_have_text("Send files to in")
        await visit.choose(("a.txt", b"text"))
        await expect(visit(".thanks")).to_be_visible()


async def test_a_link_that_ends_says_so_in_words_and_keeps_what_was_sent(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(auth="token", tokens=TOKENS)
    link = await make_link(gateway, "drop", "/upload/in/")
    async with visiting(**PHONE) as visit:
        await visit.page.goto(link.url)
        await visit.choose(("a.txt", b"text"))
        await expect(visit(".thanks")).to_be_visible()
        await link.revoke()
        await visit.choose(("b.txt", b"text"))
        await expect(visit(".guest-card")).to_contain_text("This link has ended")
        await expect(visit(".upload[data-state=stored]")).to_contain_text("a.txt")
        await check_looks(visit, keep="drop-revoked")
        await visit.page.reload()
        await expect(visit(".guest-card")).to_contain_text("This link has ended")
        await expect(visit("main")).not_to_contain_text("Send files")
        await check_looks(visit, keep="drop-ended")
        await visit.page.goto(link.url[:-4])  # the page begins anew where its link is another one
        await expect(visit(".guest-card")).to_contain_text("This link is not whole")
