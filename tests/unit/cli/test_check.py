"""Tests of `gateway check` and of the tests that handlers carry."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli import main
from gateway.cli.check import check, run
from gateway.endpoints.routing.loading.plugin import routing_kind
from gateway.errors import ConfigError
from gateway.plugins import KINDS, Plugins
from gateway.plugins.scripting.namespace import Services
from gateway.settings import Settings
from tests.support import PROJECT
from tests.support.cli import Check

EVERY_KIND = (*KINDS, routing_kind("/upload/{filepath}"))
SHIPPED = PROJECT / "plugins"
HEAD = """\
name: h
event: APIGW.OnFileUploading
timeout: 10
script: |
  async def h(event, handle):
      if event.get("X-Hang"):
          await asyncio.Event().wait()
      if event.get("X-Deny"):
          return await handle.terminate(code=401, output="Unauthorized")
      if event.get("X-Call"):
          config = await get_service_config("c", mu_conversion=True)
          answer = await callout(endpoint=config.host, path="/who", method=POST, body={"a": 1})
          event["path"] = "/" + answer.json()["user"] + event["path"]
tests:
- name: the case
"""
HANG = "  event: {headers: {X-Hang: '1'}}\n"
CALL = "  event: {headers: {X-Call: '1'}}\n  configs: {c: {host: other}}\n"
ANSWER = "  callout: [{body: {user: bob}}]\n"


def text_of(case: str) -> str:
    """Return a plugin with a case; only one that hangs has little time."""
    head = HEAD.replace("timeout: 10", "timeout: 0.2") if case.startswith(HANG) else HEAD
    return head + case


def test_the_shipped_plugins_pass_their_tests(capsys: pytest.CaptureFixture[str]) -> None:
    assert check([SHIPPED]) == 0
    out = capsys.readouterr().out
    assert "tokenAuth: refuses everything until there are users" in out
    assert out.splitlines()[-1].endswith(" tests, 0 failed")


def test_the_verb_checks_the_folders_that_the_settings_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.yaml").write_text("name: [\n")
    assert run(Settings(plugins=(tmp_path,))) == 1
    assert "x.yaml:2: this is not YAML" in capsys.readouterr().err


def test_a_test_of_a_handler_does_not_change_the_event_of_the_next(check_text: Check) -> None:
    code, out, _ = check_text(
        "name: h\nevent: APIGW.OnFileUploaded\nscript: |\n  async def h(event, handle):\n"
        "      assert event['metadata'] == {}\n      event['metadata']['seen'] = '1'\n"
        "tests:\n- {name: first, expect: {}}\n- {name: second, expect: {}}\n"
    )
    assert code == 0, out
    assert out.endswith(" 2 tests, 0 failed\n")


def test_a_folder_without_its_flag_is_answered_with_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "plugins/quickstart", "mine"]) == 2
    told = "gateway: check takes folders as --plugins plugins/quickstart --plugins mine\n"
    assert capsys.readouterr().err == told


def test_a_shipped_set_is_checked_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--plugins", "builtin:quickstart"]) == 0
    assert capsys.readouterr().out.endswith("3 files, 5 tests, 0 failed\n")
    assert main(["check", "--plugins", "builtin:fotos"]) == 2
    assert "there is no such plugin set; the sets are clamav, exports," in capsys.readouterr().err


@pytest.mark.parametrize(
    "case",
    [
        "  expect: {path: /upload/file.bin}\n",
        "  event: {headers: {X-Deny: '1'}}\n  expect: {status: 401, output: Unauthorized}\n",
        f"{CALL}{ANSWER}  expect: {{path: /bob/upload/file.bin, "
        "callouts: [{endpoint: other, path: /who, method: POST, body: {a: 1}}]}\n",
        f"{HANG}  expect: {{raises: true}}\n",
        f"{CALL}  callout: [{{code: 500}}]\n  expect: {{raises: true}}\n",
    ],
)
def test_a_case_that_holds_passes(check_text: Check, case: str) -> None:
    code, out, err = check_text(text_of(case))
    assert (code, err) == (0, "")
    assert "ok    h: the case\n" in out


@pytest.mark.parametrize(
    ("case", "fault"),
    [
        ("  expect: {path: /other}\n", "path is '/upload/file.bin', expected '/other'"),
        ("  expect: {status: 401}\n", "status is 200, expected 401"),
        ("  expect: {max_bytes: 5}\n", "max_bytes is None, expected 5"),
        ("  expect: {raises: true}\n", "it was expected to fail and did not"),
        ("  event: {headers: {X-Deny: '1'}}\n  expect: {}\n", "it refused with 401"),
        (
            "  event: {headers: {X-Deny: '1'}}\n  expect: {status: 401, output: a}\n",
            "output is 'Unauthorized'",
        ),
        (f"{HANG}  expect: {{}}\n", "it failed: TimedOut"),
        (f"{CALL}  expect: {{}}\n", "it failed at x.yaml:12: AssertionError"),
        (f"{CALL}{ANSWER}  expect: {{callouts: []}}\n", "it made 1 callouts, expected 0"),
        (f"{CALL}{ANSWER}  expect: {{callouts: [{{method: PUT}}]}}\n", "method of callout 1 is 'POST'"),
        ("  event: {headers: {X-Call: '1'}}\n  expect: {}\n", "it failed at x.yaml:11: LookupError"),
    ],
)
def test_a_case_that_does_not_hold_is_told_with_file_and_line(
    check_text: Check, case: str, fault: str
) -> None:
    code, out, _ = check_text(text_of(case))
    assert code == 1
    assert out.splitlines()[1].startswith(f"x.yaml:15: FAILED h: the case: {fault}")


def test_a_handler_that_swallows_the_surplus_callout_fails_all_the_same(check_text: Check) -> None:
    text = HEAD.replace(
        "          answer =",
        "          try: await callout()\n          except BaseException: return\n          answer =",
    )
    _, out, _ = check_text(text + CALL + "  expect: {}\n")
    assert "it made a callout beyond the list of the test" in out


def test_values_of_configs_are_not_shown(check_text: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_1", "hunter22")
    code, out, err = check_text("name: c\nconfig: {a: '${env:SECRET_1}', b: hunter22}\n")
    assert code == 0
    assert "config c" in out
    assert "hunter22" not in out + err


DEPLOYMENT = """\
- name: partner
  config: {key: "${env:PARTNER_KEY_THAT_NOBODY_SET}", file: "${file:/run/secrets/none}"}
