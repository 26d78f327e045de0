"""The file, the stores and the clock that the tests of handlers may give and expect."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.support.cli import Check

COPIES = """\
name: keep
event: APIGW.OnFileUploaded
script: |
  import hashlib, base64, os

  async def keep(event, handle):
      async with files.open(event) as file:
          content = await file.read()
      with open(event["filepath"], "rb") as same:
          assert same.read() == content
      assert event["bytes"] == len(content)
      digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
      assert event["digests"] == {"sha-256": digest}
      await files.save("/copies" + event["path"], content.upper())
      if event["path"].endswith(".tmp"):
          await files.remove(event)
tests:
- name: keeps it
"""


@pytest.mark.parametrize(
    "case",
    [
        "  body: hello\n  expect: {files: {/copies/upload/file.bin: HELLO, /upload/file.bin: hello}}\n",
        "  body: {a: 1}\n  expect: {files: {/copies/upload/file.bin: {A: 1}, /upload/file.bin: true}}\n",
        "  body_file: more/some.txt\n  event: {path: /upload/x.tmp}\n"
        "  expect: {files: {/copies/upload/x.tmp: SOME, /upload/x.tmp: null}}\n",
        "  body: ''\n  files: {/copies/upload/file.bin: old}\n"
        "  expect: {files: {/copies/upload/file.bin: ''}}\n",
    ],
)
def test_a_case_gives_the_file_and_expects_what_became_of_it(
    check_text: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "more").mkdir()
    (tmp_path / "more/some.txt").write_text("some")
    code, out, err = check_text(COPIES + case)
    assert (code, err) == (0, ""), out
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("case", "fault"),
    [
        ("  body: a\n  expect: {files: {/copies/upload/file.bin: B}}\n", "is b'A', expected 'B'"),
        ("  body: a\n  expect: {files: {/copies/upload/file.bin: null}}\n", "is there, expected none"),
        ("  body: a\n  expect: {files: {/other: true}}\n", "file /other is missing"),
        ("  body: a\n  expect: {files: {/../x: true}}\n", "segment 1 of the path is a dot segment"),
        ("  body_file: none\n  expect: {}\n", "it cannot begin: body_file none: No such file"),
        ("  event: {path: /../x}\n  body: a\n  expect: {}\n", "it cannot begin: segment 1 of the path"),
        ("  expect: {}\n", "this test has no file for the event: give it one with `body:`"),
    ],
)
def test_a_case_whose_files_are_others_is_told_with_its_line(
    check_text: Check, case: str, fault: str
) -> None:
    code, out, _ = check_text(COPIES + case)
    assert code == 1
    (line,) = [line for line in out.splitlines() if "FAILED" in line]
    assert line.startswith("x.yaml:18: FAILED keep: keeps it: ")
    assert fault in line


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("records", "[quota]", "items by collection and key, such as {quota: {acme: {used: 9}}}"),
        ("records", "{quota: {acme: 9}}", "such as {quota: {acme: {used: 9}}}"),
        ("configs", "{mail: smtp}", "such as {mail: {host: mail.internal}}"),
        ("files", "[/a]", "such as {/upload/a.txt: hello}"),
        ("now", "soon", "Invalid isoformat string"),
    ],
)
def test_a_value_of_another_form_is_told_the_form(
    check_text: Check, key: str, value: str, fault: str
) -> None:
    code, _, err = check_text(f"{COPIES}  {key}: {value}\n  expect: {{}}\n")
    assert code == 1
    assert err.startswith(f"x.yaml:19: `tests.0.{key}` ")
    assert fault in err


def test_a_file_is_refused_where_the_event_has_none(check_text: Check) -> None:
    case = "  body: a\n  expect: {}\n"
    code, _, err = check_text(COPIES.replace("OnFileUploaded", "OnFileUploading") + case)
    assert code == 1
    assert err.startswith("x.yaml:19: `body`: this event has no file; APIGW.OnFileReceived, ")
    code, _, err = check_text(COPIES + "  body: a\n  body_file: b\n  expect: {}\n")
    assert "`body` and `body_file` exclude each other" in err


def test_a_replaced_or_removed_file_is_superseded(check_text: Check) -> None:
    code, out, err = check_text(
        "name: h\nevent: APIGW.OnFileUploaded\nscript: |\n"
        "  from gateway.errors import Superseded\n\n"
        "  async def h(event, handle):\n"
        "      if event['bytes'] == 1:\n"
        "          await files.save(event['path'], b'newer')\n"
        "      else:\n"
        "          await files.delete(event['path'])\n"
        "      for use in (files.remove, read):\n"
        "          try: await use(event)\n"
        "          except Superseded: continue\n"
        "          raise AssertionError(use)\n\n"
        "  async def read(event):\n"
        "      async with files.open(event): pass\n"
        "tests:\n- {name: replaced, body: a, expect: {}}\n- {name: removed, body: ab, expect: {}}\n"
    )
    assert (code, err) == (0, ""), out


CLOCK = """\
name: tick
event: Schedule
every: 1h
script: |
  import datetime
  import time as own_time
  from datetime import UTC, date

  async def tick(event, handle):
      moment = datetime.datetime.now(UTC)
      assert isinstance(moment, datetime.datetime) and moment.year == 2026
      assert isinstance(datetime.datetime.fromtimestamp(0), datetime.datetime)
      assert date.today() <= date(2026, 11, 22) and own_time.time() == time.time()
      assert time.gmtime().tm_hour == 8 and time.strftime("%Y") == "2026"
      assert time.gmtime(0).tm_year == 1970 and time.monotonic() != time.time()
      assert time.time_ns() == event["scheduled"] * 10**9
      saved = await files.save("/a", b"x")
      assert (await files.stat("/a")).modified == time.time()
      await records("log").put("last", {"at": time.time(), "tick": event["scheduled_iso"]})
