"""The end of a link: revoked or expired it is refused everywhere at once, and looks like none."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.auth.links.link import new_link_secret
from gateway.server.app import Gateway
from tests.conftest import StartGateway, StartProcess
from tests.support.cli import run_verb
from tests.support.harness import RawResponse, get, raw_connection, request_head, wait_until
from tests.support.links import TOKENS, MadeLink, asked, make_link
from tests.support.tus import target_of

REQUESTS = (
    ("POST", "/-/links/open"),
    ("PUT", "/upload/in/a.txt"),
    ("GET", "/upload/in/a.txt"),
    ("GET", "/-/shared"),
    ("GET", "/-/links"),
    ("GET", "/nothing"),
)


async def ask(server: Gateway, secret: str, method: str, target: str) -> RawResponse:
    async with raw_connection(server) as connection:
        await connection.send(
            request_head(method, target, f"Authorization: Bearer {secret}", "Content-Length: 0")
        )
        return await connection.answer()


async def shared(link: MadeLink, query: str = "", bearer: str | None = None) -> dict[str, object]:
    headers = {"Authorization": f"Bearer {bearer or link.secret}"}
    return await asked("GET", f"{link.base}/-/shared{query}", headers)


def path_of(url: object) -> str:
    parts = urlsplit(str(url))
    return f"{parts.path}?{parts.query}"


async def test_unknown_revoked_and_expired_links_answer_alike_to_everything(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(auth="none", tokens=TOKENS, downloads="true")
    revoked = await make_link(gateway, "drop", "/upload/in/", password="pw")
    expired = await make_link(gateway, "share", "/upload/in/", expires=0.2)
    opened = await revoked.opened("pw")
    await revoked.revoke()
    await asyncio.sleep(0.3)
    secrets = [new_link_secret(), revoked.secret, expired.secret, opened["bearer"], "ugl_", "ugl_x.1.y"]
    for method, target in REQUESTS:
        answers = []
        for secret in secrets:
            answer = await ask(gateway, str(secret), method, target)
            answers.append((answer.status, answer.json["error"], answer.json["message"]))
            names = answer.headers.keys()
            assert "WWW-Authenticate" not in names
        assert len({*answers}) == 1, (method, target, answers)
        assert answers[0][:2] == (404, "link_unavailable")


async def test_revoking_ends_listings_urls_and_partial_uploads_at_once(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="token", tokens=TOKENS)
    folder = tmp_path / "data" / "upload" / "in"
    (folder / "sub").mkdir(parents=True)
    for name in ("a", "b", "c"):
        (folder / name).write_text(name * 10)
    (folder / "sub" / "d").write_text("d")
    (folder.parent / "outside").write_text("outside")
    link = await make_link(gateway, "share", "/upload/in/")
    page = await shared(link, "?limit=2")
    entries = page["entries"]
    assert isinstance(entries, list)
    assert [entry["name"] for entry in entries] == ["a", "b"]
    rest = await shared(link, f"?cursor={page['next']}")
    assert isinstance(rest["entries"], list)
    assert [entry["name"] for entry in rest["entries"]] == ["c", "sub"]
    inner = await shared(link, "?path=sub/")
    assert (inner["path"], inner["folder"]) == ("sub/", "in")
    for path in ("..", "../", "/sub/", "sub/../..", "%2e%2e/", "/upload", ".gateway/../../outside"):
        assert (await shared(link, f"?path={path}"))["status"] in {400, 404}, path
    url = path_of(entries[0]["url"])
    ranged = await get(gateway, url, "Range: bytes=3-5")
    assert (ranged.status, ranged.body) == (206, b"aaa")
    assert (await get(gateway, url.replace("/in/a", "/in/b"))).status == 403
    assert (await get(gateway, url.replace(link.id, "aaaaaaaa"))).status == 403
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", url, "Content-Length: 1") + b"x")
        assert (await connection.answer()).status == 403
    assert (await get(gateway, path_of(inner["zip"]))).status == 200
    drop = await make_link(gateway, "drop", "/upload/new/")
    created = await ask_tus(gateway, drop, "POST", "/upload/new/", "Upload-Length: 3")
    place = target_of(created.headers["Location"])
    await link.revoke()
    await drop.revoke()
    assert (await shared(link, f"?cursor={page['next']}"))["error"] == "link_unavailable"
    for target in (url, path_of(page["zip"]), path_of(inner["zip"])):
        assert (await get(gateway, target)).json["error"] == "link_unavailable"
    more = ("Upload-Offset: 0", "Content-Type: application/offset+octet-stream")
    assert (await ask_tus(gateway, drop, "PATCH", place, *more)).json["error"] == "link_unavailable"
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("HEAD", place, "Tus-Resumable: 1.0.0"))
        assert (await connection.answer(head=True)).status in {401, 404}
    assert (await link.row())["state"] == "revoked"


async def ask_tus(
    gateway: Gateway, link: MadeLink, method: str, target: str, *lines: str
) -> RawResponse:
    credential = f"Authorization: Bearer {link.secret}"
    head = request_head(method, target, credential, "Tus-Resumable: 1.0.0", "Content-Length: 0", *lines)
    async with raw_connection(gateway) as connection:
        await connection.send(head)
        return await connection.answer()


@pytest.mark.slow
async def test_the_command_line_ends_a_link_in_all_processes(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    flags = ("--processes", "2", "--auth", "token", "--tokens", TOKENS[0])
    gateway = await asyncio.to_thread(gateway_process, *flags)
    link = await make_link(gateway.url, "drop", "/upload/in/")
    for _ in range(12):  # connections go to either process
        assert (await link.opened())["status"] == 200
    ended = await asyncio.to_thread(run_verb, tmp_path / "data", "links", "revoke", link.id)
    assert ended == (0, f"link {link.id} revoked\n", "")

    async def is_gone_everywhere() -> bool:
        return all([(await link.opened())["status"] == 404 for _ in range(12)])

    await wait_until(is_gone_everywhere)
    log = gateway.log()
    assert '"event": "link.revoked"' in log
    assert link.secret not in log


async def test_no_log_line_and_no_list_has_a_secret(
    start_gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    gateway = await start_gateway(auth="token", tokens=TOKENS)
    link = await make_link(gateway, "share", "/upload/in/", password="correct horse")
    opened = await link.opened("correct horse")
    await link.opened("wrong battery")
    await shared(link, bearer=str(opened["bearer"]))
    row = await link.row()
    await link.revoke()
    events = [getattr(record, "event", "") for record in caplog.records]
    assert {"link.created", "link.opened", "link.revoked"} <= {*events}
    said = repr([(record.getMessage(), vars(record)) for record in caplog.records]) + repr(row)
    for secret in (link.secret, str(opened["bearer"]), "correct horse", "wrong battery", "argon2"):
        assert secret not in said


@pytest.mark.slow
async def test_a_folder_of_a_bucket_is_shared_by_the_gateway_itself(
    start_gateway: StartGateway, s3_storage: str
) -> None:
    gateway = await start_gateway(auth="token", tokens=TOKENS, storage=s3_storage)
    drop = await make_link(gateway, "drop", "/upload/in/", max_files=2)
    for _ in range(3):
        last = await ask_put(gateway, drop, "/upload/in/a.txt", b"text")
    assert last.status == 507
    link = await make_link(gateway, "share", "/upload/in/")
    entries = (await shared(link))["entries"]
    assert isinstance(entries, list)
    assert [entry["name"] for entry in entries] == ["a-1.txt", "a.txt"]
    url = path_of(entries[0]["url"])
    assert (await get(gateway, url, "Range: bytes=1-2")).body == b"ex"
    await link.revoke()
    assert (await get(gateway, url)).json["error"] == "link_unavailable"


async def ask_put(gateway: Gateway, link: MadeLink, target: str, body: bytes) -> RawResponse:
    head = request_head(
        "PUT", target, f"Authorization: Bearer {link.secret}", f"Content-Length: {len(body)}"
    )
    async with raw_connection(gateway) as connection:
        await connection.send(head + body)
        return await connection.answer()
