"""Where records may be, and what verbs say of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.cli.check import check
from gateway.cli.doctor import deployment
from gateway.errors import ConfigError
from gateway.records.collection import open_records, secrets_of
from gateway.settings import Settings, load
from tests.support.harness import write_plugin

KEEPER = """
name: keeper
upstreams: []
proxy:
  path: /kept/{key}
  authorization: {auth: none}
request_script: |
  kept, key = records("kept"), request.resources["key"]
  if request.method == "PUT":
      return {"done": await kept.put(key, {"n": int(request.body)})}
  return await kept.get(key)
spec:
- {method: GET, usage: read}
- {method: PUT, usage: write}
"""


@pytest.mark.parametrize(
    "text", ["file", "postgresql://db/kept", "postgres://me:secret@[::1]:5433/kept?sslmode=require"]
)
def test_where_records_may_be(text: str) -> None:
    assert load({"records": text}, {}).records.get_secret_value() == text


@pytest.mark.parametrize(
    "text",
    ["files", "mysql://me:hush-hush@db/kept", "postgresql://me:hush-hush@db", "postgresql://db:x/a"],
)
def test_where_records_may_not_be_and_no_complaint_quotes_it(text: str) -> None:
    with pytest.raises(ConfigError) as fault:
        load({"records": text}, {})
    assert "hush-hush" not in str(fault.value)
    assert "records" in str(fault.value)


def test_the_password_of_a_database_is_masked_in_all_its_forms() -> None:
    url = "postgresql://me:hush%2Fhush@db/kept"
    settings = Settings(records=SecretStr(url))
    assert secrets_of(settings) == [url, "hush%2Fhush", "hush/hush"]
    assert "hush" not in repr(settings)
    assert secrets_of(Settings()) == []


def test_doctor_reaches_the_records(tmp_path: Path) -> None:
    settings = Settings(directory=tmp_path)
    assert [finding.level for finding in deployment.records(settings)] == ["ok"]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".gateway").mkdir()
    records = open_records(settings)
    asyncio.run(records("a").put("a", {}))
    records.close()
    [found] = deployment.records(settings)
    assert (found.level, "records.db" in str(found)) == ("ok", True)
    shared = Settings(directory=tmp_path, events="nats://127.0.0.1:1")
    assert [finding.level for finding in deployment.records(shared)] == ["ok", "warn"]
    (tmp_path / ".gateway/records.db").write_bytes(b"nonsense" * 1000)
    assert [finding.level for finding in deployment.records(settings)] == ["FAIL"]


def test_doctor_says_that_a_database_is_away(tmp_path: Path) -> None:
    url = SecretStr("postgresql://me:hush-hush@127.0.0.1:1/kept")
    [found] = deployment.records(Settings(directory=tmp_path, records=url))
    assert found.level == "FAIL"
    assert "hush" not in str(found)


CHECKED = """
name: counted
event: APIGW.OnFileUploaded
script: |
  async def counted(event, handle):
      kept = records("counts")
      item = await kept.get(event["mime"]) or {"n": 0}
      await kept.put(event["mime"], {"n": item["n"] + 1})
      await kept.delete("gone")
tests:
- name: counts on
  event: {mime: text/plain}
  records: {counts: {text/plain: {n: 4}, gone: {n: 1}}}
  expect: {records: {counts: {text/plain: {n: 5}, gone: null}}}
- name: begins at one, with records of its own
  event: {mime: text/plain}
  expect: {records: {counts: {text/plain: {n: 1, key: text/plain}}}}
"""


def test_a_test_has_records_of_its_own_and_may_expect_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check([write_plugin(tmp_path / "p", CHECKED)]) == 0
    wrong = CHECKED.replace("{n: 5}", "{n: 6}").replace("gone: null", "gone: {n: 1}")
    assert check([write_plugin(tmp_path / "wrong", wrong)]) == 1
    told = capsys.readouterr().out
    assert "item 'text/plain' of 'counts' is {'n': 5}, expected {'n': 6}" in told
    assert "item 'gone' of 'counts' is None" in told


ROUTE = (
    KEEPER
    + """
tests:
- name: reads
  records: {kept: {a: {n: 7}}}
  request: {method: GET, resources: {key: a}}
  expect: {output: {n: 7, key: a}}
- name: writes
  request: {method: PUT, resources: {key: a}, body: "8"}
  expect: {output: {done: true}, records: {kept: {a: {n: 8}}}}
- name: is told what is no item
  records: {kept: {a: {n: .nan}}}
  request: {method: GET, resources: {key: a}}
  expect: {}
"""
)


def test_routes_are_tested_with_records_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check([write_plugin(tmp_path / "p", ROUTE)]) == 1
    printed = capsys.readouterr()
    assert "ok    keeper: reads" in printed.out
    assert "ok    keeper: writes" in printed.out
    assert "FAILED keeper: is told what is no item: it cannot begin: " in printed.out
