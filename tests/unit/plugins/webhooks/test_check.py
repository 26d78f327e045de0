"""Tests of `gateway check` with webhooks: the sample of each event, and their `tests:`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli.check import check
from tests.support.webhook_receiver import OLD_SECRET, SECRET

WEBHOOK = f"""
name: gate
authorization: keep
webhook:
  url: https://receiver.example/decide?key=hidden
  events: [APIGW.OnFileUploading, APIGW.OnFileReceived, APIGW.OnFileUploaded]
  secret: [{SECRET}, {OLD_SECRET}]
  headers: {{Authorization: "Bearer very-secret-token", X-Team: storage}}
  decide: true
tests:
  - name: rewrites
    type: APIGW.OnFileUploading
    event: {{path: /upload/a}}
    callout: [{{body: {{path: /upload/b, max_bytes: 5, metadata: {{a: b}}, result: {{ok: true}}}}}}]
    expect:
      path: /upload/b
      max_bytes: 5
      metadata: {{a: b}}
      result: {{ok: true}}
      callouts: [{{endpoint: https://receiver.example, path: "/decide?key=hidden", method: POST}}]
  - name: refuses
    type: APIGW.OnFileReceived
    callout: [{{code: 422, body: {{reason: bad}}}}]
    expect: {{status: 422, output: {{reason: bad}}}}
  - name: fails closed
    type: APIGW.OnFileReceived
    callout: [{{code: 200, body: "<html>sign in</html>"}}]
    expect: {{raises: true}}
  - name: is tried again
    type: APIGW.OnFileUploaded
    callout: [{{code: 500}}]
    expect: {{raises: true}}
  - name: is wrong
    type: APIGW.OnFileUploading
    callout: [{{body: {{path: /upload/b}}}}]
    expect: {{path: /upload/c}}
"""


def test_the_payload_and_the_headers_are_shown_and_the_tests_are_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gate.yaml").write_text(WEBHOOK)
    assert check([tmp_path]) == 1
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines.count("sample of gate: POST https://receiver.example/decide") == 3
    payloads = [json.loads(line) for line in lines if line.startswith("  {")]
    assert [one["type"].removeprefix("APIGW.OnFile") for one in payloads] == [
        "Uploading",
        "Received",
        "Uploaded",
    ]
    assert payloads[2]["data"]["path"] == "/upload/file.bin"
    assert "  webhook-signature: v1,[redacted] v1,[redacted]" in lines
    assert "  Authorization: [redacted]" in lines
    assert "  X-Team: storage" in lines
    for secret in (SECRET, OLD_SECRET, "very-secret-token", "hidden"):
        assert secret not in printed.out + printed.err
    names = ["rewrites", "refuses", "fails closed", "is tried again"]
    assert [line for line in lines if line.startswith("ok")] == [f"ok    gate: {name}" for name in names]
    assert (
        "FAILED gate: is wrong: path is '/upload/b', expected '/upload/c'" in printed.out + printed.err
    )


def test_a_test_of_a_webhook_with_several_events_says_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gate.yaml").write_text(WEBHOOK.replace("    type: APIGW.OnFileUploading\n", "", 1))
    assert check([tmp_path]) == 1
    assert "gate.yaml:11: the webhook has several events" in capsys.readouterr().err
