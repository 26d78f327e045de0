"""Tests of gateway.plugins.hooks: handlers that behave, fail, hang, block and leave junk."""

from __future__ import annotations

import asyncio
import logging
import os
import textwrap
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.model import UPLOAD_FAILED, UPLOADED, UPLOADING, Delivery, RetryPolicy, Upload
from gateway.errors import HandlerFailed, HandlerGone, Postponed, Refusal, Terminated
from gateway.plugins.delivery_runs import DeliveryOutcome
from gateway.plugins.scripting.executor import MAX_REPLACEMENTS
from gateway.plugins.scripting.live_work import LiveWork, wait_for_live_work
from tests.support import TESTS
from tests.support.harness import wait_until
from tests.unit.plugins.conftest import Start, deliver

GOLDEN = TESTS / "golden" / "plugins"


def plugin(name: str, body: str, event: str = UPLOADING, more: str = "") -> str:
    script = textwrap.indent(textwrap.dedent(body).strip("\n"), "      ")
    return (
        f"name: {name}\nevent: {event}\n{more}script: |\n  async def {name}(event, handle):\n{script}\n"
    )


def upload(**values: Any) -> Upload:
    return Upload(**{"id": "u-0", "path": "/upload/a", "headers": {"X-Auth-Token": "t"}, **values})


def delivery(handler: str = "h") -> Delivery:
    return Delivery(1, "e-0", "u-0", UPLOADED, handler, 1, {})


async def test_without_handlers_an_upload_is_left_as_it_is(start: Start) -> None:
    hooks = await start()
    one = upload()
    await hooks.admit_upload(one)
    assert one == upload()
    assert hooks.alive
    assert not hooks.replaces_authorization()


async def test_the_published_sample_refuses_without_a_token_and_accepts_with_one(start: Start) -> None:
    hooks = await start(folder=GOLDEN)
    with pytest.raises(Terminated) as caught:
        await hooks.admit_upload(upload(headers={}))
    assert (caught.value.status, caught.value.body) == (401, b"Unauthorized")
    await hooks.admit_upload(upload(headers={"x-auth-token": "t"}))


async def test_handlers_change_path_limit_and_conflict_policy_in_name_order(start: Start) -> None:
    hooks = await start(
        plugin("b", "event['path'] += '-b'; event['max_bytes'] = 5"),
        plugin(
            "a",
            "event['path'] = 'x/a'; event['on_conflict'] = 'reject'; await handle.terminate(code=200)",
        ),
    )
    one = upload()
    await hooks.admit_upload(one)
    assert (one.path, one.max_bytes, one.on_conflict) == ("/x/a-b", 5, "reject")


async def test_the_first_refusal_wins_and_nothing_is_changed(start: Start) -> None:
    hooks = await start(
        plugin("a", "event['path'] = '/changed'"),
        plugin("b", "await handle.terminate(code=418, output={'why': 'tea'})"),
        plugin("c", "await handle.terminate(code=403)"),
    )
    one = upload()
    with pytest.raises(Terminated) as caught:
        await hooks.admit_upload(one)
    assert (caught.value.status, caught.value.body) == (418, b'{"why": "tea"}')
    assert caught.value.content_type == "application/json"
    assert one == upload()


@pytest.mark.parametrize(
    "body",
    [
        "handle.terminate(code=401)",
        "await handle.terminate(code=401); await handle.terminate(code=200)",
        "await handle.terminate(code=200); await handle.terminate(code=401)",
        "await handle.terminate(code=401); event['path'] = 5",
        "await handle.terminate(code=401); 1 / 0",
        "await handle.terminate(code=401); raise SystemExit",
        "await handle.terminate(code=401); await asyncio.Event().wait()",
    ],
)
async def test_a_refusal_is_final_whatever_comes_behind_it(start: Start, body: str) -> None:
    hooks = await start(plugin("h", body, more="timeout: 0.1\non_error: allow\n"))
    with pytest.raises(Terminated) as caught:
        await hooks.admit_upload(upload())
    assert caught.value.status == 401


def patience(body: str) -> str:
    """Little time for a body that takes all that it gets, much for others."""
    return f"timeout: {0.1 if 'wait()' in body or 'sleep' in body else 30}\n"


FAILING = [
    "raise ValueError('secret-of-the-script')",
    "raise SystemExit(1)",
    "raise KeyboardInterrupt",
    "raise asyncio.CancelledError",
    "raise StopIteration",
    "await asyncio.Event().wait()",
]


