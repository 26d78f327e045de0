"""Forms in a real browser: plain ones, of scripts, signed ones, and those of pages that may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import FilePayload, Response

from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.integration.photos.browser import Visit
from tests.integration.uploads.test_foreign_page import serving_page, visiting_page
from tests.support.harness import files_below

pytestmark = pytest.mark.slow

ONE: FilePayload = {"name": "é one.txt", "mimeType": "text/plain", "buffer": b"one"}
TWO: FilePayload = {"name": "two.bin", "mimeType": "", "buffer": b"2" * 2_000_000}

FORM = """<!doctype html>
<form method="post" enctype="multipart/form-data" action="{action}">
{hidden}<input name="title" value="Zürich">
<input type="file" name="file" multiple>
<input type="file" name="another">
<button name="submit" value="Send">Send</button>
</form>"""

POST_FILES = """async ([url, fields]) => {
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    form.append("file", new File(["one"], "é one.txt", { type: "text/plain" }));
    if (!url.endsWith("/")) return await send(url, form);
    form.append("file", new Blob(["x".repeat(3_000_000)]));
    return await send(url, form);

    async function send(url, body) {
        try {
            const response = await fetch(url, { method: "POST", body });
            return [response.status, await response.json()];
        } catch (error) { return [0, error.name]; }
    }
}"""


def hidden(fields: dict[str, str]) -> str:
    return "".join(
        f'<input type="hidden" name="{name}" value="{value}">' for name, value in fields.items()
    )


async def submit(visit: Visit, action: str, *files: FilePayload, **fields: str) -> Response:
    """Fill in a form as a person does; return the response that the browser shows."""
    await visit.page.set_content(FORM.format(action=action, hidden=hidden(fields)))
    await visit("input[name=file]").set_input_files(list(files))
    async with visit.page.expect_navigation() as navigation:
        await visit("button").click()
    response = await navigation.value
    assert response is not None
    return response


async def sign_form(gateway: Gateway, path: str) -> tuple[str, dict[str, str]]:
    form: Any = await gateway.resources.plugins.services.sign_url("POST", path, once=True)
    return form["url"], form["fields"]


async def test_a_plain_form_stores_its_files_and_leads_back(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    async with serving_page() as origin, visiting_page(origin) as visit:
        gateway = await start_gateway(auth="none", cors_origins=[origin])
        shown = await submit(visit, f"{gateway.url}/upload/in/", ONE, TWO, redirect=f"{origin}/thanks")
        assert (shown.status, shown.url) == (200, f"{origin}/thanks")
    assert files_below(tmp_path / "data/upload/in") == {"é one.txt": b"one", "two.bin": TWO["buffer"]}
    stat = await gateway.resources.scripts.files.stat("/upload/in/é one.txt")
    assert stat.metadata == {"title": "Zürich"}


async def test_a_plain_form_without_a_redirect_shows_what_was_stored(
    start_gateway: StartGateway,
) -> None:
    async with serving_page() as origin, visiting_page(origin) as visit:
        gateway = await start_gateway(auth="none", cors_origins=[origin])
        shown = await submit(visit, f"{gateway.url}/upload/in/", ONE)
        assert shown.status == 201
        assert (await shown.json())["unused_fields"] == ["submit"]
        shown = await submit(visit, f"{gateway.url}/upload/in/")
        assert (shown.status, "no file" in await shown.text()) == (400, True)


async def test_a_script_posts_files_and_reads_the_answer(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    async with serving_page() as origin, visiting_page(origin) as visit:
        gateway = await start_gateway(auth="none", cors_origins=[origin], max_bytes="2000000")
        url = f"{gateway.url}/upload/in/"
        status, answer = await visit.page.evaluate(POST_FILES, [url, {"title": "Sunrise"}])
    assert status == 207
    first, second = answer["uploads"]
    assert (first["status"], first["path"]) == (201, "/upload/in/é one.txt")
    assert (second["status"], second["filename"]) == (413, "blob")
    assert files_below(tmp_path / "data/upload/in") == {"é one.txt": b"one"}


async def test_a_page_that_is_not_named_posts_no_form(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    async with serving_page() as origin, visiting_page(origin) as visit:
        gateway = await start_gateway(auth="none", cors_origins=["https://app.example"])
        shown = await submit(visit, f"{gateway.url}/upload/in/", ONE)
        assert shown.status == 403
        await visit.page.goto(origin)
        assert await visit.page.evaluate(POST_FILES, [f"{gateway.url}/upload/in/", {}]) == [
            0,
            "TypeError",
        ]
    assert files_below(tmp_path / "data/upload") == {}


async def test_a_page_that_is_not_named_uses_a_signed_form(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    async with serving_page() as origin, visiting_page(origin) as visit:
        gateway = await start_gateway(auth="token")
        form = list(await sign_form(gateway, "/upload/by-script"))
        assert (await visit.page.evaluate(POST_FILES, form))[0] == 201
        status, answer = await visit.page.evaluate(POST_FILES, form)
        assert (status, answer["error"]) == (403, "used_up")
        url, fields = await sign_form(gateway, "/photos/by-form")
        await visit.page.set_content(
            FORM.format(action=url, hidden=hidden(fields)).replace('name="title"', "disabled")
        )
        await visit("input[name=file]").set_input_files([TWO])
        async with visit.page.expect_navigation() as navigation:
            await visit("button").click()
        shown = await navigation.value
        assert shown is not None
        assert shown.status == 201
    assert (tmp_path / "data/upload/by-script").read_bytes() == b"one"
    assert (tmp_path / "data/photos/by-form").read_bytes() == TWO["buffer"]
