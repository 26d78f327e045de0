"""The bar in a real browser: pages by role, the account, the language; wide, narrow, by the keyboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Route, expect

from tests.integration.console.shell.visits import PHONE, visiting
from tests.support.browser import BrowserVisit, check_looks
from tests.support.harness import put
from tests.support.routing.scripted import Serve

pytestmark = pytest.mark.slow

OPERATOR = ["Upload", "Files", "Activity", "Events", "Plugins", "Links", "System", "API"]
HOSTILE = "<img src=x onerror=alert(1)> a very long name that does not end"
FRENCH = {
    "language": "Français",
    "Upload": "Envoyer",
    "Menu": "Menu",
    "Language: {name}": "Langue : {name}",
    "Overview": "Vue d’ensemble",
}


async def links(visit: BrowserVisit) -> list[str]:
    await expect(visit("#bar h1")).to_be_visible()
    return [await link.inner_text() for link in await visit("#bar nav a").all()]


async def answer_session(visit: BrowserVisit, **facts: Any) -> None:
    """Let the gateway say that another person is here."""

    async def answer(handled: Route) -> None:
        response = await handled.fetch(headers={**handled.request.headers, "accept": "application/json"})
        await handled.fulfill(response=response, body=json.dumps({**await response.json(), **facts}))

    await visit.page.route(lambda url: url.endswith("/-/session"), answer)


async def test_operators_have_all_pages_and_uploaders_theirs(serve: Serve) -> None:
    gateway = await serve()
    assert (await put(gateway, "/upload/a.txt", b"x", "X-Auth-Token: secret-alice")).status == 201
    async with visiting("secret-alice", bypass_csp=True) as visit:
        await answer_session(visit, principal={"name": HOSTILE, "kind": "oidc"})
        await visit.page.goto(f"{gateway.url}/-/")
        assert await links(visit) == OPERATOR
        for name in ("Activity", "Events"):
            await visit.page.get_by_role("link", name=name, exact=True).click()
            await expect(visit("#bar nav [aria-current=page]")).to_have_text(name)
        await visit.page.goto(f"{gateway.url}/-/")
        account = visit.page.get_by_role("button", name="Account: ")
        await account.click()
        await expect(visit(".panel:visible")).to_contain_text(HOSTILE)
        await expect(visit(".panel:visible")).to_contain_text("Operator")
        await check_looks(visit, keep="bar-account")
        await visit("main").click(position={"x": 5, "y": 5})
        await expect(visit(".panel:visible")).to_have_count(0)
        assert visit.said == []
    async with visiting("secret-alice") as visit:
        person = {"name": "robin", "kind": "key"}
        await answer_session(visit, role="uploader", principal=person, signed_in=True)
        await visit.page.goto(f"{gateway.url}/-/")
        await expect(visit.page).to_have_url(f"{gateway.url}/")
        assert await links(visit) == ["Upload", "Activity", "API"]
        await visit.page.goto(f"{gateway.url}/-/events")
        await expect(visit("main")).to_contain_text("This page is for operators")
        await visit.page.get_by_role("button", name="Account: robin").click()
        await expect(visit.page.get_by_role("button", name="Sign out")).to_be_visible()


async def test_who_is_not_signed_in_is_led_to_the_page_for_that_and_back(serve: Serve) -> None:
    gateway = await serve()
    async with visiting() as visit:
        await visit.page.goto(f"{gateway.url}/-/events?state=dead#x")
        await visit.page.wait_for_url("**/-/session?return=%2F-%2Fevents%3Fstate%3Ddead%23x")
        assert await links(visit) == []
        await visit.page.goto(f"{gateway.url}/-/docs")
        await expect(visit.page.get_by_role("link", name="Sign in")).to_have_attribute(
            "href", f"{gateway.url}/-/session?return=%2F-%2Fdocs"
        )


async def test_the_language_is_that_of_the_browser_or_the_chosen_one(
    serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "languages").mkdir()
    (tmp_path / "languages/fr.json").write_text(json.dumps(FRENCH))
    gateway = await serve(auth="none", web_translations=str(tmp_path / "languages"))
    async with visiting(locale="fr-CA") as visit:
        await visit.page.goto(f"{gateway.url}/-/")
        await expect(visit("html")).to_have_attribute("lang", "fr")
        await expect(visit("main h2").first).to_have_text("Vue d’ensemble")
        assert (await links(visit))[:2] == ["Envoyer", "Files"]  # what has no translation is English
        await visit.page.get_by_role("button", name="Langue : Français").click()
        choices = visit(".panel:visible button")
        await expect(choices).to_have_text(
            ["English", "Français", "日本語", "한국어", "As the browser says"]
        )
        await expect(choices.nth(4)).to_have_attribute("aria-current", "true")
        await choices.nth(0).click()
        await expect(visit("main h2").first).to_have_text("Overview")
        await visit.page.reload()
        await expect(visit("html")).to_have_attribute("lang", "en")
        await visit.page.goto(f"{gateway.url}/-/docs")
        assert (await links(visit))[0] == "Upload"
        assert visit.said == []
    async with visiting(locale="de-DE") as visit:
        await visit.page.goto(f"{gateway.url}/-/")
        await expect(visit("main h2").first).to_have_text("Overview")
        assert visit.said == []


async def test_a_phone_has_a_menu_that_the_keyboard_opens_and_closes(serve: Serve) -> None:
    gateway = await serve(auth="none")
    async with visiting(viewport=PHONE, bypass_csp=True) as visit:
        await visit.page.goto(f"{gateway.url}/-/plugins")
        menu = visit.page.get_by_role("button", name="Menu")
        await expect(menu).to_have_attribute("aria-expanded", "false")
        await expect(visit("#bar nav")).to_be_hidden()
        press = visit.page.keyboard.press
        await press("Tab")
        await expect(visit("#skip")).to_be_focused()
        await press("Tab")
        await expect(visit("#bar h1 a")).to_be_focused()
        await press("Tab")
        await expect(menu).to_be_focused()
        await press("Enter")
        await expect(menu).to_have_attribute("aria-expanded", "true")
        await check_looks(visit, keep="bar-menu")
        for name in OPERATOR:
            await press("Tab")
            await expect(visit.page.get_by_role("link", name=name, exact=True)).to_be_focused()
        await press("Tab")
        language = visit.page.get_by_role("button", name="Language: English")
        await expect(language).to_be_focused()
        await press("Space")
        await press("Tab")
        await expect(visit(".panel button").first).to_be_focused()
        await press("Escape")
        await expect(language).to_be_focused()
        await expect(visit(".panel")).to_be_hidden()
        await press("Escape")
        await expect(menu).to_be_focused()
        await expect(visit("#bar nav")).to_be_hidden()
        await press("Shift+Tab")
        await press("Shift+Tab")
        await press("Enter")
        await expect(visit("#main")).to_be_focused()
        heights = await visit("#bar button:visible, #bar a:visible").evaluate_all(
            "all => all.map(one => one.getBoundingClientRect().height)"
        )
        assert min(heights) >= 40
