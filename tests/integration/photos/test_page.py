"""plugins/photos in a real browser: what is dropped, what is told, who is asked."""

from __future__ import annotations

import dataclasses
import re

import pytest
from playwright.async_api import Error, expect

from tests.integration.photos.browser import Visit, visiting
from tests.integration.photos.conftest import TOKENS, Serve
from tests.integration.photos.scenes import NAMES, scene
from tests.support.pictures import picture

pytestmark = pytest.mark.slow

SCENES = [(f"{name}.jpg", "image/jpeg", scene(number)) for number, name in enumerate(NAMES)]
SMALL = ("small.png", "image/png", picture())


async def test_photos_that_are_dropped_or_chosen_appear_as_thumbnails(serve: Serve) -> None:
    client = await serve()
    async with visiting() as visit:
        await visit.open(client.url)
        await expect(visit("#empty")).to_be_visible()
        await visit.drop(*SCENES[:2])
        await visit.choose(*SCENES[2:])
        await visit.shows(len(SCENES))
        await expect(visit("#jobs li")).to_have_count(0)
        await expect(visit("#voice")).to_contain_text("is ready.")
        assert 1 <= visit.most_puts <= 3
        assert sorted(await visit("#gallery h3").all_inner_texts()) == sorted(NAMES)
        await visit.take("photos-page")
        await visit.page.reload()
        await visit.shows(len(SCENES))
        await visit.page.emulate_media(color_scheme="dark")
        await visit.take("photos-dark")
        assert visit.said == []


async def test_progress_is_shown_and_an_upload_can_be_cancelled_and_tried_again(serve: Serve) -> None:
    client = await serve()
    large = ("Lanterns.jpg", "image/jpeg", SCENES[4][2].ljust(2_000_000, b"\0"))
    async with visiting() as visit:
        await visit.open(client.url)
        slow = await visit.page.context.new_cdp_session(visit.page)
        limits = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 50_000}
        await slow.send("Network.emulateNetworkConditions", limits)
        await visit.choose(large)
        bar = visit("#jobs progress")
        await expect(visit("#jobs .state")).to_have_text(re.compile(r"^\d+% of 2 MB$"))
        await expect(visit("#jobs .state")).not_to_have_text("0% of 2 MB")
        assert 0 < float(await bar.get_attribute("value") or await bar.evaluate("bar => bar.value")) < 1
        await visit.take("photos-progress")
        await visit.page.get_by_role("button", name="Cancel Lanterns.jpg").click()
        await expect(visit("#jobs .state")).to_have_text("Cancelled")
        await expect(bar).to_be_hidden()
        assert await client.listed() == []

        await slow.send("Network.emulateNetworkConditions", {**limits, "uploadThroughput": -1})
        await visit.page.get_by_role("button", name="Retry Lanterns.jpg").click()
        await visit.shows(1)
        assert visit.said == []


async def test_what_cannot_be_taken_is_told_in_words(serve: Serve) -> None:
    client = await serve(config={"max_bytes": 50_000})
    async with visiting() as visit:
        await visit.open(client.url)
        await visit.choose(
            ("notes.txt", "text/plain", b"hello"),
            ("huge.png", "image/png", b"x" * 50_001),
            ("empty.png", "image/png", b""),
            ("broken.png", "image/png", b"I am no picture"),
            SMALL,
        )
        await visit.shows(1)

        async def told(name: str) -> str:
            row = visit("#jobs li").filter(has_text=name)
            await expect(row.get_by_role("alert")).to_be_visible()
            return await row.get_by_role("alert").inner_text()

        assert await told("notes.txt") == "Only GIF, HEIC, JPEG, PNG and WebP photos are taken here."
        assert await told("huge.png") == "Too large: it has 50 kB, and 50 kB is the most."
        assert await told("empty.png") == "The file is empty."
        assert "Not accepted: it is damaged, or no picture" in await told("broken.png")
        await expect(visit("#summary")).to_have_text("4 not stored")
        await visit.page.get_by_role("button", name="Clear finished").click()
        await expect(visit("#uploads")).to_be_hidden()
        assert visit.said == []


async def test_a_gateway_that_asks_for_a_token_is_given_one_that_stays_in_memory(serve: Serve) -> None:
    client = await serve(auth="token", tokens=TOKENS)
    async with visiting() as visit:
        await visit.open(client.url)
        await expect(visit("#gate")).to_be_visible()
        await expect(visit("#token")).to_be_focused()
        await visit.choose(SMALL)
        await expect(visit("#jobs li")).to_have_class("job failed")
        await visit("#token").fill("wrong")
        await visit.page.keyboard.press("Enter")
        await expect(visit("#gate-error")).to_have_text("This token is not valid.")
        await visit.take("photos-token")
        await visit("#token").fill("secret-alice")
        await visit.page.keyboard.press("Enter")
        await expect(visit("#gate")).to_be_hidden()
        await visit.shows(1)
        await _keeps_no_token(visit)
        assert [line for line in visit.said if "401" not in line] == []
        await visit.page.reload()
        await expect(visit("#gate")).to_be_visible()


async def _keeps_no_token(visit: Visit) -> None:
    kept = await visit.page.evaluate(
        "() => [document.cookie, location.href, ...Object.values(localStorage)]"
    )
    assert "secret" not in "".join(kept)
    assert await visit("#token").input_value() == ""


async def test_keys_alone_open_turn_close_and_remove_photos(serve: Serve) -> None:
    client = await serve()
    async with visiting() as visit:
        await visit.open(client.url)
        for name in ("one", "two", "three"):
            await visit.choose((f"{name}.png", *SMALL[1:]))
            await expect(visit("#gallery h3").filter(has_text=name)).to_be_visible()
        await visit("#gallery button").first.focus()
        await visit.page.keyboard.press("Enter")
        await expect(visit("#viewer-title")).to_have_text("three")
        await visit.page.keyboard.press("ArrowRight")
        await expect(visit("#viewer-title")).to_have_text("two")
        await expect(visit("#original")).to_have_attribute("href", re.compile("two.png"))
        await visit.page.keyboard.press("Escape")
        await expect(visit("#viewer")).to_be_hidden()
        await expect(visit("#gallery button").nth(1)).to_be_focused()
        await visit.page.keyboard.press("Enter")
        for text in ("Remove", "Really remove?"):
            await visit("#remove").focus()
            await expect(visit("#remove")).to_have_text(text)
            await visit.page.keyboard.press("Enter")
        await expect(visit("#gallery li")).to_have_count(2)
        await expect(visit("#voice")).to_have_text("two is removed.")
        gone = dataclasses.replace(client, event="harvest-2026")
        assert [one["title"] for one in await gone.listed()] == ["three", "one"]
        assert visit.said == []


async def test_the_policy_stops_what_an_intruder_would_try(serve: Serve) -> None:
    client = await serve()
    async with visiting() as visit:
        await visit.open(client.url)
        with pytest.raises(Error, match="requires 'TrustedScript'"):
            await visit.page.evaluate("() => document.body.setAttribute('onclick', 'alert(1)')")
        async with visit.page.expect_console_message():
            await visit.page.evaluate("() => { new Image().src = 'https://elsewhere.example/a.png' }")
        assert visit.said
        assert all("Content Security Policy" in line or "Trusted" in line for line in visit.said)