tests:
- name: runs at eight
  now: NOW
  expect: {records: {log: {last: {at: 1795334400.0, tick: "2026-11-22T08:00:00+00:00"}}}}
"""


@pytest.mark.parametrize(
    "now", ["2026-11-22T08:00:00Z", "'2026-11-22T09:00:00+01:00'", "2026-11-22 08:00:00", "1795334400"]
)
def test_a_case_stops_the_clock(check_text: Check, now: str) -> None:
    code, out, err = check_text(CLOCK.replace("NOW", now))
    assert (code, err) == (0, ""), out


def test_a_case_without_configs_has_those_of_the_folders(check_text: Check) -> None:
    plugin = (
        "- name: limits\n  config: {most: 3}\n"
        "- name: h\n  event: APIGW.OnFileUploading\n  script: |\n"
        "    async def h(event, handle):\n"
        "        event['max_bytes'] = (await get_service_config('limits'))['most']\n"
        "  tests:\n  - {name: own, configs: {limits: {most: 4}}, expect: {max_bytes: 4}}\n"
        "  - {name: shared, expect: {max_bytes: 3}}\n"
        "  - {name: none, configs: {}, expect: {raises: true}}\n"
    )
    code, out, err = check_text(plugin)
    assert (code, err) == (0, ""), out


JUDGE = """\
name: judge
event: APIGW.OnFileReceived
script: |
  async def judge(event, handle):
      async with files.open(event) as file:
          content = await file.read()
      with open(event["filepath"], "rb") as same:
          assert (same.read(), event["bytes"]) == (content, len(content))
      if b"EICAR" in content:
          await handle.terminate(code=422, output={"error": "infected"})
      event["path"] = "/checked" + event["path"]
      event["metadata"]["lines"] = str(content.count(b"\\n"))
      await handle.result({"lines": content.count(b"\\n")})
tests:
- name: judges
"""


@pytest.mark.parametrize(
    ("case", "fault"),
    [
        ("  body: 'EICAR'\n  expect: {status: 422, output: {error: infected}}\n", None),
        (
            "  body: |\n    a\n    b\n  expect: {path: /checked/upload/file.bin, result: {lines: 2},"
            " metadata: {lines: '2'}, files: {/upload/file.bin: null}}\n",
            None,
        ),
        ("  body: a\n  expect: {result: {lines: 1}}\n", "result is {'lines': 0}, expected {'lines': 1}"),
        ("  body: a\n  expect: {metadata: {}}\n", "metadata is {'lines': '0'}, expected {}"),
        ("  body: EICAR\n  expect: {}\n", "it refused with 422"),
    ],
)
def test_a_case_gives_a_private_file_to_decide_about(
    check_text: Check, case: str, fault: str | None
) -> None:
    code, out, err = check_text(JUDGE + case)
    assert (code, err) == (0 if fault is None else 1, "")
    assert fault is None or fault in out
