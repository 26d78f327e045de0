"""Passwords of links: without one a link opens nothing, and guessing is limited."""

from __future__ import annotations

import asyncio

from gateway.auth.links import passwords
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import RawResponse, raw_connection, request_head
from tests.support.links import TOKENS, MadeLink, asked, make_link


async def guess(gateway: Gateway, link: MadeLink, password: str, source: str) -> RawResponse:
    body = b'{"password": "%s"}' % password.encode()
    head = request_head(
        "POST", "/-/links/open", f"Authorization: Bearer {link.secret}", f"Content-Length: {len(body)}"
    )
    async with raw_connection(gateway, source) as connection:
        await connection.send(head + body)
        return await connection.answer()


async def test_without_its_password_a_link_can_do_nothing_but_ask(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="none", tokens=TOKENS)
    link = await make_link(gateway, "drop", "/upload/secret folder/", password="päss")
    told = await link.opened()
    assert told.keys() == {"id", "kind", "expires", "needs_password", "status"}
    for target in ("/upload/secret%20folder/a", "/upload/other", "/-/links", "/-/session"):
        answer = await asked("GET", gateway.url + target, link.headers)
        assert (answer["status"], answer["error"]) == (403, "password_needed")
    opened = await link.opened("päss")
    assert opened["folder"] == "secret folder"
    bearer = {"Authorization": f"Bearer {opened['bearer']}"}
    again = await asked("POST", f"{gateway.url}/-/links/open", bearer)
    assert (again["needs_password"], again["folder"]) == (False, "secret folder")


async def test_what_a_password_gives_is_of_one_link_and_is_not_made_up(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(auth="token", tokens=TOKENS)
    mine = await make_link(gateway, "share", "/upload/a/", password="mine")
    other = await make_link(gateway, "share", "/upload/b/", password="mine")
    bearer = str((await mine.opened("mine"))["bearer"])
    link_id, expiry, signature = bearer.removeprefix("ugl_").split(".")
    for made_up in (
        f"ugl_{other.id}.{expiry}.{signature}",
        f"ugl_{link_id}.{int(expiry) + 1}.{signature}",
        f"ugl_{link_id}.{expiry}.{signature[:-1]}A"
        if signature[-1] != "A"
        else f"ugl_{link_id}.1.{signature}",
    ):
        headers = {"Authorization": f"Bearer {made_up}"}
        answer = await asked("GET", f"{gateway.url}/-/shared", headers)
        assert (answer["status"], answer["error"]) == (404, "link_unavailable")


async def test_guesses_are_limited_by_address_over_all_links(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="token", tokens=TOKENS)
    first = await make_link(gateway, "drop", "/upload/in/", password="right")
    second = await make_link(gateway, "drop", "/upload/in/", password="right")
    tries = passwords.TRIES_OF_CLIENT
    assert tries * (passwords.LINK_WINDOW / passwords.CLIENT_WINDOW + 1) < passwords.TRIES_OF_LINK
    guesses = [guess(gateway, first, f"wrong {number}", "127.0.0.1") for number in range(tries)]
    answers = await asyncio.gather(*guesses)
    assert {answer.status for answer in answers} == {403}
    for link in (first, second):
        refused = await guess(gateway, link, "right", "127.0.0.1")
        assert refused.status == 429
        assert 0 < int(refused.headers["Retry-After"]) <= passwords.CLIENT_WINDOW
    assert (await guess(gateway, first, "right", "127.0.0.2")).status == 200


async def test_guesses_are_limited_by_link_and_many_at_once_are_turned_away(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(auth="token", tokens=TOKENS)
    link = await make_link(gateway, "drop", "/upload/in/", password="right")
    sources = [f"127.0.0.{2 + number % 100}" for number in range(passwords.TRIES_OF_LINK)]
    answers = await asyncio.gather(*(guess(gateway, link, "x", source) for source in sources))
    statuses = {answer.status for answer in answers}
    assert statuses == {403, 503}  # the queue of the thread is bounded
    refused = await guess(gateway, link, "right", "127.0.0.200")
    assert refused.status == 429
    assert int(refused.headers["Retry-After"]) > passwords.CLIENT_WINDOW
