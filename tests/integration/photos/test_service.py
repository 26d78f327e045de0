"""plugins/photos over HTTP on the embedded default: the published client, and what follows."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.integration.photos.conftest import TOKENS, Serve
from tests.integration.photos.service import EVENT, Client
from tests.support.harness import files_below
from tests.support.jwt.issuing import FakeIssuer, flags
from tests.support.pictures import bomb, opened, photo, picture

KOREAN: dict[str, Any] = {"title": "기조 연설", "description": "스티브가 무대로 나온다 · naïve “quotes”"}


def stored(tmp_path: Path) -> set[str]:
    """What lies below DIRECTORY, without the gateway's own state."""
    return {name for name in files_below(tmp_path / "data") if not name.startswith(".gateway/")}


def as_(client: Client, name: str) -> Client:
    return dataclasses.replace(client, token=f"secret-{name}")


async def test_the_published_client_needs_only_the_url_the_body_and_the_type(
    serve: Serve, tmp_path: Path
) -> None:
    client = await serve()
    facts = {"title": "Keynote Speech", "description": "Steve walking out on stage"}
    status, begun = await client.initiate(**facts)
    assert status == 201
    photo_id, url = begun["photoId"], begun["s3PutObjectUrl"]
    assert urlsplit(url).path.endswith(f"/uploads/event_{EVENT}/{photo_id}.png")
    assert await client.put(url, picture(size=(640, 480))) == 201

    [told] = await client.looked_at(photo_id)
    assert told.items() >= {
        "id": photo_id, "eventId": EVENT, "state": "ready", **facts, "contentType": "image/png",
        "width": 640, "height": 480, "bytes": len(picture(size=(640, 480))), "owner": None,
        "removable": True,
    }.items()  # fmt: skip
    assert [one["id"] for one in await client.listed()] == [photo_id]
    assert (await client.ask("GET", f"{client.photos}/{photo_id}"))[1]["id"] == photo_id
    place = f"event_{EVENT}/{photo_id}"
    names = {f"uploads/{place}.png", f"photos/{place}.webp", f"thumbs/{place}.webp"}
    assert stored(tmp_path) == names


async def test_pictures_are_had_by_signed_urls(serve: Serve) -> None:
    client = await serve()
    content = photo(size=(1000, 500))
    [told] = await client.looked_at(await client.upload(content, contentType="image/jpeg"))
    assert (told["width"], told["height"]) == (500, 1000)
    assert await client.fetch(told["originalUrl"]) == (200, "image/jpeg", content)
    status, content_type, thumb = await client.fetch(told["thumbnailUrl"])
    assert (status, content_type, opened(thumb).size) == (200, "image/webp", (240, 480))
    status, content_type, copy = await client.fetch(told["url"])
    assert (status, content_type, opened(copy).size) == (200, "image/webp", (500, 1000))
    assert b"secret" not in copy
    assert (await client.fetch(told["url"].partition("?")[0]))[0] in {401, 403}


async def test_texts_of_any_script_come_back_as_they_were(serve: Serve) -> None:
    client = await serve()
    [told] = await client.looked_at(await client.upload(**KOREAN))
    assert (told["title"], told["description"]) == (KOREAN["title"], KOREAN["description"])
    assert await client.fetch(told["originalUrl"]) == (200, "image/png", picture())


async def test_a_type_that_is_no_image_is_refused_and_the_valid_ones_are_named(serve: Serve) -> None:
    client = await serve()
    status, told = await client.initiate(contentType="application/pdf")
    assert status == 400
    for valid in ("image/jpeg", "image/png", "image/webp", "image/gif"):
        assert valid in told["message"]


@pytest.mark.parametrize(
    ("event", "facts", "status"),
    [
        ("..%2Fsecret", {}, 400),
        ("a.b", {}, 400),
        ("-a", {}, 400),
        ("e" * 65, {}, 400),
        ("%00", {}, 400),
        (EVENT, {"title": "x" * 121}, 400),
        (EVENT, {"title": 7}, 400),
        (EVENT, {"contentType": None}, 400),
        (EVENT, {"title": "a\x00b"}, 400),
        (EVENT, {"title": "a\x1bb"}, 400),
        (EVENT, {"description": "\ud800"}, 400),
        (EVENT, {"description": "\U0001f33e" * 600}, 400),
        (EVENT, {"bytes": 0}, 400),
        (EVENT, {"bytes": 26_000_000}, 413),
    ],
)
async def test_what_cannot_be_kept_is_refused_before_anything_is_signed(
    serve: Serve, event: str, facts: dict[str, Any], status: int
) -> None:
    client = dataclasses.replace(await serve(), event=event)
    got, told = await client.initiate(**facts)
    assert (got, "message" in told) == (status, True)


