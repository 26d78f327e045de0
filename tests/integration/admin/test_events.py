"""Events over HTTP: what is told, what is changed, and who may not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from gateway.endpoints.admin.events import EventsEndpoint
from gateway.events import ledger
from gateway.events.combined_ledger import CombinedLedger
from gateway.events.journal import Journal
from gateway.events.protocols import Selection
from gateway.server.app import Gateway
from gateway.telemetry.redaction import REDACTED, Redaction
from tests.conftest import StartGateway, StartProcess
from tests.support.harness import (
    GatewayProcess,
    RawResponse,
    get,
    handlers_done,
    put,
    raw_connection,
    request_head,
    wait_settled,
    write_plugin,
)
from tests.support.recorders import FAILING
from tests.support.records import (
    claim_deliveries,
    delivery_states,
    publish_uploads,
    result_of,
    settle_run,
    upload_record,
)

JSON = "Content-Type: application/json"


async def post(gateway: Gateway | GatewayProcess, action: str, body: Any, *lines: str) -> RawResponse:
    """POST to /-/events/<action>; a body that is no text is said in JSON, with its type."""
    text = body if isinstance(body, str) else json.dumps(body)
    typed = () if any(line.lower().startswith("content-type") for line in lines) else (JSON,)
    async with raw_connection(gateway) as connection:
        said = request_head(
            "POST", f"/-/events/{action}", f"Content-Length: {len(text)}", *typed, *lines
        )
        await connection.send(said + text.encode())
        return await connection.answer()


async def dead(gateway: Gateway, *names: str, handler: str = "h") -> None:
    """Leave a dead delivery for each name."""
    publish_uploads(gateway.resources.journal, *names, handlers=(handler,))
    while claimed := claim_deliveries(gateway.resources.journal, handler, len(names)):
        for delivery in claimed:
            settle_run(gateway.resources.journal, delivery, "dead")


# -- pages


async def test_events_come_page_by_page(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    publish_uploads(gateway.resources.journal, *(f"u{number}" for number in range(5)))
    seen: list[str] = []
    after = ""
    while True:
        page = (await get(gateway, f"/-/events?limit=2{after}")).json
        seen += [row["upload_id"] for row in page["deliveries"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert seen == ["u0", "u1", "u2", "u3", "u4"]


async def test_events_can_be_narrowed(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    await dead(gateway, "a", handler="i")
    publish_uploads(gateway.resources.journal, "b", "c")

    async def told(query: str) -> list[tuple[str, str]]:
        rows = (await get(gateway, f"/-/events?{query}")).json["deliveries"]
        return [(row["event_id"], row["handler"]) for row in rows]

    assert await told("state=dead") == [("e-a", "i")]
    assert await told("handler=h&state=ready") == [("e-b", "h"), ("e-c", "h")]
    assert await told("event=e-c&event=e-a") == [("e-a", "i"), ("e-c", "h")]
    assert await told("since=1e9&scope=slot&state=dead") == [("e-a", "i")]
    assert await told("since=3e9") == []
    assert (await get(gateway, "/-/events?handler=nobody")).json == {"deliveries": [], "next": None}


@pytest.mark.parametrize(
    "query",
    [
        "state=held", "state=", "after=-1", "after=x", "limit=1.5", "limit=%D9%A3", f"after={'9' * 19}",
        "since=yesterday", "since=nan", "since=-1", "scope=all", "handler=",
    ],
)  # fmt: skip
async def test_parameters_that_make_no_sense_are_refused(
    start_gateway: StartGateway, query: str
) -> None:
    gateway = await start_gateway()
    answer = await get(gateway, f"/-/events?{query}")
    assert (answer.status, answer.json["error"]) == (400, "bad_request")


async def test_a_page_is_bounded_whatever_is_asked_for(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    result_of(
        gateway.resources.journal.outbox.record_uploads(
            [upload_record(f"u{number}") for number in range(1100)]
        )
    )
    for limit, length in (("100000000", 1000), ("0", 1)):
        page = (await get(gateway, f"/-/events?limit={limit}")).json
        assert len(page["deliveries"]) == length
        assert page["next"] is not None


async def test_an_event_tells_its_body_and_every_run_with_the_line_of_the_plugin(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(plugins=[str(write_plugin(tmp_path / "p", FAILING))])
    answer = await put(gateway, "/upload/x", b"12345")
    story = await handlers_done(gateway, answer.json["upload_id"], state="dead")
    event = (await get(gateway, f"/-/events/{story['handlers'][0]['event_id']}")).json
    assert (event["type"], event["path"], event["body"]["bytes"]) == (
        "APIGW.OnFileUploaded",
        "/upload/x",
        5,
    )
    (handler,) = event["handlers"]
    assert [run["outcome"] for run in handler["runs"]] == ["retry", "dead"]
    for run in handler["runs"]:
        assert run.keys() == {"attempt", "node", "ended", "duration", "outcome", "error"}
        assert 'p/plugin.yaml", line 7' in run["error"]


async def test_what_became_secret_later_is_not_told_either(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(redact=["X-Mine"])
    body = {"headers": {"x-mine": "s3cret", "X-Plain": "shown"}, "params": {"token": ["s3cret"]}}
    result_of(gateway.resources.journal.outbox.record_uploads([upload_record("a", body=body)]))
    answer = await get(gateway, "/-/events/e-a")
    assert answer.json["body"]["headers"] == {"x-mine": REDACTED, "X-Plain": "shown"}
    assert b"s3cret" not in answer.body


async def test_depth_and_paused_handlers_are_told(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    await dead(gateway, "a", "b")
    [depth] = (await get(gateway, "/-/events/depth")).json["depth"]
    assert (depth["handler"], depth["state"], depth["count"]) == ("h", "dead", 2)
    assert (await get(gateway, "/-/events/paused")).json == {"paused": []}
    assert (await get(gateway, "/-/events/queue")).json == {"queue": "journal", "prefix": None}


@pytest.mark.parametrize("page", ["e-unknown", "a/b", "%2e%2e", "retry/x"])
async def test_what_is_not_there_is_not_found(start_gateway: StartGateway, page: str) -> None:
    gateway = await start_gateway()
    assert (await get(gateway, f"/-/events/{page}")).status in {400, 404}


# -- retry, drop, replay, pause


async def test_dead_deliveries_are_retried_dropped_and_done_ones_replayed(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    await dead(gateway, "a", "b", "c")
    answer = await post(gateway, "retry", {"events": ["e-a", "e-unknown"]})
    assert (answer.status, answer.json) == (200, {"count": 1})
    settle_run(gateway.resources.journal, claim_deliveries(gateway.resources.journal)[0], "done")
    assert (await post(gateway, "drop", {"state": "dead", "handler": "h"})).json == {"count": 2}
    assert (await post(gateway, "replay", {"since": 0})).json == {"count": 1}
    assert delivery_states(gateway.resources.journal) == {("e-a", "h"): "ready"}


async def test_a_retry_reaches_the_handler_at_once(start_gateway: StartGateway, tmp_path: Path) -> None:
    folder, mended = tmp_path / "p", FAILING.replace("raise RuntimeError", "print")
    gateway = await start_gateway(plugins=[str(write_plugin(folder, FAILING))])
    upload = (await put(gateway, "/upload/x")).json["upload_id"]
    await handlers_done(gateway, upload, state="dead")
    write_plugin(folder, mended)
    await gateway.reload()
    assert (await post(gateway, "retry", {"state": "dead"})).json == {"count": 1}
    story = await handlers_done(gateway, upload)
    assert [run["outcome"] for run in story["handlers"][0]["runs"]] == ["retry", "dead", "done"]
    assert story["handlers"][0]["attempt"] == 1


async def test_a_paused_handler_s_events_wait_also_over_a_restart(
    start_gateway: StartGateway, gateway_process: StartProcess, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "p", FAILING.replace("raise RuntimeError", "print"))
    with gateway_process("--plugins", str(folder)) as first:
        answer = await post(first, "pause", {"handler": "failing"})
        assert answer.json == {"handler": "failing", "paused": True}
        await put(first, "/upload/x")
        first.kill()
    gateway = await start_gateway(plugins=[str(folder)])
    assert (await get(gateway, "/-/events/paused")).json == {"paused": ["failing"]}
    upload = (await put(gateway, "/upload/y")).json["upload_id"]
    [waiting] = (await get(gateway, f"/-/uploads/{upload}")).json["handlers"]
    assert (waiting["state"], waiting["attempt"]) == ("queued", 0)
    metrics = (await get(gateway, "/-/metrics")).body.decode()
    assert 'gateway_handler_paused{handler="failing"} 1.0' in metrics
    assert (await post(gateway, "resume", {"handler": "failing"})).json["paused"] is False
    await wait_settled(gateway)
    rows = (await get(gateway, "/-/events")).json["deliveries"]
    assert [(row["path"], row["state"]) for row in rows] == [
        ("/upload/x", "done"),
        ("/upload/y", "done"),
    ]


async def test_a_piece_tells_where_the_next_one_begins(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "MAX_CHUNK", 100)
    gateway = await start_gateway()
    await dead(gateway, *(f"u{number}" for number in range(125)))
    first = (await post(gateway, "retry", {"state": "dead", "after": None})).json
    assert first["count"] == 100
    second = (await post(gateway, "retry", {"state": "dead", "after": first["next"]})).json
    assert second == {"count": 25, "next": None}


@pytest.mark.parametrize(
    ("action", "body", "told"),
    [
        ("retry", {}, "everything"),
        ("drop", {"events": []}, "everything"),
        ("replay", {}, "everything"),
        ("retry", {"state": "done"}, "dead or delayed"),
        ("drop", {"state": "running"}, "dead or delayed or ready"),
        ("retry", {"status": "dead"}, "no 'status'"),
        ("retry", {"state": "dead", "after": "x"}, "cursor"),
        ("retry", {"events": "e-a"}, "list"),
        ("retry", {"events": ["e"] * 1001}, "at most 1000"),
        ("retry", {"events": [7]}, "text"),
        ("drop", {"since": True}, "Unix time"),
        ("retry", [], "JSON object"),
        ("retry", "no json", "Expecting value"),
        ("retry", "\\xff", "Expecting value"),
        ("pause", {}, "handler"),
        ("pause", {"handler": ""}, "handler"),
        ("resume", {"handler": "h", "state": "dead"}, "nothing else"),
    ],
)
async def test_what_is_not_said_clearly_changes_nothing(
    start_gateway: StartGateway, action: str, body: Any, told: str
) -> None:
    gateway = await start_gateway()
    await dead(gateway, "a")
    answer = await post(gateway, action, body)
    assert (answer.status, answer.json["error"]) == (400, "bad_request")
    assert told in answer.json["message"]
    assert delivery_states(gateway.resources.journal) == {("e-a", "h"): "dead"}
    assert await gateway.resources.journal.ledger.paused() == frozenset()


async def test_each_page_says_how_it_is_asked(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    for method, page, allow in (
        ("POST", "", "GET, HEAD"),
        ("DELETE", "/e-a", "GET, HEAD"),
        ("GET", "/retry", "POST"),
        ("PUT", "/pause", "POST"),
        ("OPTIONS", "/retry", "POST"),
    ):
        async with raw_connection(gateway) as connection:
            await connection.send(request_head(method, f"/-/events{page}", "Content-Length: 0"))
            answer = await connection.answer()
        assert (answer.status, answer.headers["Allow"]) == (405, allow)


async def test_a_long_body_is_not_read(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        lines = (JSON, "Content-Length: 300000", "Expect: 100-continue")
        await connection.send(request_head("POST", "/-/events/retry", *lines))
        assert (await connection.answer()).status == 413
    async with raw_connection(gateway) as connection:
        await connection.send(
            request_head("POST", "/-/events/retry", JSON, "Transfer-Encoding: chunked")
        )
        await connection.send(b"50000\r\n" + b" " * 0x50000 + b"\r\n0\r\n\r\n")
        assert (await connection.answer()).status == 413


async def test_a_client_that_expects_100_continue_gets_it(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        lines = (JSON, "Content-Length: 17", "Expect: 100-continue")
        await connection.send(request_head("POST", "/-/events/retry", *lines))
        assert b"100" in await connection.line()
        await connection.send(b'{"state": "dead"}')
        assert (await connection.answer()).json == {"count": 0}


# -- who may not


@pytest.mark.parametrize("action", ["retry", "drop", "replay", "pause", "resume"])
async def test_steering_needs_the_default_authorization(
    start_gateway: StartGateway, action: str
) -> None:
    gateway = await start_gateway(auth="token")
    await dead(gateway, "a")
    body = {"handler": "h"} if action in {"pause", "resume"} else {"events": ["e-a"]}
    assert (await post(gateway, action, body)).status == 401
    assert delivery_states(gateway.resources.journal) == {("e-a", "h"): "dead"}
    answer = await post(gateway, action, body, f"X-Auth-Token: {gateway.resources.base.shared.token}")
    assert answer.status == 200


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Content-Type: text/plain"], 415),
        (["Content-Type: application/x-www-form-urlencoded"], 415),
        (["Content-Type: "], 415),
        (["Origin: http://evil.example"], 403),
        (["Origin: null"], 403),
        (["Origin: http://test:1"], 403),
        (["Sec-Fetch-Site: cross-site", "Origin: http://test"], 403),
        (["Sec-Fetch-Site: same-site"], 403),
        (["Sec-Fetch-Site: same-origin", "Origin: http://test"], 200),
        (["Content-Type: Application/JSON; charset=utf-8"], 200),
    ],
)
async def test_a_page_of_another_site_changes_nothing_even_without_authorization(
    start_gateway: StartGateway, lines: list[str], status: int
) -> None:
    gateway = await start_gateway(auth="none")
    await dead(gateway, "a")
    answer = await post(gateway, "drop", {"state": "dead"}, *lines)
    assert answer.status == status
    assert (delivery_states(gateway.resources.journal) == {}) == (status == 200)


# -- scope


async def test_a_request_for_the_slot_is_answered_without_the_others(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    await dead(gateway, "mine")
    other = Journal(tmp_path / "other.db", full=False)
    other.open()
    own = gateway.resources.journal.ledger
    whole = CombinedLedger({"slot-0": own, "slot-1": other.ledger})
    gateway.endpoints.dispatcher.api.handlers |= EventsEndpoint(own, whole, Redaction()).handlers()
    publish_uploads(other, "theirs")
    for page, names in (("/-/events", {"mine", "theirs"}), ("/-/events?scope=slot", {"mine"})):
        rows = (await get(gateway, page)).json["deliveries"]
        assert {row["upload_id"] for row in rows} == names
    assert (await post(gateway, "drop?scope=slot", {"handler": "h"})).json == {"count": 1}
    assert len((await other.ledger.page(Selection(), None, 9)).rows) == 1
    other.close()
    answer = await get(gateway, "/-/events")
    assert (answer.status, answer.json["error"]) == (503, "journal_unavailable")
    assert (await get(gateway, "/-/events?scope=slot")).status == 200


# -- errors in groups


async def test_the_dead_are_told_in_groups_of_one_error_and_a_group_is_changed_alone(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    journal = gateway.resources.journal
    for name, error in (("a", "row 1 is bad"), ("b", "row 22 is bad"), ("c", "away"), ("d", "")):
        publish_uploads(journal, name)
        settle_run(journal, claim_deliveries(journal)[0], "dead", error)
    answer = (await get(gateway, "/-/events/errors?handler=h")).json
    told = [(group["error"], group["count"]) for group in answer["groups"]]
    assert told == [("row … is bad", 2), ("", 1), ("away", 1)]
    assert (answer["read"], answer["other"], answer["complete"]) == (4, 0, True)
    page = (await get(gateway, f"/-/events?state=dead&error={quote('row … is bad')}")).json
    assert [row["upload_id"] for row in page["deliveries"]] == ["a", "b"]
    group = {"state": "dead", "handler": "h", "error": "row … is bad"}
    assert (await post(gateway, "retry", {**group, "after": None})).json == {"count": 2, "next": None}
    assert (await post(gateway, "drop", {**group, "error": ""})).json == {"count": 1}
    assert delivery_states(journal) == {
        ("e-a", "h"): "ready", ("e-b", "h"): "ready", ("e-c", "h"): "dead",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("retry", {"error": "x"}),
        ("retry", {"handler": "h", "error": "x"}),
        ("retry", {"state": "delayed", "error": "x"}),
        ("replay", {"state": "done", "error": "x"}),
        ("drop", {"state": "dead", "error": 7}),
        ("drop", {"state": "dead", "error": "x" * 2000}),
    ],
)
async def test_a_group_is_one_of_dead_deliveries_alone(
    start_gateway: StartGateway, action: str, body: dict[str, Any]
) -> None:
    gateway = await start_gateway()
    assert (await post(gateway, action, body)).status == 400


async def test_groups_are_of_failed_deliveries(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="token")
    assert (await get(gateway, "/-/events/errors")).status == 401
    token = f"Authorization: Bearer {gateway.resources.base.shared.token}"
    assert (await get(gateway, "/-/events/errors?state=done", token)).status == 400
    assert (await get(gateway, "/-/events/errors?state=delayed", token)).json["groups"] == []
