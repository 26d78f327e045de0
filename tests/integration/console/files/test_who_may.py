"""Who sees what: operators all files, uploaders what lists give them, nobody what is switched off."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from playwright.async_api import expect

from gateway.auth.api_keys import ApiKey, KeyScope, new_api_key
from gateway.auth.key_store import KeyStore
from gateway.auth.tokens import token_digest
from tests.conftest import StartGateway
from tests.integration.console.files.visits import store, visiting_files
from tests.support.browser import check_looks
from tests.support.harness import put, write_plugin

pytestmark = pytest.mark.slow

TOKENS = [f"alice:{token_digest('secret-alice')}"]
MARKUP = "<b>bold</b>"

OWN_FOLDER = """
name: ownFolder
event: APIGW.OnFileListing
authorization: keep
script: |
  async def ownFolder(event, handle):
      if event["path"] != "/upload/" or event["recursive"]:
          await handle.terminate(code=403, output={"error": "forbidden", "message": "not yours"})
"""


async def test_an_operator_sees_and_removes_files_without_the_switches(
    start_gateway: StartGateway, upload: Path
) -> None:
    gateway = await start_gateway(auth="token", tokens=TOKENS)
    token = {"X-Auth-Token": "secret-alice"}
    lines = ("X-Auth-Token: secret-alice", f"X-Amz-Meta-Note: {MARKUP}")
    assert (await put(gateway, "/upload/a/b.txt", b"x", *lines)).status == 201
    store(upload.parent, "reports/outside.txt")
    async with visiting_files(extra_http_headers=token) as visit:
        await visit.go(gateway, path="/upload/a/")
        await visit.link("b.txt").click()
        facts = visit.panel.locator(".facts")
        await expect(facts).to_contain_text(f"X-Amz-Meta-note{MARKUP}")
        await expect(facts.locator("b")).to_have_count(0)
        await expect(visit.panel).to_contain_text("need the setting --downloads")
        await visit.panel.get_by_role("button", name="Delete").click()
        await visit("dialog[open]").get_by_role("button", name="Delete 1 file").click()
        await expect(visit(".empty h3")).to_have_text("This folder is empty.")
        assert not (upload / "a" / "b.txt").exists()
        await visit.page.get_by_role("button", name="Share link").click()
        await expect(visit("dialog[open] [name=folder]")).to_have_value("/upload/a/")
        await visit("dialog[open]").get_by_role("button", name="Make the link").click()
        await expect(visit("dialog[open] h2")).to_have_text("A share link for /upload/a/")
        await visit.press("Escape")
        await expect(visit.page.get_by_role("button", name="Share link")).to_be_focused()
        await visit.go(gateway, path="/", search="OUT")
        await visit.shows(["reports/outside.txt"])
        await visit.go(gateway, path="/.gateway/")
        await expect(visit(".failure")).to_be_visible()
        await expect(visit.rows).to_have_count(0)


async def test_an_uploader_sees_what_its_list_gives_and_no_more(
    start_gateway: StartGateway, upload: Path, tmp_path: Path
) -> None:
    store(upload, "secret/plans.txt", "mine.txt")
    folder = write_plugin(tmp_path / "p", OWN_FOLDER)
    gateway = await start_gateway(listing=True, auth="token", tokens=TOKENS, plugins=[str(folder)])
    secret = new_api_key()
    keys = KeyStore(tmp_path / "data" / ".gateway")
    keys.create(ApiKey("bob", KeyScope(None, ()), None, None, time.time(), None), token_digest(secret))
    async with visiting_files() as visit:
        await visit.go(gateway)
        await visit.page.wait_for_url("**/-/session?return=%2F-%2Ffiles*")
        signed_in = await visit.page.request.post(f"{gateway.url}/-/session", data={"token": secret})
        assert signed_in.ok
        await visit.go(gateway)
        await visit.shows(["secret", "mine.txt"])
        await visit.link("secret").click()
        await expect(visit(".failure")).to_contain_text("Not yours")
        await expect(visit.rows).to_have_count(0)
        await visit.go(gateway, search="plans")
        await expect(visit(".failure")).to_contain_text("Not yours")
        await visit.go(gateway)
        await visit.link("mine.txt").click()
        await expect(visit.panel.get_by_role("button", name="Delete")).to_have_count(0)
        await visit.press("Escape")
        await expect(visit.page.get_by_role("button", name="Drop link")).to_have_count(0)


async def test_the_folders_of_another_upload_path_have_its_addresses(
    start_gateway: StartGateway, upload: Path
) -> None:
    store(upload, "a b/c/file.txt")
    template = "/in/{filepath}"
    gateway = await start_gateway(listing=True, downloads=True, file_upload_api_path=template)
    async with visiting_files() as visit:
        await visit.go(gateway)
        await visit.link("a b").click()
        await visit.link("c").click()
        await visit.link("file.txt").click()
        await expect(visit.panel.locator("pre")).to_have_text("a b/c/file.txt")
        assert visit.page.url.endswith("?path=/in/a+b/c/&file=file.txt")
        await visit.press("Escape")
        await visit(".files-crumbs a").last.click()
        await expect(visit.link("c")).to_be_focused()
        assert visit.said == []


async def test_without_the_switch_the_page_says_how_to_list_files(
    start_gateway: StartGateway, upload: Path
) -> None:
    store(upload, "a")
    gateway = await start_gateway()
    async with visiting_files(bypass_csp=True) as visit:
        await visit.go(gateway)
        await expect(visit("main pre")).to_have_text("gateway --listing --downloads")
        await check_looks(visit, keep="off")
        assert visit.said == []