@pytest.mark.parametrize("body", FAILING)
async def test_a_handler_that_fails_refuses_and_says_its_name_only(start: Start, body: str) -> None:
    hooks = await start(plugin("h", f"event['path'] = '/changed'\n{body}", more=patience(body)))
    one = upload()
    with pytest.raises(Refusal) as caught:
        await hooks.admit_upload(one)
    assert (caught.value.code, caught.value.status) == ("hook_failed", 503)
    assert "h" in caught.value.message
    assert "secret" not in caught.value.message
    assert one == upload()
    assert hooks.alive


@pytest.mark.parametrize("body", FAILING)
async def test_with_on_error_allow_a_failing_handler_is_ignored_with_its_changes(
    start: Start, body: str
) -> None:
    hooks = await start(
        plugin("h", f"event['path'] = '/changed'\n{body}", more="timeout: 0.1\non_error: allow\n"),
        plugin("i", "event['max_bytes'] = 7"),
    )
    one = upload()
    await hooks.admit_upload(one)
    assert (one.path, one.max_bytes) == ("/upload/a", 7)


@pytest.mark.parametrize(
    "body",
    [
        "event['path'] = 5",
        "del event['path']",
        "event.clear()",
        "event['max_bytes'] = -1",
        "event['max_bytes'] = 'many'",
        "event['on_conflict'] = 'ask'",
        "await handle.terminate(code=99)",
        "await handle.terminate(code='401')",
        "await handle.terminate(code=401, output=object())",
        "try: await handle.terminate(code='401')\nexcept Exception: pass",
    ],
)
async def test_junk_refuses_even_where_errors_are_allowed(start: Start, body: str) -> None:
    hooks = await start(plugin("h", body, more="on_error: allow\n"))
    with pytest.raises(Refusal) as caught:
        await hooks.admit_upload(upload())
    assert caught.value.code == "hook_failed"


