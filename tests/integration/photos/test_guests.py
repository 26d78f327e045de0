"""Guests of plugins/photos: a link instead of a token, for one event and a time."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import expect

from tests.integration.photos.browser import visiting
from tests.integration.photos.conftest import TOKENS, Serve
from tests.integration.photos.service import EVENT, Client
from tests.support.pictures import picture

pytestmark = pytest.mark.integration


async def link_of(client: Client, hours: int = 24) -> dict[str, Any]:
    status, link = await client.ask(
        "POST", f"{client.url}/events/{EVENT}/guest-links", json={"hours": hours}
    )
    assert status == 201, link
    return dict(link)


async def as_guest(client: Client, secret: str, method: str, path: str, **how: Any) -> tuple[int, Any]:
    headers = {"X-Guest-Link": secret}
    async with client.session.request(
        method, f"{client.url}/guest{path}", headers=headers, **how
    ) as answer:
        return answer.status, await answer.json()


@pytest.fixture
async def alice(serve: Serve) -> Client:
    client = await serve(auth="token", tokens=TOKENS)
    client.token = "secret-alice"
    return client


async def test_a_guest_adds_and_sees_photos_and_removes_none(alice: Client) -> None:
    link = await link_of(alice)
    photos = f"/events/{EVENT}/photos"
    facts = {"title": "Mine", "contentType": "image/png"}
    status, begun = await as_guest(
        alice, link["secret"], "POST", f"{photos}/initiate-upload", json=facts
    )
    assert status == 201
    assert await alice.put(begun["s3PutObjectUrl"], picture()) == 201
    [photo] = await alice.looked_at(begun["photoId"])
    assert (photo["owner"], photo["removable"]) == ("guest", False)
    status, found = await as_guest(alice, link["secret"], "GET", photos)
    assert [(one["id"], one["removable"]) for one in found["photos"]] == [(photo["id"], False)]
    status, one = await as_guest(alice, link["secret"], "GET", f"{photos}/{photo['id']}")
    assert (status, one["title"], "originalUrl" in one) == (200, "Mine", False)
    status, _ = await as_guest(alice, link["secret"], "DELETE", f"{photos}/{photo['id']}")
    assert status == 405


async def test_a_guest_learns_no_name_of_an_owner(alice: Client) -> None:
    photos, facts = f"/events/{EVENT}/photos", {"contentType": "image/png"}
    status, begun = await alice.ask("POST", f"{alice.url}{photos}/initiate-upload", json=facts)
    assert status == 201
    assert await alice.put(begun["s3PutObjectUrl"], picture()) == 201
    [photo] = await alice.looked_at(begun["photoId"])
    assert photo["owner"] == "alice"
    secret = (await link_of(alice))["secret"]
    _, found = await as_guest(alice, secret, "GET", photos)
    _, one = await as_guest(alice, secret, "GET", f"{photos}/{photo['id']}")
    assert [shown["owner"] for shown in (*found["photos"], one)] == [None, None]


async def test_a_link_is_good_for_its_event_until_it_is_revoked(alice: Client) -> None:
    link = await link_of(alice)
    photos = f"/events/{EVENT}/photos"
    assert (await as_guest(alice, link["secret"], "GET", photos))[0] == 200
    for path, secret in (
        ("/events/another/photos", link["secret"]),
        (photos, link["secret"][:-1] + "-"),
        (photos, link["id"]),
        (photos, ""),
    ):
        status, told = await as_guest(alice, secret, "GET", path)
        assert (status, told["error"]) == (403, "link_expired"), path
    links = f"{alice.url}/events/{EVENT}/guest-links"
    _, listed = await alice.ask("GET", links)
    assert [one["id"] for one in listed["links"]] == [link["id"]]
    assert "secret" not in str(listed)
    assert (await alice.ask("DELETE", f"{links}/{link['id']}"))[0] == 204
    assert (await as_guest(alice, link["secret"], "GET", photos))[0] == 403
    assert (await alice.ask("DELETE", f"{links}/{link['id']}"))[0] == 404


async def test_links_are_made_by_those_with_a_token_only(alice: Client) -> None:
    alice.token = ""
    links = f"{alice.url}/events/{EVENT}/guest-links"
    for method in ("POST", "GET"):
        assert (await alice.ask(method, links, json={"hours": 1}))[0] == 401
    alice.token = "secret-bob"
    for hours in (0, 721, "many"):
        assert (await alice.ask("POST", links, json={"hours": hours}))[0] == 400


@pytest.mark.slow
async def test_the_page_makes_a_link_and_a_guest_uploads_with_it(alice: Client) -> None:
    async with visiting() as visit:
        await visit.open(alice.url)
        await visit("#token").fill("secret-alice")
        await visit.page.keyboard.press("Enter")
        await visit.page.get_by_role("button", name="Invite guests").click()
        await expect(visit("#invite-none")).to_be_visible()
        await visit.page.get_by_role("button", name="Make a link").click()
        await expect(visit("#invite-url")).to_have_value(re.compile(r"\?event=harvest-2026#guest="))
        await expect(visit("#invite-links li")).to_have_count(1)
        url = await visit("#invite-url").input_value()
    async with visiting() as guest:
        await guest.page.goto(url)
        await expect(guest("#limits")).not_to_be_empty()
        await expect(guest("#chooser")).to_be_hidden()
        await expect(guest("#invite-open")).to_be_hidden()
        await guest.choose(("mine.png", "image/png", picture()))
        await guest.shows(1)
        await guest("#gallery button").first.click()
        await expect(guest("#remove")).to_be_hidden()
        assert guest.said == []
    async with visiting() as late:
        await late.page.goto(url[:-1])
        await expect(late("#gallery-error")).to_have_text(
            "This link is not valid any more. Ask for a new one."
        )


@pytest.mark.slow
async def test_a_wrong_name_of_an_event_is_told(serve: Serve) -> None:
    client = await serve()
    async with visiting() as visit:
        await visit.open(client.url, "a%20b!")
        await expect(visit("#event-error")).to_contain_text("“a b!” cannot name an event")
