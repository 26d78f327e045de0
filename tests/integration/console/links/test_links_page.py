"""The page `/-/links`: operators make links, see what came through them, and end them."""

from __future__ import annotations

import io

import pytest
import zxingcpp
from PIL import Image
from playwright.async_api import expect

from tests.conftest import StartGateway
from tests.integration.console.links.visits import visiting
from tests.support.browser import check_looks

pytestmark = pytest.mark.slow


async def test_a_link_is_made_and_shown_once_with_a_code_that_leads_to_it(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(auth="none")
    async with visiting(bypass_csp=True) as visit:
        await visit.page.goto(f"{gateway.url}/-/links")
        await expect(visit(".empty")).to_contain_text("No links here")
        await check_looks(visit, keep="links-empty")
        await visit.page.get_by_role("button", name="New drop link").click()
        dialog = visit.page.get_by_role("dialog")
        await dialog.get_by_label("Folder").fill("/elsewhere/")
        await dialog.get_by_role("button", name="Make the link").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("no upload path of this gateway leads")
        await dialog.get_by_label("Folder").fill("/upload/inbox/")
        await dialog.get_by_label("Files in all").fill("20")
        await dialog.get_by_label("Size in all").fill("5 GB")
        await dialog.get_by_label("Password").fill("pass word")
        await check_looks(visit, keep="links-form")
        await dialog.get_by_role("button", name="Make the link").click()
        await expect(dialog).to_contain_text("It is shown only now")
        url = await dialog.get_by_label("The link", exact=True).input_value()
        assert url.startswith(f"{gateway.url}/-/drop#ugl_")
        await expect(dialog).to_contain_text("Asks for its password")
        await check_looks(visit, keep="links-shown")
        code = await dialog.get_by_role("img", name="The link as a QR code").screenshot()
        assert [found.text for found in zxingcpp.read_barcodes(Image.open(io.BytesIO(code)))] == [url]
        await visit.take("link-dialog")
        await dialog.get_by_role("button", name="Done").click()
        row = visit("tbody tr")
        await expect(row).to_contain_text("/upload/inbox/")
        await expect(row).to_contain_text("0 of 20 files")
        await expect(row).to_contain_text("with a password")
        assert url not in await visit.page.content()
        await check_looks(visit, keep="links-list")


async def test_a_link_is_revoked_after_a_question(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="none")
    async with visiting(bypass_csp=True) as visit:
        await visit.page.goto(f"{gateway.url}/-/links")
        await visit.page.get_by_role("button", name="New share link").click()
        await visit.page.get_by_label("Folder").fill("/upload/<img src=x onerror=alert(1)>/")
        await visit.page.get_by_role("button", name="Make the link").click()
        await visit.page.get_by_role("button", name="Done").click()
        await expect(visit("tbody tr")).to_contain_text("<img src=x onerror=alert(1)>")
        await visit.page.get_by_role("button", name="Revoke").click()
        await expect(visit("dialog")).to_contain_text("It ends at once")
        await check_looks(visit, keep="links-revoke")
        await visit("dialog").get_by_role("button", name="Revoke the link").click()
        await expect(visit(".empty")).to_be_visible()
        await visit.page.get_by_label("Show").select_option("revoked")
        await expect(visit("tbody tr .tag")).to_have_text("Revoked")
        assert visit.said == []