async def test_the_log_names_plugin_file_and_line_with_the_traceback(
    start: Start, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    hooks = await start(plugin("h", "x = 1\nraise ValueError('why')"))
    with caplog.at_level(logging.INFO, "gateway.hooks"), pytest.raises(Refusal):
        await hooks.admit_upload(upload())
    (record,) = caplog.records
    facts = vars(record)["fields"]
    assert (facts["handler"], facts["event_type"]) == ("h", UPLOADING)
    assert facts["place"] == f"{tmp_path}/0.yaml:6"
    assert facts["outcome"] == "ValueError: why"
    assert f'File "{tmp_path}/0.yaml", line 6, in h' in record.getMessage()
    assert "gateway/" not in record.getMessage()


async def test_every_run_is_one_line_in_the_log(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    hooks = await start(plugin("a", "pass"), plugin("b", "await handle.terminate(403)"))
    with caplog.at_level(logging.INFO, "gateway.hooks"), pytest.raises(Terminated):
        await hooks.admit_upload(upload())
    assert [vars(record)["fields"]["outcome"] for record in caplog.records] == [
        "accepted",
        "refused 403",
    ]


async def test_the_server_goes_on_while_a_handler_blocks(start: Start, tmp_path: Path) -> None:
    go = tmp_path / "go"
    body = f"""
    import os
    while not os.path.exists({str(go)!r}):
        time.sleep(0.01)
    event['path'] = '/late'
    """
    hooks = await start(plugin("h", body, more="timeout: 30\n"))
    one = upload()
    task = asyncio.create_task(hooks.admit_upload(one))
    for _ in range(20):
        await asyncio.sleep(0.01)
    assert not task.done()
    go.touch()
    await task
    assert (one.path, hooks.alive) == ("/late", True)


async def test_a_handler_that_blocks_for_ever_costs_its_caller_the_time_out_only(
    start: Start, quick: None
) -> None:
    hooks = await start(plugin("h", "if event.get('X-Block'):\n    time.sleep(60)", more="timeout: 1\n"))
    with pytest.raises(Refusal) as caught:
        await asyncio.wait_for(hooks.admit_upload(upload(headers={"X-Block": "1"})), 30)
    assert caught.value.code == "hook_failed"
    await hooks.admit_upload(upload())
    assert hooks.alive


async def test_an_executor_that_is_lost_for_good_uses_up_nobodys_attempts(
    start: Start, quick: None
) -> None:
    blocks = plugin("h", "if event['attempt'] == 1:\n    time.sleep(60)", UPLOADED, "timeout: 0.3\n")
    hooks = await start(blocks)
    for _ in range(MAX_REPLACEMENTS):
        with pytest.raises(HandlerFailed):
            await deliver(hooks, delivery(), {"attempt": 1})
    with pytest.raises((HandlerFailed, Postponed)):
        await deliver(hooks, delivery(), {"attempt": 1})
    assert not hooks.alive
    with pytest.raises(Postponed, match="restart this process"):
        await deliver(hooks, delivery(), {"attempt": 2})


async def test_a_handler_that_swallows_its_cancellation_is_given_up(start: Start) -> None:
    body = """
    for _ in range(2):
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            pass
    """
    hooks = await start(plugin("h", body, more="timeout: 0.1\n"))
    with pytest.raises(Refusal):
        await asyncio.wait_for(hooks.admit_upload(upload()), 5)
    assert hooks.alive


async def test_handlers_decide_together_who_authorizes(start: Start) -> None:
    keep = "authorization: keep\n"
    assert not (await start(plugin("a", "pass", more=keep))).replaces_authorization()
    both = await start(plugin("a", "pass", more=keep), plugin("b", "pass"))
    assert both.replaces_authorization()


async def test_admission_uses_the_generation_of_its_moment(start: Start, tmp_path: Path) -> None:
    hooks = await start(plugin("a", "await asyncio.sleep(0.05)"), plugin("b", "event['path'] = '/old'"))
    one = upload()
    task = asyncio.create_task(hooks.admit_upload(one))
    await asyncio.sleep(0)
    (tmp_path / "1.yaml").write_text(plugin("b", "event['path'] = '/new'"))
    await hooks._plugins.reload()
    await task
    two = upload()
    await hooks.admit_upload(two)
    assert (one.path, two.path) == ("/old", "/new")


async def test_a_delivery_runs_its_handler_on_the_complete_event(start: Start) -> None:
    hooks = await start(
        plugin("h", "assert event['attempt'] == 1 and event.get('x-a') == 'b'", UPLOADED)
    )
    event = {"attempt": 1, "headers": {"X-A": "b"}}
    await deliver(hooks, delivery(), event)
    assert event == {"attempt": 1, "headers": {"X-A": "b"}}


@pytest.mark.parametrize(
    ("body", "more"),
    [("pass", True), ("await asyncio.sleep(0)", False), ("import time; time.sleep(0.01)", False)],
    ids=["quick", "awaits", "slow"],
)
async def test_short_runs_of_a_handler_that_never_awaits_use_more_slots_than_its_concurrency(
    start: Start, body: str, more: bool
) -> None:
    hooks = await start(plugin("h", body, UPLOADED, more="concurrency: 3\n"))
    [spec] = hooks.handler_specs(UPLOADED)
    assert hooks.delivery_slots(spec) == 3
    for _ in range(20):
        await deliver(hooks, delivery(), {})
    assert (hooks.delivery_slots(spec) > 3) is more


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('why')", "ValueError: why"),
        ("await handle.terminate(code=500)", "terminated with 500"),
        ("handle.terminate(code=0)", "terminate() takes a code from 100 to 599"),
        ("raise SystemExit", "the script raised SystemExit"),
        ("await asyncio.Event().wait()", "not finished within 0.1 s, waiting at "),
        ("time.sleep(20)", "script executor work was stuck at "),
        ("await callout(endpoint='127.0.0.1:1')", "ClientConnectorError"),
        ("await get_service_config('none')", "LookupError: there is no Config plugin named 'none'"),
    ],
)
async def test_a_delivery_that_fails_says_why(
    start: Start, body: str, message: str, request: pytest.FixtureRequest
) -> None:
    if "sleep" in body:
        request.getfixturevalue("quick")
    hooks = await start(plugin("h", body, UPLOADED, more=patience(body)))
    with pytest.raises(HandlerFailed) as caught:
        await asyncio.wait_for(deliver(hooks, delivery(), {}), 30)
    assert str(caught.value).startswith(message)
    assert "gateway/" not in caught.value.traceback


@pytest.mark.usefixtures("quick")
async def test_a_run_that_another_one_has_kept_from_beginning_is_postponed(start: Start) -> None:
    body = "if event['attempt'] == 1: time.sleep(20)"
    hooks = await start(plugin("h", body, UPLOADED, more=patience(body)))
    ended: list[DeliveryOutcome] = []
    for attempt in (1, 2):
        hooks.submit_delivery(delivery(), {"attempt": attempt}, ended.append)

    async def both() -> bool:
        return len(ended) == 2

    await wait_until(both)
    assert sorted(type(outcome.error).__name__ for outcome in ended) == ["HandlerFailed", "Postponed"]


