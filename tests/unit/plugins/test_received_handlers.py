"""Tests of handlers of OnFileReceived, and of what handlers leave for the client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.event_bodies import received_body, received_id
from gateway.domain.held import Decision, HandlerRefusal
from gateway.domain.model import RECEIVED, UPLOADED, UPLOADING, Delivery, Upload
from gateway.errors import ConfigError, HandlerFailed, Refusal, Terminated
from gateway.plugins.scripting.decision import MAX_RESULT_BYTES, Handle, InvalidResult
from tests.unit.plugins.conftest import Start, deliver
from tests.unit.plugins.test_hooks import plugin, upload

HOLD = "hold: true\n"


def body_of(one: Upload) -> dict[str, Any]:
    return received_body(one, mime="a/b", size=3, digests={"sha-256": "x"}, params={}, headers={})


def event_of(one: Upload) -> dict[str, Any]:
    return {**body_of(one), "id": received_id(one.id), "upload_id": one.id, "filepath": "/private"}


def held_delivery(one: Upload) -> Delivery:
    return Delivery(1, received_id(one.id), one.id, RECEIVED, "h", 1, body_of(one))


async def test_handlers_see_the_private_file_and_change_path_policy_and_metadata_in_name_order(
    start: Start,
) -> None:
    hooks = await start(
        plugin(
            "a",
            "assert event['filepath'] == '/private' and event['bytes'] == 3\n"
            "assert event['digests'] == {'sha-256': 'x'} and event['on_conflict'] == 'replace'\n"
            "event['metadata']['Scan'] = 'clean'; event['path'] = '/a'; handle.result({'a': 1, 'b': 1})",
            RECEIVED,
        ),
        plugin(
            "b",
            "assert event['metadata'] == {'k': 'v', 'Scan': 'clean'}\n"
            "event['path'] += '-b'; event['on_conflict'] = 'rename'; await handle.result({'b': 2})",
            RECEIVED,
        ),
        plugin("c", "pass", RECEIVED, HOLD),
        plugin("d", "pass", RECEIVED, HOLD),
    )
    one = upload(metadata={"k": "v"})
    event = event_of(one)
    assert await hooks.decide_received(one, event) == ("c", "d")
    assert (one.path, one.on_conflict) == ("/a-b", "rename")
    assert one.metadata == {"k": "v", "scan": "clean"}
    assert one.results == {"a": {"a": 1, "b": 1}, "b": {"b": 2}}


async def test_without_handlers_nothing_is_held_and_nothing_changes(start: Start) -> None:
    hooks, one = await start(), upload()
    assert await hooks.decide_received(one, event_of(one)) == ()
    assert one == upload()


async def test_a_refusal_has_the_status_and_the_output_of_the_handler(start: Start) -> None:
    hooks = await start(plugin("h", "handle.terminate(422, {'virus': 'EICAR'}); 1 / 0", RECEIVED))
    one = upload()
    with pytest.raises(Terminated) as caught:
        await hooks.decide_received(one, event_of(one))
    assert (caught.value.status, json.loads(caught.value.body)) == (422, {"virus": "EICAR"})


@pytest.mark.parametrize(
    "body",
    [
        "raise ValueError",
        "event['path'] = 3",
        "event['on_conflict'] = 'maybe'",
        "event['metadata'] = None",
        "event['metadata']['k'] = 3",
        "event['metadata']['a b'] = 'v'",
        "handle.result([])",
        "await asyncio.Event().wait()",
    ],
)
async def test_what_is_no_decision_refuses_with_hook_failed(start: Start, body: str) -> None:
    hooks = await start(plugin("h", body, RECEIVED, "timeout: 0.2\n"))
    one = upload()
    with pytest.raises(Refusal) as caught:
        await hooks.decide_received(one, event_of(one))
    assert caught.value.code == "hook_failed"
    assert one == upload()


async def test_a_handler_that_may_fail_changes_nothing_when_it_does(start: Start) -> None:
    body = "event['path'] = '/no'; event['metadata']['k'] = 'v'; handle.result({'a': 1}); 1 / 0"
    hooks = await start(plugin("h", body, RECEIVED, "on_error: allow\n"))
    one = upload()
    await hooks.decide_received(one, event_of(one))
    assert one == upload()


async def test_a_handler_that_holds_on_error_decides_later_where_it_failed(start: Start) -> None:
    fails = "event['path'] = '/no'; handle.result({'a': 1}); assert event['bytes'] == 4"
    hooks = await start(
        plugin("b", fails, RECEIVED, "on_error: hold\nretry: {attempts: 3}\n"),
        plugin("c", "event['path'] = '/c'", RECEIVED, "on_error: hold\n"),
        plugin("d", "pass", RECEIVED, HOLD),
    )
    one = upload()
    assert await hooks.decide_received(one, event_of(one)) == ("b", "d")
    assert (one.path, one.results) == ("/c", {})
    assert [spec.name for spec in hooks.holding_specs()] == ["b", "c", "d"]
    assert hooks.holding_specs()[0].retry.attempts == 3


@pytest.mark.parametrize("body", ["handle.terminate(422, 'no')", "event['path'] = 3"])
async def test_a_handler_that_holds_on_error_decides_now_where_it_can(start: Start, body: str) -> None:
    hooks = await start(plugin("h", body, RECEIVED, "on_error: hold\n"))
    one = upload()
    with pytest.raises(Refusal):
        await hooks.decide_received(one, event_of(one))


async def test_a_handler_that_blocks_over_a_file_delays_no_admission(
    start: Start, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    blocks = f"import os\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.001)"
    hooks = await start(plugin("b", blocks, RECEIVED), plugin("h", "event['path'] = '/admitted'"))
    one, two = upload(), upload()
    deciding = asyncio.create_task(hooks.decide_received(one, event_of(one)))
    await asyncio.sleep(0)
    await hooks.admit_upload(two)
    assert (two.path, deciding.done()) == ("/admitted", False)
    await asyncio.to_thread(gate.touch)
    assert await deciding == ()


async def test_results_of_admission_are_kept_by_handler(start: Start) -> None:
    hooks = await start(plugin("h", "handle.result({'quota': 3})"))
    one = upload()
    await hooks.admit_upload(one)
    assert one.results == {"h": {"quota": 3}}


@pytest.mark.parametrize(
    ("body", "decision"),
    [
        ("pass", Decision()),
        ("handle.result({'a': 1})", Decision(result={"a": 1})),
        ("event['path'] = 'b'", Decision(path="/b")),
        ("event['metadata']['x'] = 'y'", Decision(metadata={"k": "v", "x": "y"})),
        ("event['on_conflict'] = 'reject'", Decision(on_conflict="reject")),
        ("handle.terminate(200, 'fine')", Decision()),
        (
            "handle.result({'a': 1}); handle.terminate(415, 'no'); raise ValueError",
            Decision(HandlerRefusal(415, b"no", "text/plain; charset=utf-8"), result={"a": 1}),
        ),
    ],
)
async def test_a_delivery_with_hold_ends_with_a_decision(
    start: Start, body: str, decision: Decision
) -> None:
    hooks = await start(plugin("h", body, RECEIVED, HOLD))
    one = upload(metadata={"k": "v"})
    delivery = held_delivery(one)
    outcome = await hooks.run_delivery(delivery, {**delivery.body, "attempt": 1})
    assert outcome == (None, decision.result, decision)
    assert delivery.body == body_of(one)


@pytest.mark.parametrize("body", ["raise ValueError", "event['metadata'] = 1", "handle.terminate(9)"])
async def test_a_delivery_with_hold_that_decides_nothing_has_failed(start: Start, body: str) -> None:
    hooks = await start(plugin("h", f"handle.result({{'a': 1}}); {body}", RECEIVED, HOLD))
    delivery = held_delivery(upload())
    outcome = await hooks.run_delivery(delivery, {**delivery.body, "attempt": 1})
    assert isinstance(outcome.error, HandlerFailed)
    assert (outcome.result, outcome.decision) == ({"a": 1}, None)


async def test_a_journalled_handler_leaves_a_result_whether_it_fails_or_not(start: Start) -> None:
    hooks = await start(plugin("h", "handle.result({'n': 1}); 1 / event['n']", UPLOADED))
    delivery = Delivery(1, "e-0", "u-0", UPLOADED, "h", 1, {})
    assert await deliver(hooks, delivery, {"n": 1}) == (None, {"n": 1}, None)
    failed = await hooks.run_delivery(delivery, {"n": 0})
    assert isinstance(failed.error, HandlerFailed)
    assert failed.result == {"n": 1}


async def test_holding_handlers_have_the_time_and_the_retries_of_journalled_ones(start: Start) -> None:
    hooks = await start(
        plugin("a", "pass", RECEIVED),
        plugin("h", "pass", RECEIVED, "hold: true\nretry: {attempts: 3}\n"),
    )
    [spec] = hooks.holding_specs()
    assert (spec.name, spec.timeout, spec.concurrency, spec.retry.attempts) == ("h", 3600, 4, 3)
    waiting = hooks._plugins.current.handler(RECEIVED, "a")
    assert waiting is not None
    assert waiting.timeout == 60
    assert hooks.handler_specs() == ()
    assert hooks._plugins.describe()[0].endswith("decides while the client waits")


@pytest.mark.parametrize(
    ("event", "more", "message"),
    [
        (UPLOADED, HOLD, "`hold` applies to APIGW.OnFileReceived only: remove it"),
        (
            RECEIVED,
            "retry: {attempts: 2}\n",
            "`retry` applies with `hold: true` or `on_error: hold` only",
        ),
        (
            RECEIVED,
            "concurrency: 2\n",
            "`concurrency` applies with `hold: true` or `on_error: hold` only",
        ),
        (RECEIVED, f"on_error: allow\n{HOLD}", "`on_error` does not apply with `hold: true`: remove it"),
        (RECEIVED, f"on_error: hold\n{HOLD}", "`on_error` does not apply with `hold: true`: remove it"),
        (UPLOADING, "on_error: hold\n", "`on_error: hold` applies to APIGW.OnFileReceived only"),
        (RECEIVED, "authorization: keep\n", "`authorization` applies to "),
    ],
)
async def test_keys_that_do_not_fit_hold_are_refused_with_their_line(
    start: Start, event: str, more: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        await start(plugin("h", "pass", event, more))
    assert message in str(caught.value)
    assert "0.yaml:" in str(caught.value)


class Odd(dict[str, Any]):
    """A dict that scripts may use."""


@pytest.mark.parametrize("values", [{}, {"a": [1, "é", None]}, Odd(a={"b": 1.5})])
def test_the_last_result_counts_and_shares_nothing_with_the_script(values: dict[str, Any]) -> None:
    handle = Handle()
    handle.result({"x": 1})
    handle.result(values)
    assert handle.latest_result == values
    values["later"] = 1
    assert handle.latest_result != values


@pytest.mark.parametrize(
    "values",
    [
        None,
        [1],
        {"a": float("nan")},
        {"a": b"bytes"},
        {(1, 2): 3},
        {"a": "\ud800"},
        {"a": "x" * MAX_RESULT_BYTES},
        {"a": "é" * (MAX_RESULT_BYTES // 2)},
    ],
)
def test_a_result_is_a_bounded_json_object(values: Any) -> None:
    handle = Handle()
    handle.result({"x": 1})
    with pytest.raises(InvalidResult, match=r"^result\(\) takes "):
        handle.result(values)
    assert handle.latest_result == {"x": 1}


def test_a_result_of_exactly_the_bound_is_taken() -> None:
    handle, values = Handle(), {"a": "x" * (MAX_RESULT_BYTES - 9)}
    handle.result(values)
    left: Mapping[str, Any] | None = handle.latest_result
    assert left is not None
    assert len(json.dumps(left)) == MAX_RESULT_BYTES
