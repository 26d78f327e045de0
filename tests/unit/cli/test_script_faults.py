"""Unknown names in scripts, and keys that an event does not have, are errors of `gateway check`."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.domain.model import UPLOADED
from gateway.endpoints.routing.loading.plugin import routing_kind
from gateway.plugins import KINDS, Plugins
from gateway.plugins.scripting.namespace import Services, script_names
from gateway.server.script_services import load_plugins
from tests.support.cli import Check

HEAD = "name: h\nevent: APIGW.OnFileUploaded\nscript: |\n  async def h(event, handle):\n"


def handler(*lines: str) -> str:
    return HEAD + "".join(f"      {line}\n" for line in lines)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("requests.post('http://x')", "uses `requests`, which nothing defines: import or define it"),
        (
            "await recrods('a').get('b')",
            "uses `recrods`, which nothing defines: did you mean `records`?",
        ),
        ("if event['bytes'] > limit: pass\n      limit = 1", "`limit`"),
        ("event['pth']", "this event has no key `pth`: did you mean `path`?"),
        ("print(event['whatever_else'])", "no key `whatever_else`: it has address, attempt, "),
    ],
)
def test_what_nothing_defines_is_an_error_with_its_line(
    check_text: Check, line: str, fault: str
) -> None:
    code, out, err = check_text(handler("pass", line))
    assert code == 1
    assert err.startswith("x.yaml:6: ")
    assert fault in err
    assert out.endswith("1 file, 0 tests, 0 failed\n")


@pytest.mark.parametrize(
    "lines",
    [
        sorted(script_names()),
        ["import os", "unused = os"],
        ["try: x = unicode", "except NameError: x = str"],
        ["event['mine'] = 1", "print(event['mine'], event['X-Header'], event.get('anything'))"],
        ["event.update(mine=1)", "print(event['mine'])"],
        ["event |= {'mine': 1}", "print(event['mine'])"],
        ["complete(event)", "print(event['mine'])", "def complete(event): event['mine'] = 1"],
        ["event = {}", "print(event['mine'])"],
        ["print([event['mine'] for event in [{'mine': 1}]])"],
        ["globals()['late'] = 1", "print(__name__, __file__)"],
    ],
)
def test_what_may_be_defined_is_no_error(check_text: Check, lines: list[str]) -> None:
    moved = sorted(lines, key=lambda line: line.startswith("def "), reverse=True)
    assert check_text(handler(*moved))[::2] == (0, "")


def test_the_names_of_a_route_are_its_own(check_text: Check) -> None:
    text = (
        "upstreams: [up]\nproxy: {path: /r}\nspec: [{method: GET}]\n"
        "request_script: |\n  request.headers['A'] = str(response)\n"
        "response_script: |\n  response.body = request.body\n  return undefined\n"
    )
    code, _, err = check_text(text)
    assert code == 1
    assert [line.partition(",")[0] for line in err.splitlines()] == [
        "x.yaml:5: the script uses `response`",
        "x.yaml:8: the script uses `undefined`",
    ]


def test_faults_and_failed_cases_are_all_told(check_text: Check) -> None:
    case = "tests:\n- {name: one, expect: {}}\n- {name: two, event: {bytes: 0}, expect: {}}\n"
    code, out, err = check_text(handler("if event['bytes']: await undefined()") + case)
    assert code == 1
    assert "x.yaml:5: the script uses `undefined`" in err
    assert out.index("FAILED h: one: it failed at x.yaml:5: NameError") < out.index("ok    h: two")


def test_a_server_warns_of_them_and_starts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "x.yaml").write_text(handler("await undefined()"))
    plugins = Plugins([tmp_path], Services(), (*KINDS, routing_kind("/upload/{filepath}")))
    with caplog.at_level("WARNING", "gateway.plugins"):
        load_plugins(plugins)
    plugins.close()
    assert [handler.name for handler in plugins.current.handlers[UPLOADED]] == ["h"]
    (record,) = caplog.records
    assert f"{tmp_path}/x.yaml:5: the script uses `undefined`" in record.getMessage()