- name: hello
  upstreams: []
  proxy: {path: /hello, authorization: {auth: jwt}}
  request_script: |
    return "hello"
"""


def test_what_only_a_deployment_has_is_a_warning(check_text: Check, tmp_path: Path) -> None:
    code, out, err = check_text(DEPLOYMENT)
    assert (code, "config partner" in out) == (0, True)
    assert "warning: x.yaml:2: the environment variable PARTNER_KEY_THAT_NOBODY_SET is not set" in err
    assert "warning: x.yaml:2: the file /run/secrets/none cannot be read" in err
    plugins = Plugins([tmp_path], Services(), EVERY_KIND)
    with pytest.raises(ConfigError, match="PARTNER_KEY_THAT_NOBODY_SET"):
        plugins.load()


def test_a_route_for_tokens_needs_no_issuer_to_be_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.yaml").write_text(DEPLOYMENT)
    assert main(["check", "--plugins", str(tmp_path)]) == 0
    assert f"warning: {tmp_path}/x.yaml:5: the route authorizes by JSON Web Token" in (
        capsys.readouterr().err
    )


def test_nothing_to_check_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    assert "name folders with --plugins DIR" in capsys.readouterr().err
    assert main(["check", "--plugins", str(tmp_path)]) == 0
    assert f"warning: {tmp_path}: this plugins folder has no plugin" in capsys.readouterr().err
    (tmp_path / "x.yaml").touch()
    assert main(["check", "--plugins", str(tmp_path / "x.yaml")]) == 1
    assert "x.yaml: this plugins folder is a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        ("host: 0.0.0.0\n", "config.yaml:1: host: 0.0.0.0 can be reached by others"),
        ("auth: jwt\n", "config.yaml:1: auth: no issuer is set"),
        ("jwt_issuer: https://id.example\n", "no audience is set"),
        ("tls_cert: /none.pem\ntls_key: /none.pem\n", "/none.pem cannot be read"),
        ("tls_cert: /none.pem\n", "HTTPS needs both files"),
        ("secrets_key_file: /none.key\n", "/none.key: the file of --secrets-key-file does not exist"),
    ],
)
def test_settings_that_only_a_deployment_meets_are_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: str, warning: str
) -> None:
    (tmp_path / "config.yaml").write_text(settings + "plugins: [p]\n")
    (tmp_path / "p").mkdir()
    (tmp_path / "p/x.yaml").write_text("name: c\nconfig: {}\n")
    flags = ["--directory", str(tmp_path), "--config", str(tmp_path / "config.yaml")]
    assert main(["check", *flags]) == 0
    printed = capsys.readouterr()
    assert printed.out.endswith("1 file, 0 tests, 0 failed\n")
    lines = printed.err.splitlines()
    assert warning in lines[0]
    assert all(line.startswith("warning: ") for line in lines)
    assert all(line.endswith(" (an error for `gateway serve`)") for line in lines)
    assert main(["serve", *flags, "--port", "0"]) == 2
    assert capsys.readouterr().err.startswith("gateway: ")
