"""Where files come from: folders, drops, pastes, the keyboard; and where they go."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import FileChooser, expect

from tests.conftest import StartGateway
from tests.integration.console.upload.visits import visiting_uploads, write_files
from tests.support.harness import files_below, wait_until

pytestmark = pytest.mark.slow

MOST_ELEMENTS = 900

TRANSFER = """([type, files]) => {
    const data = new DataTransfer();
    for (const [name, text] of files) data.items.add(new File([text], name, { type: "image/png" }));
    const init = { bubbles: true, cancelable: true };
    if (type === "paste") {
        return dispatchEvent(new ClipboardEvent("paste", { ...init, clipboardData: data }));
    }
    dispatchEvent(new DragEvent("dragenter", { ...init, dataTransfer: data }));
    const veil = document.querySelector(".veil").textContent;
    dispatchEvent(new DragEvent("drop", { ...init, dataTransfer: data }));
    return veil;
}"""


async def test_of_a_folder_with_2000_files_few_are_in_the_page(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    for part in range(4):
        write_files(tmp_path / f"trip/day-{part}", [200 + part] * 500)
    async with visiting_uploads() as visit:
        await visit.open(gateway.url)
        await visit("#to-folder").fill("2026")
        await visit.slow(100_000)
        await visit.add(tmp_path / "trip", into="#choose-folder")
        await expect(visit(".upload-section", has_text="On the way")).to_contain_text("more")
        await expect(visit(".summary h2")).to_contain_text("of 2,000 files stored")
        elements = "document.querySelectorAll('*').length"
        assert await visit.page.evaluate(elements) < MOST_ELEMENTS
        await expect(visit(".upload[data-state=stored]")).to_have_count(20)
        assert await visit.page.evaluate(elements) < MOST_ELEMENTS
        await visit.press("Pause all")
        await visit.headline("Paused")
        await visit.press("Cancel all")
        await visit.page.get_by_role("button", name="Cancel the uploads").click()
        await expect(visit(".summary h2")).to_contain_text("files are stored")
    names = {str(Path(name).parent) for name in files_below(tmp_path / "data/upload")}
    assert names <= {f"2026/trip/day-{part}" for part in range(4)}
    assert names


async def test_files_are_dropped_and_pasted_anywhere(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    async with visiting_uploads() as visit:
        await visit.open(gateway.url, "/?folder=/upload/from-link/")
        told = await visit.page.evaluate(TRANSFER, ["drop", [["a.png", "a"], ["b.png", "b"]]])
        assert told == "Drop them to upload into /upload/from-link/"
        await visit.headline("All 2 files are stored")
        await expect(visit(".veil")).to_be_hidden()
        await visit.page.evaluate(TRANSFER, ["paste", [["image.png", "c"]]])
        await visit.headline("All 3 files are stored")
    stored = files_below(tmp_path / "data/upload/from-link")
    assert {stored.pop("a.png"), stored.pop("b.png")} == {b"a", b"b"}
    [(name, body)] = stored.items()
    assert (name.startswith("pasted-"), body) == (True, b"c")


async def test_what_the_path_of_uploads_needs_is_asked_for(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(
        file_upload_api_path="/files/{team}/{filename}", stored_path="/upload/{team}/{filename}"
    )
    async with visiting_uploads() as visit:
        await visit.open(gateway.url)
        await visit.press("Add files")
        await expect(visit("#variable-team")).to_be_focused()
        await visit("#variable-team").fill("red team")
        write_files(tmp_path / "trip/day", [5])
        await visit.add(tmp_path / "trip", into="#choose-folder")
        await visit.headline("1 file is stored")
    assert list(files_below(tmp_path / "data/upload")) == ["red team/trip_day_file-000.bin"]


async def test_the_page_is_used_by_the_keyboard_alone(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    write_files(tmp_path / "mine", [6_000_000])
    async with visiting_uploads() as visit:
        await visit.open(gateway.url)
        await visit.slow(200_000)
        press = visit.page.keyboard.press
        await visit.tab_to("#add-files")
        choosers: list[FileChooser] = []
        visit.page.on("filechooser", lambda chooser: choosers.append(chooser))
        await visit.page.evaluate("0")  # playwright begins to look for them with a request of its own
        await press("Enter")
        await wait_until(lambda: choosers)
        await choosers[0].set_files(tmp_path / "mine/file-000.bin")
        pause = visit.page.get_by_role("button", name="Pause file-000.bin")
        await expect(pause).to_be_visible()
        await visit.tab_to("[aria-label='Pause file-000.bin']")
        await press("Space")
        await expect(visit("[aria-label='Go on with file-000.bin']")).to_be_focused()
        await press("Space")
        await expect(pause).to_be_focused()
        await press("Tab")
        await expect(visit("[aria-label='Cancel file-000.bin']")).to_be_focused()
        await press("Enter")
        await expect(visit("#add-files")).to_be_focused()
        await expect(visit("#announcement")).to_contain_text("file")
    assert files_below(tmp_path / "data/upload") == {}