async def test_a_failed_delivery_carries_the_traceback_without_the_secrets_of_configs(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRET_1", "hunter22")
    hooks = await start(
        plugin("h", "raise ValueError((await get_service_config('c'))['k'])", UPLOADED),
        "name: c\nconfig: {k: '${env:SECRET_1}'}\n",
    )
    with pytest.raises(HandlerFailed) as caught:
        await deliver(hooks, delivery(), {})
    assert str(caught.value) == "ValueError: [redacted]"
    assert f'{tmp_path}/0.yaml", line 5, in h' in caught.value.traceback
    assert "hunter22" not in caught.value.traceback


async def test_an_error_of_the_gateway_that_a_script_raises_is_stored_without_secrets(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_1", "hunter22")
    body = "from gateway.errors import Superseded\n"
    body += "raise Superseded((await get_service_config('c'))['k'])"
    hooks = await start(plugin("h", body, UPLOADED), "name: c\nconfig: {k: '${env:SECRET_1}'}\n")
    with pytest.raises(HandlerFailed) as caught:
        await deliver(hooks, delivery(), {})
    assert str(caught.value) == "[redacted]"


async def test_a_delivery_whose_handler_is_gone_says_so(start: Start) -> None:
    hooks = await start(plugin("h", "pass", UPLOADED))
    with pytest.raises(HandlerGone):
        await deliver(hooks, delivery("other"), {})


async def test_a_delivery_accepted_by_terminate_is_done(start: Start) -> None:
    hooks = await start(plugin("h", "await handle.terminate(code=200, output='ok')", UPLOADED))
    await deliver(hooks, delivery(), {})


async def test_the_runner_learns_the_specs_of_the_newest_generation(
    start: Start, tmp_path: Path
) -> None:
    hooks = await start(plugin("h", "pass", UPLOADED, more="concurrency: 2\nretry: {attempts: 3}\n"))
    (spec,) = hooks.handler_specs(UPLOADED)
    assert (spec.name, spec.timeout, spec.concurrency) == ("h", 3600.0, 2)
    assert spec.retry == RetryPolicy(attempts=3)
    (tmp_path / "0.yaml").write_text(plugin("g", "pass", UPLOADED))
    await hooks._plugins.reload()
    assert [one.name for one in hooks.handler_specs(UPLOADED)] == ["g"]


async def test_a_failed_upload_is_told_without_waiting(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    hooks = await start(
        plugin("a", "raise ValueError", UPLOAD_FAILED),
        plugin(
            "b", "logger.info('%s %s %s', event['path'], event['reason'], event['bytes'])", UPLOAD_FAILED
        ),
    )
    with caplog.at_level(logging.INFO, "gateway.plugin"):
        hooks.notify_upload_failed(upload(), "idle_timeout", 12)
        assert not caplog.records
        await hooks.close(5)
    told = [record for record in caplog.records if record.name == "gateway.plugin.b"]
    assert [record.getMessage() for record in told] == ["/upload/a idle_timeout 12"]


async def test_failed_uploads_beyond_a_hundred_at_once_are_not_told(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    hooks = await start(plugin("a", "await asyncio.sleep(20)", UPLOAD_FAILED))
    for _ in range(103):
        hooks.notify_upload_failed(upload(), "idle_timeout", 0)
    assert sum("too many" in record.getMessage() for record in caplog.records) == 3


# -- what outlives its time-out

IN_A_THREAD = """
def work():
    with open(event["gate"]) as gate:
        gate.read()
    open(event["gate"] + ".ended", "w").close()
await asyncio.to_thread(work)
"""


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A pipe that a thread of a script reads until somebody opens it for writing."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


async def test_a_run_whose_time_is_up_ends_when_its_thread_has_ended(
    start: Start, gate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = await start(plugin("h", IN_A_THREAD, UPLOADED, "timeout: 0.1\n"))

    async def wait(live: LiveWork, seconds: float) -> bool:
        assert seconds == 0.1
        assert not Path(f"{gate}.ended").exists()
        await asyncio.to_thread(gate.write_text, "")
        return await wait_for_live_work(live, 30)

    monkeypatch.setattr("gateway.plugins.delivery_runs.wait_for_live_work", wait)
    with pytest.raises(HandlerFailed, match=r"not finished within 0\.1 s"):
        await deliver(hooks, delivery(), {"gate": str(gate)})
    assert Path(f"{gate}.ended").exists()


async def test_a_thread_that_does_not_end_holds_a_run_up_once_more_for_its_time_out(
    start: Start, gate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hooks = await start(plugin("h", IN_A_THREAD, UPLOADED, "timeout: 0.1\n"))
    with pytest.raises(HandlerFailed):
        await deliver(hooks, delivery(), {"gate": str(gate)})
    assert [record for record in caplog.records if "may overlap" in record.getMessage()]
    assert not Path(f"{gate}.ended").exists()
    await asyncio.to_thread(gate.write_text, "")
