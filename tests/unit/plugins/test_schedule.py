"""Tests of `Schedule` handlers: what their YAML may say, and what is told when it is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gateway.cli.check import check
from gateway.domain.model import SCHEDULE, UPLOADED, RetryPolicy
from gateway.domain.schedules import Cron, Every
from gateway.plugins import PluginErrors, Plugins
from gateway.plugins.hooks import Hooks
from gateway.plugins.schema import plugin_schema
from gateway.plugins.scripting.namespace import Services

SCRIPT = "script: |\n  async def nightly(event, handle):\n    pass\n"
HEAD = f"name: nightly\nevent: {SCHEDULE}\n"
CRON = 'cron: "5 3 * * *"\n'
VALIDATOR = jsonschema.Draft202012Validator(plugin_schema())


@pytest.fixture
def plugins(tmp_path: Path) -> Iterator[Plugins]:
    made = Plugins([tmp_path], Services())
    yield made
    made.close()


def write(plugins: Plugins, text: str) -> None:
    (plugins._folders[0] / "x.yaml").write_text(text)


def complaint(plugins: Plugins, text: str) -> str:
    write(plugins, text)
    with pytest.raises(PluginErrors) as caught:
        plugins.load()
    return str(caught.value).replace(f"{plugins._folders[0]}/", "")


def test_a_handler_says_when_it_is_due(plugins: Plugins) -> None:
    write(plugins, f"{HEAD}{CRON}timezone: Europe/Rome\ncatch_up: true\n{SCRIPT}")
    [nightly] = plugins.load().handlers[SCHEDULE]
    assert nightly.schedule == Cron("5 3 * * *", "Europe/Rome", catch_up=True)
    assert nightly.describe().endswith("x.yaml:1), cron 5 3 * * * Europe/Rome")
    write(plugins, f"{HEAD}every: 15m\n{SCRIPT}")
    [nightly] = plugins.load().handlers[SCHEDULE]
    assert nightly.schedule == Every(900)
    assert nightly.describe().endswith("x.yaml:1), every 900 s")


def test_runs_come_one_after_the_other_unless_the_handler_says_otherwise(plugins: Plugins) -> None:
    write(plugins, f"{HEAD}every: 1s\n{SCRIPT}")
    [nightly] = plugins.load().handlers[SCHEDULE]
    assert (nightly.timeout, nightly.spec.concurrency, nightly.spec.retry) == (3600, 1, RetryPolicy())
    write(plugins, f"{HEAD}every: 1s\nconcurrency: 2\nretry: {{attempts: 1}}\ntimeout: 5\n{SCRIPT}")
    [nightly] = plugins.load().handlers[SCHEDULE]
    assert (nightly.timeout, nightly.spec.concurrency, nightly.spec.retry.attempts) == (5, 2, 1)


def test_it_is_known_what_is_delivered_and_when(plugins: Plugins) -> None:
    other = f"---\nname: other\nevent: {UPLOADED}\n{SCRIPT.replace('nightly', 'other')}"
    write(plugins, f"{HEAD}every: 1s\n{SCRIPT}{other}")
    now = plugins.load()
    hooks = Hooks(plugins)
    assert [spec.name for spec in hooks.handler_specs(UPLOADED)] == ["other"]
    assert [spec.name for spec in hooks.handler_specs()] == ["other", "nightly"]
    assert now.schedules == {"nightly": Every(1)}


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("", 'x.yaml:2: a Schedule needs `cron: "5 3 * * *"` or `every: 15m`'),
        (f"{CRON}every: 1m\n", "x.yaml:4: `cron` and `every` exclude each other"),
        ("every: 1m\ntimezone: UTC\n", "x.yaml:4: `timezone` belongs to `cron`"),
        ('cron: "5 3 * *"\n', "x.yaml:3: `cron` needs five fields"),
        ('cron: "5 33 * * *"\n', "x.yaml:3: `cron` is an invalid cron expression: bad hour field"),
        ("every: 15\n", "x.yaml:3: `every` should be a valid string"),
        ("every: 15 minutes\n", "x.yaml:3: `every` must be a number with s, m, h or d"),
        ("every: 0s\n", "x.yaml:3: `every` must be a number with s, m, h or d"),
        (f"{CRON}timezone: Mars/Olympus\n", "x.yaml:4: `timezone` is an unknown time zone"),
        (
            f"{CRON}on_error: allow\n",
            "x.yaml:4: `on_error` applies to APIGW.OnFileUploading, APIGW.OnFileDownloading,"
            " APIGW.OnFileListing, APIGW.OnFileDeleting and APIGW.OnFileReceived only",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_line(plugins: Plugins, keys: str, told: str) -> None:
    assert told in complaint(plugins, f"{HEAD}{keys}{SCRIPT}")


def test_only_a_schedule_has_a_time(plugins: Plugins) -> None:
    text = f"name: nightly\nevent: {UPLOADED}\n{CRON}{SCRIPT}"
    assert "x.yaml:3: `cron` applies to Schedule only: remove it" in complaint(plugins, text)
    text = f"name: nightly\nevent: APIGW.OnFileUploading\nretry: {{}}\n{SCRIPT}"
    events = (
        "APIGW.OnFileUploaded, APIGW.OnFileDeleted, APIGW.OnObjectCreated, Schedule and"
        " APIGW.OnFileReceived"
    )
    assert f"`retry` applies to {events} only" in complaint(plugins, text)


@pytest.mark.parametrize(
    ("keys", "valid"),
    [
        ({"cron": "5 3 * * *", "timezone": "UTC", "catch_up": True}, True),
        ({"every": "15m", "retry": {"attempts": 2}}, True),
        ({}, False),
        ({"cron": "5 3 * * *", "every": "15m"}, False),
        ({"every": "15m", "timezone": "UTC"}, False),
        ({"every": "15m", "authorization": "keep"}, False),
    ],
)
def test_the_schema_for_editors_says_the_same(keys: dict[str, Any], valid: bool) -> None:
    document = {"name": "a", "event": SCHEDULE, "script": "", **keys}
    assert VALIDATOR.is_valid(document) is valid
    assert not VALIDATOR.is_valid({**document, "cron": "0 0 * * *", "event": UPLOADED})


def test_its_tests_get_a_tick(plugins: Plugins, capsys: pytest.CaptureFixture[str]) -> None:
    script = (
        "script: |\n  async def nightly(event, handle):\n"
        "    await handle.terminate(code=400, output=sorted(event))\n"
    )
    case = (
        "tests:\n- name: gets a tick\n  event: {scheduled: 5}\n"
        "  expect:\n    status: 400\n"
        "    output: [address, attempt, event_version, handler, id, port, scheduled, scheduled_iso]\n"
    )
    write(plugins, f"{HEAD}every: 1m\n{script}{case}")
    assert check(plugins._folders) == 0
    assert "ok    nightly: gets a tick" in capsys.readouterr().out
