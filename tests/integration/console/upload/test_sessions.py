"""A session ends in the middle of uploads: nothing is lost, and nothing is shown to somebody else."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import expect

from gateway.auth.tokens import token_digest
from tests.conftest import StartGateway
from tests.integration.console.upload.visits import UploadVisit, visiting_uploads, write_files
from tests.support.browser import check_looks
from tests.support.harness import files_below, get, wait_until

pytestmark = pytest.mark.slow

TOKENS = [f"{name}:{token_digest(f'secret-{name}')}" for name in ("alice", "bob")]


async def sign_in(visit: UploadVisit, url: str, name: str) -> None:
    answer = await visit.page.request.post(f"{url}/-/session", data={"token": f"secret-{name}"})
    assert answer.ok


async def test_uploads_wait_for_who_signs_in_again(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway(auth="token", tokens=TOKENS)
    files = write_files(tmp_path / "mine", [1_000] + [1_000_000] * 11)
    async with visiting_uploads(bypass_csp=True) as visit:
        await sign_in(visit, gateway.url, "alice")
        await visit.open(gateway.url)
        await visit.slow(800_000)
        await visit.add(*(tmp_path / "mine" / name for name in files))
        await expect(visit(".upload[data-state=stored]").first).to_be_visible()
        assert (await visit.page.request.delete(f"{gateway.url}/-/session")).ok
        await expect(visit(".call h2").first).to_have_text("Your session has ended")
        await expect(visit("#sign-in-token")).to_be_focused()
        await expect(visit(".upload-state", has_text="Waits for you to sign in").first).to_be_visible()
        await check_looks(visit, keep="upload-signed-out")
        await visit.page.keyboard.type("wrong")
        await visit.page.keyboard.press("Enter")
        await expect(visit(".call .fault")).to_have_text("This token is not valid.")
        await visit("#sign-in-token").fill("secret-alice")
        await visit.slow(0)
        await visit.page.keyboard.press("Enter")
        await visit.headline("All 12 files are stored")
        await expect(visit(".call").first).to_be_hidden()
        rows = (await get(gateway, "/-/uploads", "Authorization: Bearer secret-alice")).json["uploads"]
        stored = [row for row in rows if row["state"] == "stored"]
        assert [row["principal"]["name"] for row in stored] == ["alice"] * 12
    assert files_below(tmp_path / "data/upload") == files


async def test_what_is_cancelled_after_the_session_has_ended_is_removed_after_the_next_sign_in(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="token", tokens=TOKENS)
    write_files(tmp_path / "mine", [5_000_000])
    partials = tmp_path / "data/.gateway/partials"
    async with visiting_uploads() as visit:
        await sign_in(visit, gateway.url, "alice")
        await visit.open(gateway.url)
        await visit.slow(500_000)
        await visit.add(tmp_path / "mine/file-000.bin")
        await wait_until(lambda: files_below(partials))
        await visit.press("Pause file-000.bin")
        assert (await visit.page.request.delete(f"{gateway.url}/-/session")).ok
        await visit.press("Cancel file-000.bin")
        await expect(visit(".call h2").first).to_have_text("Your session has ended")
        assert files_below(partials)
        await visit("#sign-in-token").fill("secret-alice")
        await visit.page.keyboard.press("Enter")
        await wait_until(lambda: not files_below(partials))
    assert files_below(tmp_path / "data/upload") == {}


async def test_what_one_person_has_not_finished_is_not_shown_to_another(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="token", tokens=TOKENS)
    write_files(tmp_path / "mine", [5_000_000])
    async with visiting_uploads() as visit:
        await sign_in(visit, gateway.url, "alice")
        await visit.open(gateway.url)
        await visit.slow(500_000)
        await visit.add(tmp_path / "mine/file-000.bin")
        await visit.press("Pause file-000.bin")
        left = visit(".call", has_text="of an earlier visit")
        for name, count in (("bob", 0), ("alice", 1)):
            await sign_in(visit, gateway.url, name)
            await visit.page.reload()
            await expect(visit("#add-files")).to_be_visible()
            await expect(visit("#bar")).to_contain_text(name)
            await expect(visit(".upload-page[aria-busy]")).to_have_count(0)
            await expect(left.and_(visit(".call:not([hidden])"))).to_have_count(count)
