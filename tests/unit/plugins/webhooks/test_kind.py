"""Tests of how webhooks are read: their keys, their secrets, the errors and the lines about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.domain.model import DELETED, UPLOADED, UPLOADING
from gateway.errors import ConfigError
from gateway.plugins import KINDS, Plugins
from gateway.plugins.scripting.namespace import Services
from tests.support.webhook_receiver import OLD_SECRET, SECRET

URL = "https://receiver.example/hooks?key=hidden"


def load(folder: Path, text: str, missing: list[ConfigError] | None = None) -> Plugins:
    (folder / "hook.yaml").write_text(text)
    plugins = Plugins([folder], Services(), KINDS, missing=missing)
    try:
        plugins.load()
    finally:
        plugins.close()
    return plugins


def webhook(keys: str, more: str = "") -> str:
    return f"name: notify\n{more}webhook:\n  url: {URL}\n{keys}"


def test_a_webhook_is_a_handler_of_each_of_its_events(tmp_path: Path) -> None:
    keys = f"  events: [{UPLOADED}, {DELETED}]\n  secret: {SECRET}\n  prefix: /upload/a/\n"
    plugins = load(tmp_path, webhook(keys, "retry: {attempts: 3}\nconcurrency: 2\ntimeout: 5\n"))
    handlers = [plugins.current.handlers[event] for event in (UPLOADED, DELETED, UPLOADING)]
    assert [[one.name for one in found] for found in handlers] == [["notify"], ["notify"], []]
    spec = handlers[0][0].spec
    assert (spec.retry.attempts, spec.concurrency, spec.timeout) == (3, 2, 5.0)
    assert handlers[0][0].matches("/upload/a/b")
    assert not handlers[1][0].matches("/upload/b")
    assert plugins.describe() == [
        f"{event} -> notify ({tmp_path / 'hook.yaml'}:1), prefix upload/a/,"
        " webhook https://receiver.example/hooks"
        for event in (UPLOADED, DELETED)
    ]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (webhook(f"  events: [{UPLOADING}]\n"), 4, "waits for a decision: add `decide: true`"),
        (webhook(f"  events: [{UPLOADED}]\n  decide: true\n"), 5, "`decide` applies to"),
        (webhook("  events: [Schedule]\n"), 4, "events"),
        (webhook("  events: []\n"), 4, "events"),
        (webhook(f"  events: [{UPLOADED}, {UPLOADED}]\n"), 4, "twice"),
        (webhook(f"  events: [{UPLOADED}]\n", "on_error: allow\n"), 2, "`on_error` applies to"),
        (webhook(f"  events: [{UPLOADED}]\n", "hold: true\n"), 2, "`hold` applies to"),
        (webhook(f"  events: [{UPLOADING}]\n  decide: true\n", "retry: {}\n"), 2, "`retry` applies to"),
        (
            webhook("  events: [APIGW.OnFileReceived]\n  decide: true\n", "retry: {}\n"),
            2,
            "or `hold: true`",
        ),
        (
            webhook(
                "  events: [APIGW.OnFileReceived]\n  decide: true\n", "hold: true\non_error: allow\n"
            ),
            3,
            "`on_error` applies to",
        ),
        (
            webhook(f"  events: [APIGW.OnFileReceived, {UPLOADED}]\n  decide: true\n", "hold: true\n"),
            5,
            f"move {UPLOADED} to a webhook of its own",
        ),
        (
            webhook(f"  events: [{UPLOADING}, {UPLOADED}]\n  decide: true\n", "shadow: true\n"),
            2,
            f"not to {UPLOADED}",
        ),
        (webhook(f"  events: [{UPLOADED}]\n  secrets: x\n"), 5, "unknown key `webhook.secrets`"),
        (webhook(f"  events: [{UPLOADED}]\n  secret: hunter2-hunter2\n"), 5, "begins with whsec_"),
        (
            webhook(f"  events: [{UPLOADED}]\n  secret: [{SECRET}, hunter2-hunter2]\n"),
            5,
            "begins with whsec_",
        ),
        (
            webhook(f"  events: [{UPLOADED}]\n  headers: {{webhook-id: x}}\n"),
            5,
            "writes the header webhook-id itself",
        ),
        (webhook(f'  events: [{UPLOADED}]\n  headers: {{x: "a\\nb"}}\n'), 5, "one line"),
        (webhook(f"  events: [{UPLOADED}]\n").replace("https:", "ftp:"), 3, "http:// or https://"),
        (
            webhook(f"  events: [{UPLOADED}]\n").replace("receiver.", "u:hunter2-hunter2@receiver."),
            3,
            "put `Authorization` into `headers`",
        ),
        (webhook(f"  events: [{UPLOADED}]\n").replace("notify", "no/tify"), 1, "letters, digits"),
    ],
)
def test_what_is_wrong_is_said_with_its_line_and_without_values(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=r"hook\.yaml") as refused:
        load(tmp_path, text)
    assert f"hook.yaml:{line}:" in str(refused.value), str(refused.value)
    assert message in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_handler_and_a_webhook_cannot_share_a_name(tmp_path: Path) -> None:
    script = "script: |\n  async def notify(event, handle):\n      pass\n"
    (tmp_path / "handler.yaml").write_text(f"name: notify\nevent: {UPLOADED}\n{script}")
    with pytest.raises(ConfigError, match="rename one"):
        load(tmp_path, webhook(f"  events: [{UPLOADED}]\n"))


def test_secrets_come_from_the_environment_and_from_files_and_are_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    (tmp_path / "old").write_text(OLD_SECRET + "\n")
    keys = f"  events: [{UPLOADED}]\n  secret: ['${{env:HOOK_SECRET}}', '${{file:old}}']\n"
    plugins = load(tmp_path, webhook(keys))
    hidden = plugins.mask(f"a {SECRET} b {OLD_SECRET} c")
    assert SECRET not in hidden
    assert OLD_SECRET not in hidden
    assert SECRET not in repr(plugins.current.handlers[UPLOADED])


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "https://receiver.example/${env:HOOK_PATH}?key=hidden",
            "https://receiver.example/${env:HOOK_PATH}",
        ),
        ("${env:HOOK_URL}", "${env:HOOK_URL}"),
    ],
)
def test_what_a_url_takes_from_the_environment_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, shown: str
) -> None:
    monkeypatch.setenv("HOOK_PATH", "services/hidden-path")
    monkeypatch.setenv("HOOK_URL", "https://receiver.example/services/hidden-path")
    plugins = load(tmp_path, webhook(f"  events: [{UPLOADED}]\n").replace(URL, f'"{url}"'))
    assert [line.rpartition(" webhook ")[2] for line in plugins.describe()] == [shown]
    assert "hidden-path" not in repr(plugins.current.handlers[UPLOADED])


def test_a_secret_of_the_deployment_may_be_missing_while_plugins_are_checked(tmp_path: Path) -> None:
    keys = f"  events: [{UPLOADED}]\n  secret: ${{env:NOT_SET_HERE}}\n"
    missing: list[ConfigError] = []
    assert load(tmp_path, webhook(keys), missing).current.handlers[UPLOADED]
    assert ["NOT_SET_HERE is not set" in str(error) for error in missing] == [True]
    with pytest.raises(ConfigError, match="NOT_SET_HERE is not set"):
        load(tmp_path, webhook(keys))
