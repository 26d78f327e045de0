"""Requests about links, and sign-ins, that ask for too much: they are refused, and are no faults."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.auth import table_watcher
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import RawResponse, get, raw_connection, request_head, wait_until
from tests.support.links import OPERATOR, TOKENS, asked, make_link

AS_OPERATOR = f"X-Auth-Token: {OPERATOR}"
DEEP = b"[" * 10_000
"""Arrays in arrays, deeper than a parser goes."""

FAR = (b"1" + b"0" * 400, b"-1" + b"0" * 400, b"1e999", b"1e300")
"""Times at which no link can expire."""


async def post(gateway: Gateway, target: str, body: bytes, *lines: str) -> RawResponse:
    head = request_head(
        "POST", target, "Content-Type: application/json", f"Content-Length: {len(body)}", *lines
    )
    async with raw_connection(gateway) as connection:
        await connection.send(head + body)
        return await connection.answer()


async def test_a_body_that_is_nested_too_deeply_is_refused(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="token", tokens=TOKENS)
    link = await make_link(gateway, "share", "/upload/in/", password="pw")
    for target, line in (
        ("/-/session", "X-Other: none"),
        ("/-/links/open", f"Authorization: Bearer {link.secret}"),
        ("/-/links", AS_OPERATOR),
    ):
        answer = await post(gateway, target, DEEP, line)
        assert (answer.status, answer.json["error"]) == (400, "bad_request"), target


@pytest.mark.parametrize("expires", FAR)
async def test_a_link_that_would_expire_at_no_date_is_refused(
    start_gateway: StartGateway, expires: bytes
) -> None:
    gateway = await start_gateway(auth="token", tokens=TOKENS)
    body = b'{"kind": "share", "folder": "/a", "expires": ' + expires + b"}"
    answer = await post(gateway, "/-/links", body, AS_OPERATOR)
    assert (answer.status, answer.json["error"]) == (400, "bad_request")


async def test_no_zeros_before_a_limit_make_a_page_larger(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="token", tokens=TOKENS, listing="true")
    folder = tmp_path / "data" / "upload"
    folder.mkdir(parents=True)
    (folder / "a").write_text("a")
    for target in ("/upload/", "/-/files?path=/upload/", "/-/uploads", "/-/links", "/-/quotas"):
        mark = "&" if "?" in target else "?"
        for limit in ("00000000110000000", "000000001" + "0" * 5000):
            answer = await get(gateway, f"{target}{mark}limit={limit}", AS_OPERATOR)
            assert (answer.status, answer.json["error"]) == (400, "bad_request"), target


async def test_an_operator_sees_downloads_and_the_last_use_while_the_gateway_runs(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_watcher, "USES_INTERVAL", 0.0)
    gateway = await start_gateway(auth="token", tokens=TOKENS)
    folder = tmp_path / "data" / "upload" / "in"
    folder.mkdir(parents=True)
    (folder / "a").write_text("a")
    link = await make_link(gateway, "share", "/upload/in/")
    before = await link.row()
    assert (before["downloads"], before["last_used"]) == (0, None)
    page = await asked("GET", f"{gateway.url}/-/shared", link.headers)
    parts = urlsplit(str(page["zip"]))
    assert (await get(gateway, f"{parts.path}?{parts.query}")).status == 200

    async def is_shown() -> bool:
        row = await link.row()
        return row["downloads"] == 1 and row["last_used"] is not None

    await wait_until(is_shown)