async def test_a_body_that_is_no_json_object_is_refused(serve: Serve) -> None:
    client = await serve()
    for body in (b"", b"[]", b"null", b'"x"', b"{"):
        status, _ = await client.ask("POST", f"{client.photos}/initiate-upload", data=body)
        assert status == 400


async def test_the_url_takes_one_body_of_that_type_and_no_larger_one(serve: Serve) -> None:
    client = await serve(config={"max_bytes": 5000})
    _, begun = await client.initiate()
    url = begun["s3PutObjectUrl"]
    assert begun["maxBytes"] == 5000
    assert await client.put(url, picture(), "image/jpeg") in {400, 403, 415}
    assert await client.put(url, b"x" * 5001) in {403, 413}
    assert await client.put(url.replace("Keynote", "Keynoted"), picture()) == 403
    assert await client.put(url, picture()) == 201
    assert await client.put(url, picture("PNG", (9, 9))) in {409, 412}
    [told] = await client.looked_at(begun["photoId"])
    assert told["width"] == 64


@pytest.mark.parametrize("number", [int, float])
async def test_a_client_that_says_its_size_is_held_to_it(serve: Serve, number: type[float]) -> None:
    client = await serve()
    _, begun = await client.initiate(bytes=number(len(picture())))
    assert await client.put(begun["s3PutObjectUrl"], picture() + b"x") in {400, 403, 413}
    assert await client.put(begun["s3PutObjectUrl"], picture()) == 201


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"I am no picture", "damaged, or no picture of the type image/png"),
        (picture("JPEG"), "damaged, or no picture of the type image/png"),
        (picture()[:-40], "damaged, or no picture of the type image/png"),
        (bomb(30_000, 30_000), "more than 50 million pixels"),
    ],
    ids=["text", "jpeg", "cut", "bomb"],
)
async def test_what_is_no_picture_is_rejected_and_removed_and_the_reason_is_told(
    serve: Serve, tmp_path: Path, content: bytes, reason: str
) -> None:
    client = await serve()
    photo_id = await client.upload(content)
    [told] = await client.looked_at(photo_id)
    assert told["state"] == "rejected"
    assert reason in told["reason"]
    assert "url" not in told
    assert await client.listed() == []
    while stored(tmp_path):  # the record comes first
        await client.listed()
    assert (await client.ask("DELETE", f"{client.photos}/{photo_id}"))[0] == 204
    assert (await client.ask("GET", f"{client.photos}/{photo_id}"))[0] == 404


async def test_the_list_is_newest_first_in_pages_and_each_event_has_its_own(serve: Serve) -> None:
    client = await serve()
    ids = []
    for number in range(5):
        ids.append(await client.upload(title=f"number {number}"))
        await client.looked_at(ids[-1])
    other = dataclasses.replace(client, event="12345")
    assert await other.listed() == []
    assert [one["id"] for one in await client.listed()] == ids[::-1]

    seen: list[list[str]] = []
    cursor: str | None = ""
    while cursor is not None:
        _, page = await client.ask("GET", client.photos, params={"limit": "2", "cursor": cursor})
        seen.append([one["id"] for one in page["photos"]])
        cursor = page["cursor"]
    assert [one for page in seen for one in page] == ids[::-1]
    assert max(map(len, seen)) == 2


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("limit=0", 400),
        ("limit=101", 400),
        ("limit=x", 400),
        ("limit=²", 400),
        ("cursor=nonsense", 400),
        ("ids=..", 404),
    ],
)
async def test_a_list_that_makes_no_sense_is_refused(serve: Serve, query: str, status: int) -> None:
    client = await serve()
    assert (await client.ask("GET", f"{client.photos}?{query}"))[0] == status


