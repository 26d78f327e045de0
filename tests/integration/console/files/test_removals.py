"""Removals: asked for, of the version that was seen, and told where one fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.conftest import StartGateway
from tests.integration.console.files.visits import store, visiting_files
from tests.support.browser import check_looks
from tests.support.harness import write_plugin

pytestmark = pytest.mark.slow

KEEPS = """
name: keeps
event: APIGW.OnFileDeleting
script: |
  async def keeps(event, handle):
      if event["path"].endswith("kept"):
          await handle.terminate(code=403, output={"error": "forbidden", "message": "this one is kept"})
"""


async def test_files_are_removed_after_a_question_unless_they_have_changed_since(
    start_gateway: StartGateway, upload: Path, tmp_path: Path
) -> None:
    names = ["changed", "gone", "kept", *(f"{number:02}" for number in range(20))]
    store(upload, *names, "folder/below")
    folder = write_plugin(tmp_path / "p", KEEPS)
    gateway = await start_gateway(listing=True, deletes=True, plugins=[str(folder)])
    async with visiting_files(bypass_csp=True) as visit:
        await visit.go(gateway)
        await expect(visit(".files-summary")).to_contain_text("1 folder · 23 files")
        await visit(".files-header input").check()
        await visit(".files-bar").get_by_role("button", name="Delete").click()
        question = visit("dialog[open]")
        await expect(question).to_contain_text("Delete 23 files?")
        await expect(question).to_contain_text("and 18 more")
        await expect(question).to_contain_text("Folders that are selected stay.")
        await check_looks(visit, keep="question")
        await question.get_by_role("button", name="Cancel").click()
        assert len(list(upload.iterdir())) == 24
        (upload / "changed").write_bytes(b"something newer")
        (upload / "gone").unlink()
        await visit(".files-bar").get_by_role("button", name="Delete").click()
        await question.get_by_role("button", name="Delete 23 files").click()
        await expect(visit(".files-report")).to_contain_text("20 files deleted.")
        told = visit(".files-failures li")
        await expect(told).to_have_count(3)
        await expect(told.filter(has_text="changed")).to_contain_text("has changed since it was listed")
        await expect(told.filter(has_text="gone")).to_contain_text("It was gone already.")
        await expect(told.filter(has_text="You may")).to_contain_text("kept")
        await visit.shows(["folder", "changed", "kept"])
        assert sorted(path.name for path in upload.iterdir()) == ["changed", "folder", "kept"]
        await check_looks(visit, keep="report")
        await visit.page.get_by_role("button", name="Refresh").click()
        await expect(visit.row("changed")).to_contain_text("15 B")
        await visit.press("Escape")
        await visit.link("changed").focus()
        await visit.press("Escape", "Delete", "Tab", "Shift+Tab")
        await question.get_by_role("button", name="Delete 1 file").press("Enter")
        await visit.shows(["folder", "kept"])
        await expect(visit.link("kept")).to_be_focused()


async def test_a_file_is_removed_from_its_details(start_gateway: StartGateway, upload: Path) -> None:
    store(upload, "a", "b")
    gateway = await start_gateway(listing=True, deletes=True)
    async with visiting_files() as visit:
        await visit.go(gateway, file="a")
        await expect(visit.panel).to_contain_text("Previews and downloads need the setting --downloads.")
        await visit.panel.get_by_role("button", name="Delete").click()
        await visit("dialog[open]").get_by_role("button", name="Delete 1 file").click()
        await visit.shows(["b"])
        await expect(visit.link("b")).to_be_focused()
        assert visit.said == []
