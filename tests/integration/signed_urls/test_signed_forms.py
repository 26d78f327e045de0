"""Forms whose fields are signed: who has them uploads one file, and nothing beyond what was signed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.grant import Grant
from gateway.server.app import Gateway
from gateway.signing.urls import UrlSigner
from tests.conftest import StartGateway
from tests.integration.uploads.test_forms import END, LARGE, part, post
from tests.support.harness import RawResponse, curl, files_below, get, leftovers
from tests.support.recorders import write_handler

Fields = dict[str, str]


async def sign_form(gateway: Gateway, path: str, **terms: Any) -> tuple[str, Fields]:
    """Return the path of a form and its fields, as a script gets them."""
    form = await gateway.resources.plugins.services.sign_url("POST", path, **terms)
    assert isinstance(form, dict)
    assert form["url"].startswith(f"{gateway.url}/")
    return form["url"].removeprefix(gateway.url), form["fields"]


def body_of(fields: Fields, content: bytes = b"hello", *lines: str, filename: str = "mine.txt") -> bytes:
    parts = b"".join(part(name, value) for name, value in fields.items())
    return parts + part("file", content, filename, *lines) + END


async def send(gateway: Gateway, form: tuple[str, Fields], content: bytes = b"hello") -> RawResponse:
    target, fields = form
    return await post(gateway, target, body_of(fields, content))


def code(answer: RawResponse) -> str:
    return str(answer.json["error"])


@pytest.mark.parametrize("path", ["/upload/a b.bin", "/photos/ü;x.png"])
async def test_curl_posts_a_signed_form_without_a_token(
    start_gateway: StartGateway, tmp_path: Path, path: str
) -> None:
    gateway = await start_gateway(auth="token")
    target, fields = await sign_form(
        gateway, path, content_type="image/x-odd", metadata={"title": "Zürich"}
    )
    (tmp_path / "file").write_bytes(LARGE)
    arguments = [text for name, value in fields.items() for text in ("-F", f"{name}={value}")]
    result = await curl(*arguments, "-F", f"file=@{tmp_path}/file", f"{gateway.url}{target}")
    assert (result.status, '"mime": "image/x-odd"' in result.body) == (201, True)
    assert (tmp_path / f"data{path}").read_bytes() == LARGE
    stat = await gateway.resources.scripts.files.stat(path)
    assert stat.metadata == {"title": "Zürich"}


async def test_a_changed_or_missing_field_is_refused(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="token")
    terms = {"content_type": "image/png", "max_length": 10, "metadata": {"a": "b"}, "once": True}
    target, fields = await sign_form(gateway, "/upload/a", overwrite=False, **terms)
    assert len(fields) == 8
    for name in fields:
        without = {key: value for key, value in fields.items() if key != name}
        answer = await post(gateway, target, body_of(without))
        assert (answer.status, code(answer)) == (403, "bad_signature"), name
        answer = await post(gateway, target, body_of(fields | {name: f"{fields[name]}1"}))
        assert (answer.status, code(answer)) == (403, "bad_signature"), name
    answer = await post(gateway, target, body_of(fields | {"X-Gateway-Filename": "b"}))
    assert code(answer) == "bad_signature"
    assert (await post(gateway, target, body_of({}))).status == 401
    answer = await post(gateway, "/upload/b", body_of(fields))
    assert (answer.status, code(answer)) == (403, "bad_signature")
    behind = part("file", b"x", "a") + body_of(fields)
    assert (await post(gateway, target, behind)).status == 401
    assert files_below(tmp_path / "data/upload") == {}
    assert (await send(gateway, (target, fields))).status == 201


async def test_the_terms_of_a_form_are_those_of_its_file(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="token")
    form = await sign_form(gateway, "/upload/a", max_length=5)
    answer = await send(gateway, form, b"123456")
    assert (answer.status, code(answer)) == (413, "too_large")
    assert (await send(gateway, form, b"12345")).status == 201
    exact = await sign_form(gateway, "/upload/b", length=5)
    for content, status in ((b"1234", 400), (b"123456", 413), (b"12345", 201)):
        assert (await send(gateway, exact, content)).status == status
    kept = await sign_form(gateway, "/upload/b", overwrite=False)
    assert (await send(gateway, kept, b"other")).status == 409
    assert files_below(tmp_path / "data/upload") == {"a": b"12345", "b": b"12345"}


async def test_the_type_that_was_signed_is_stored_whatever_the_part_says(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(auth="token")
    target, fields = await sign_form(gateway, "/upload/a", content_type="image/png")
    body = body_of(fields, b"x", "Content-Type: text/html", filename="evil.html")
    answer = await post(gateway, target, body)
    assert answer.json["uploads"][0]["mime"] == "image/png"


async def test_metadata_that_was_not_signed_is_refused(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="token")
    target, fields = await sign_form(gateway, "/upload/a", metadata={"title": "Sunrise"})
    for more in ({"place": "here"}, {"x-amz-meta-title": "Sunset"}):
        answer = await post(gateway, target, body_of({**fields, **more}))
        assert (answer.status, code(answer)) == (403, "not_granted")
    answer = await post(gateway, target, body_of({**fields, "x-amz-meta-title": "Sunrise"}))
    assert answer.status == 201


async def test_a_form_expires(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="token")
    installation = gateway.resources.settings.state / "installation.key"
    earlier = UrlSigner([installation.read_bytes().strip()], clock=lambda: time.time() - 100)
    fields = earlier.form_fields(Grant("POST", "/upload/a", int(time.time()) - 50))
    answer = await send(gateway, ("/upload/a", fields))
    assert (answer.status, code(answer)) == (403, "expired")


async def test_a_committed_file_uses_a_one_time_form_up_and_a_failed_attempt_does_not(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="token")
    form = await sign_form(gateway, "/upload/a", once=True, max_length=10)
    assert (await send(gateway, form, b"x" * 11)).status == 413
    target, fields = form
    two = body_of(fields)[: -len(END)] + part("file", b"2", "second") + END
    assert (await post(gateway, target, two)).status == 400
    cut = await post(gateway, target, body_of(fields)[: -len(END)])
    assert (cut.status, code(cut)) == (400, "incomplete_body")
    assert files_below(tmp_path / "data/upload") == {}
    assert leftovers(tmp_path / "data") == []
    assert (await send(gateway, form)).status == 201
    answer = await send(gateway, form, b"again")
    assert (answer.status, code(answer)) == (403, "used_up")
    assert files_below(tmp_path / "data/upload") == {"a": b"hello"}


async def test_a_url_that_was_signed_for_a_post_is_no_form(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="none")
    target, fields = await sign_form(gateway, "/upload/a")
    query = "&".join(f"{name}={value}" for name, value in fields.items())
    answer = await post(gateway, f"{target}?{query}", body_of({}))
    assert (answer.status, code(answer)) == (403, "not_granted")
    answer = await post(gateway, f"{target}?{query}", body_of(fields))
    assert answer.status == 403


async def test_only_signed_forms_are_taken_below_objects(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="none")
    answer = await post(gateway, "/-/objects/photos/a", body_of({}))
    assert (answer.status, code(answer)) == (403, "forbidden")
    target, fields = await sign_form(gateway, "/photos/a")
    assert target == "/-/objects/photos/a"
    assert (await post(gateway, "/-/objects/photos/b", body_of(fields))).status == 403
    assert (await post(gateway, target, body_of(fields))).status == 201


async def test_pages_of_any_origin_may_post_a_signed_form_and_read_the_answer(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(auth="none")
    page = ("Origin: https://any.example", "Sec-Fetch-Site: cross-site")
    target, fields = await sign_form(gateway, "/upload/a", max_length=5)
    answer = await post(gateway, target, body_of(fields), *page)
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (201, "*")
    answer = await post(gateway, target, body_of(fields, b"too large"), *page)
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (413, "*")
    answer = await post(gateway, target, body_of({}), *page)
    assert (answer.status, "Access-Control-Allow-Origin" in answer.headers) == (403, False)


async def test_handlers_see_the_signed_form_as_the_principal(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    script = "await handle.terminate(code=403, output=json.dumps([event['principal'], event['method']]))"
    gateway = await start_gateway(plugins=write_handler(tmp_path / "plugins", script), auth="token")
    answer = await send(gateway, await sign_form(gateway, "/upload/a"))
    assert answer.json == [{"name": "signed url", "kind": "signed"}, "POST"]


async def test_a_one_time_form_of_a_bucket_is_posted_to_the_gateway(
    start_gateway: StartGateway, s3_storage: str
) -> None:
    gateway = await start_gateway(auth="token", storage=s3_storage)
    form = await sign_form(gateway, "/photos/a.png", once=True, content_type="image/png")
    assert (await send(gateway, form, LARGE)).status == 201
    assert code(await send(gateway, form)) == "used_up"
    stat = await gateway.resources.scripts.files.stat("/photos/a.png")
    assert (stat.bytes, stat.mime) == (len(LARGE), "image/png")


async def test_the_signature_of_a_form_is_in_no_log_and_no_event(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="token", downloads=True)
    form = await sign_form(gateway, "/upload/a")
    upload_id = (await send(gateway, form)).json["uploads"][0]["upload_id"]
    token = f"X-Auth-Token: {gateway.resources.base.shared.token}"
    page = (await get(gateway, f"/-/uploads/{upload_id}", token)).body.decode()
    assert form[1]["X-Gateway-Signature"] not in page