async def test_whoever_is_asked_for_a_token_owns_what_they_upload(serve: Serve, tmp_path: Path) -> None:
    nobody = await serve(auth="token", tokens=TOKENS)
    alice, bob = as_(nobody, "alice"), as_(nobody, "bob")
    assert (await nobody.initiate())[0] == 401
    assert (await nobody.ask("GET", nobody.photos))[0] == 401
    photo_id = await alice.upload()
    [told] = await alice.looked_at(photo_id)
    assert (told["owner"], told["removable"]) == ("alice", True)
    assert "originalUrl" in told

    [seen] = await bob.listed()
    assert (seen["owner"], seen["removable"]) == ("alice", False)
    assert "originalUrl" not in seen, "the original tells where it was taken"
    assert (await bob.fetch(seen["url"]))[0] == 200
    one = f"{bob.photos}/{photo_id}"
    assert (await nobody.ask("DELETE", one))[0] == 401
    assert (await bob.ask("DELETE", one))[0] == 403
    assert (await alice.ask("DELETE", one))[0] == 204
    assert (await alice.ask("DELETE", one))[0] == 404
    assert await alice.listed() == []
    assert stored(tmp_path) == set()
    assert (await bob.fetch(seen["url"]))[0] == 404


async def test_a_token_named_like_a_user_of_the_issuer_is_somebody_else(
    serve: Serve, issuer: FakeIssuer, tmp_path: Path
) -> None:
    client = await serve(auth="jwt", tokens=TOKENS, **flags(issuer))
    user = dataclasses.replace(client, token=issuer.token(sub="alice"))
    [told] = await user.looked_at(await user.upload())
    assert (told["owner"], told["removable"]) == ("alice", True)

    alice = as_(client, "alice")
    [seen] = await alice.listed()
    assert not seen["removable"]
    assert "originalUrl" not in seen
    one = f"{client.photos}/{told['id']}"
    assert (await alice.ask("DELETE", one))[0] == 403
    assert (await user.ask("DELETE", one))[0] == 204
    assert stored(tmp_path) == set()


async def test_originals_are_for_all_where_the_operator_says_so(serve: Serve) -> None:
    nobody = await serve(auth="token", tokens=TOKENS, config={"originals": "all"})
    await as_(nobody, "alice").looked_at(await as_(nobody, "alice").upload())
    [seen] = await as_(nobody, "bob").listed()
    assert (await nobody.fetch(seen["originalUrl"]))[2] == picture()


async def test_a_page_of_another_origin_may_do_nothing_where_everyone_may_call(serve: Serve) -> None:
    client = await serve(auth="none")
    [photo] = [await client.looked_at(await client.upload())]
    one = f"{client.photos}/{photo[0]['id']}"
    for origin in ({"Origin": "https://app.example"}, {"Sec-Fetch-Site": "same-site"}):
        preflight = {**origin, "Access-Control-Request-Method": "DELETE"}
        async with client.session.options(one, headers=preflight) as answer:
            assert "Access-Control-Allow-Origin" not in answer.headers
        begins = f"{client.photos}/initiate-upload"
        async with client.session.post(
            begins, headers=origin, data='{"contentType": "image/png"}'
        ) as form:
            assert form.status == 403


async def test_a_page_of_a_named_origin_may_use_the_service(serve: Serve) -> None:
    origin = "https://app.example"
    client = await serve(auth="token", tokens=TOKENS, cors_origins=[origin])

    async def preflight(url: str, method: str, headers: str) -> dict[str, str]:
        asked = {
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": headers,
        }
        async with client.session.options(url, headers=asked) as answer:
            assert answer.status in {200, 204}
            return dict(answer.headers)

    for path, method in (("/initiate-upload", "POST"), ("", "GET"), ("/any", "DELETE")):
        allowed = await preflight(client.photos + path, method, "authorization,content-type")
        assert allowed["Access-Control-Allow-Origin"] in {"*", origin}
        assert method in allowed["Access-Control-Allow-Methods"]
        assert "authorization" in allowed["Access-Control-Allow-Headers"].lower()
    async with client.session.get(client.photos, headers={"Origin": origin}) as answer:
        assert answer.status == 401
        assert answer.headers["Access-Control-Allow-Origin"] in {"*", origin}


async def test_a_bad_config_is_named_in_the_log_and_not_to_clients(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    client = await serve(config={"max_byte": 7})
    status, told = await client.initiate()
    assert status == 500
    assert "max_byte" not in json.dumps(told)
    assert "there is no key max_byte" in caplog.text


async def test_urls_of_pictures_stay_the_same_for_a_while_and_then_run_out(serve: Serve) -> None:
    client = await serve()
    await client.looked_at(await client.upload())
    [one], [other] = await client.listed(), await client.listed()
    lives = [int(parse_qs(urlsplit(told["url"]).query)["X-Gateway-Expires"][0]) for told in (one, other)]
    apart = lives[1] - lives[0]
    assert min(apart % 300, -apart % 300) <= 1  # a second may end between the look at it and the signing
