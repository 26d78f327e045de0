"""`!secret` values: opened at load, with file and line where they cannot be, and masked ever after."""

from __future__ import annotations

import io
import json
import logging
import os
import stat
from pathlib import Path
from urllib.parse import quote

import pytest

from gateway.cli import main
from gateway.errors import ConfigError
from gateway.plugins import PluginErrors, Plugins
from gateway.plugins.scripting.namespace import Services
from gateway.plugins.secrets import MAX_VALUE_BYTES, DecryptionError, SecretKeys, new_key, secret_keys
from gateway.settings import load
from gateway.telemetry import log_output, logs
from gateway.telemetry.redaction import MAX_SECRETS, REDACTED, Mask, Redaction
from tests.support.harness import write_plugin

CLEAR = "hunter2-hunter2"


@pytest.fixture
def key() -> str:
    return new_key()


def typed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def loaded(folder: Path, keys: SecretKeys) -> Plugins:
    plugins = Plugins([folder], Services(), make_keys=lambda: keys)
    plugins.load()
    return plugins


def faults(folder: Path, keys: SecretKeys) -> list[str]:
    with pytest.raises(PluginErrors) as caught:
        loaded(folder, keys)
    return [str(fault).replace(f"{folder}/", "") for fault in caught.value.errors]


# -- keys


def test_the_first_key_encrypts_and_every_key_opens(key: str) -> None:
    older = SecretKeys([key])
    rotated = SecretKeys([new_key(), key])
    assert rotated.decrypt(older.encrypt(CLEAR)) == CLEAR
    with pytest.raises(DecryptionError, match="a key that is not set now"):
        older.decrypt(rotated.encrypt(CLEAR))
    assert older.encrypt(CLEAR) != older.encrypt(CLEAR)


@pytest.mark.parametrize("change", ["", "x", "cut", "flip"])
def test_a_damaged_token_is_noticed_and_never_quoted(key: str, change: str) -> None:
    token = SecretKeys([key]).encrypt(CLEAR)
    middle = "A" if token[60] != "A" else "B"
    damaged = {"cut": token[:-8], "flip": token[:60] + middle + token[61:]}.get(change, change)
    with pytest.raises(DecryptionError, match="it is damaged") as caught:
        SecretKeys([key]).decrypt(damaged)
    assert token[:20] not in str(caught.value)
    assert caught.value.__cause__ is None


def test_keys_come_from_the_environment_and_then_from_the_file(tmp_path: Path) -> None:
    first, second, third = new_key(), new_key(), new_key()
    file = tmp_path / "keys"
    file.write_text(f"# of 2031\n\n{third}\n")
    file.chmod(0o600)
    environ = {"UPLOAD_GATEWAY_SECRETS_KEY": f"{first}, {second}"}
    settings = load({"secrets_key_file": str(file), "directory": str(tmp_path)}, environ)
    keys = secret_keys(settings)
    assert SecretKeys([first]).decrypt(keys.encrypt(CLEAR)) == CLEAR
    for one in (second, third):
        assert keys.decrypt(SecretKeys([one]).encrypt(CLEAR)) == CLEAR
    assert not any(one in repr(settings) + repr(keys) for one in (first, second, third))


@pytest.mark.parametrize(
    ("content", "mode", "complaint"),
    [
        ("KEY", 0o640, r"others may touch the key file \(mode 0640\): run `chmod 0600`"),
        ("KEY", 0o604, "mode 0604"),
        ("# nothing\n", 0o600, "no key in this file"),
        ("# one\nhunter2\n", 0o600, "keys:2: invalid key"),
    ],
)
def test_a_key_file_that_is_open_or_wrong_is_refused(
    tmp_path: Path, key: str, content: str, mode: int, complaint: str
) -> None:
    file = tmp_path / "keys"
    file.write_text(content.replace("KEY", key))
    file.chmod(mode)
    with pytest.raises(ConfigError, match=complaint) as caught:
        secret_keys(load({"secrets_key_file": str(file), "directory": str(tmp_path)}, {}))
    assert key not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_key_file_that_is_not_ours_or_not_a_file_is_refused(tmp_path: Path) -> None:
    given = {"directory": str(tmp_path)}
    with pytest.raises(ConfigError, match="cannot be read"):
        secret_keys(load({**given, "secrets_key_file": str(tmp_path / "none")}, {}))
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigError, match="this is no file"):
        secret_keys(load({**given, "secrets_key_file": str(tmp_path / "pipe")}, {}))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_file_of_another_user_is_refused(tmp_path: Path, key: str) -> None:
    file = tmp_path / "keys"
    file.write_text(key)
    file.chmod(0o600)
    os.chown(file, 12345, -1)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        secret_keys(load({"secrets_key_file": str(file), "directory": str(tmp_path)}, {}))


def test_a_key_is_never_taken_from_the_command_line_or_the_settings_file(
    tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", f"--secrets-key={key}"]) == 2
    (tmp_path / "x.yaml").write_text(f"secrets_key: {key}\n")
    assert main(["check", "--config", str(tmp_path / "x.yaml")]) == 2
    told = capsys.readouterr().err
    assert "unknown flag --secrets-key" in told
    assert "x.yaml:1: secrets_key cannot be set in the settings file" in told
    assert key not in told


# -- in plugins


def test_a_secret_is_opened_at_load_wherever_it_stands_in_a_config(tmp_path: Path, key: str) -> None:
    keys = SecretKeys([key])
    token = keys.encrypt(CLEAR)
    half = len(token) // 2
    write_plugin(
        tmp_path,
        f"name: a\nconfig:\n  plain: !secret {token}\n  deep: [{{x: !secret '{token}'}}]\n"
        f"  folded: !secret >-\n    {token[:half]}\n    {token[half:]}\n  same: &t !secret {token}\n"
        "  alias: *t\n",
    )
    plugins = loaded(tmp_path, keys)
    config = plugins.current.configs.get("a")
    assert config == {
        "plain": CLEAR, "deep": [{"x": CLEAR}], "folded": CLEAR, "same": CLEAR, "alias": CLEAR
    }  # fmt: skip
    assert CLEAR not in repr((config, plugins.current, plugins.current.configs, plugins.describe()))
    assert plugins.mask(f"it is {CLEAR}.") == f"it is {REDACTED}."


def test_what_cannot_be_opened_is_told_with_file_and_line(tmp_path: Path, key: str) -> None:
    token = SecretKeys([new_key()]).encrypt(CLEAR)
    write_plugin(tmp_path, f"name: a\nconfig:\n  x:\n  - !secret {token}\n", "a.yaml")
    write_plugin(tmp_path, "# b\nname: b\nconfig: {y: !secret junk}\n", "b.yaml")
    told = faults(tmp_path, SecretKeys([key]))
    assert [line.split(" ")[0] for line in told] == ["a.yaml:4:", "b.yaml:3:"]
    assert all("cannot be opened: it is damaged" in line for line in told)
    assert token[:20] not in "".join(told)
    assert "there is no key; set UPLOAD_GATEWAY_SECRETS_KEY" in faults(tmp_path, SecretKeys())[0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name: !secret abc\nconfig: {}\n", "plugin.yaml:1: !secret belongs into a Config plugin"),
        (
            "name: a\nevent: APIGW.OnFileUploaded\nscript: pass\nretry:\n  attempts: !secret abc\n",
            "plugin.yaml:5: !secret belongs into a Config plugin",
        ),
        ("name: a\nconfig:\n  x: !secret [a]\n", "plugin.yaml:3: !secret stands before one token"),
        ("name: a\nconfig:\n  !secret x: y\n", "plugin.yaml:3: a key must be a plain word"),
        ("name: a\nconfig: !secret x\n", "plugin.yaml:2: `config` should be a valid dictionary"),
    ],
)
def test_a_secret_elsewhere_is_a_fault(tmp_path: Path, text: str, complaint: str) -> None:
    write_plugin(tmp_path, text)
    [told] = faults(tmp_path, SecretKeys())
    assert told.startswith(complaint)


def test_a_faulty_key_file_is_told_once_however_many_secrets_there_are(tmp_path: Path) -> None:
    write_plugin(tmp_path / "p", "name: a\nconfig: {x: !secret a, y: !secret b}\n")

    def broken() -> SecretKeys:
        raise ConfigError("is open to others", "keys")

    with pytest.raises(PluginErrors) as caught:
        Plugins([tmp_path / "p"], Services(), make_keys=broken).load()
    assert str(caught.value) == "keys: is open to others"


async def test_a_reload_asks_for_the_keys_anew_and_old_values_stay_masked(tmp_path: Path) -> None:
    old, new = SecretKeys([new_key()]), SecretKeys([new_key()])
    in_force = [old]
    write_plugin(tmp_path, f"name: a\nconfig: {{x: !secret {old.encrypt(CLEAR)}}}\n")
    plugins = Plugins([tmp_path], Services(), make_keys=lambda: in_force[-1])
    plugins.load()
    write_plugin(tmp_path, f"name: a\nconfig: {{x: !secret {new.encrypt('another-value')}}}\n")
    with pytest.raises(PluginErrors):
        await plugins.reload()
    in_force.append(new)
    assert (await plugins.reload()).configs.get("a") == {"x": "another-value"}
    assert plugins.current.configs.mask(f"{CLEAR} another-value") == f"{REDACTED} {REDACTED}"


# -- masks


@pytest.mark.parametrize(
    "secret", ["wort", "ä\"b'c\\d", "p@ss/w:rd%", "-----BEGIN-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQ==\n"]
)
def test_a_mask_knows_a_secret_however_it_is_quoted(secret: str) -> None:
    mask = Mask([secret])
    forms = [secret, repr(secret)[1:-1], repr(secret.encode())[2:-1], quote(secret, safe="")]
    for form in [*forms, json.dumps(secret)[1:-1]]:
        assert mask(f"<{form}>") == f"<{REDACTED}>"
    assert repr(mask) == f"<Mask of {len(mask._forms)} texts>"


def test_a_line_of_a_key_is_masked_alone_and_short_words_are_not() -> None:
    mask = Mask(["MIIEvQIBADANBgkqhkiG9w0B\nAQ==", "abc", ""])
    assert mask("MIIEvQIBADANBgkqhkiG9w0B AQ== abc") == f"{REDACTED} AQ== abc"


def test_the_longest_secret_wins_and_a_mask_is_bounded() -> None:
    assert Mask(["pass", "password"])("password") == REDACTED
    mask = Mask(f"{number:06}" for number in range(MAX_SECRETS + 10))
    assert mask(f"{MAX_SECRETS:06}") == REDACTED
    assert len(mask._forms) == MAX_SECRETS


def test_what_a_request_carries_in_secret_is_known_as_a_whole_and_in_parts() -> None:
    headers = {"Authorization": "Bearer abcdefgh==", "cookie": "a=b; sid=123456789", "X-Mine": "mine1"}
    found = Redaction(["x-mine"]).values({**headers, "X-Other": "other"}, "a=1&token=t%20oken1&sig=1")
    assert set(found) == {
        "Bearer abcdefgh==", "abcdefgh==", "a=b; sid=123456789", "123456789", "mine1", "t oken1"
    }  # fmt: skip
    assert found[0] == "a=b; sid=123456789"


@pytest.mark.parametrize("style", ["text", "json"])
def test_everything_that_is_logged_goes_through_the_mask(
    style: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log_output.configure(style)
    log_output.set_mask(Mask([CLEAR]))
    with logs.bind(place=CLEAR), logs.hide(lambda: ["of this request 1"]):
        logging.getLogger("gateway").info("the token %s", "of this request 1")
        logging.getLogger("gateway.plugin.x").info("it is %s", CLEAR, extra={"fields": {"f": CLEAR}})
    try:
        raise ValueError(CLEAR)
    except ValueError:
        logging.getLogger("asyncio").exception("nobody took %s", CLEAR)
    told = capsys.readouterr().err
    assert told.count(REDACTED) == 7
    assert CLEAR not in told
    assert "of this request" not in told


# -- the command line


def test_encrypt_reads_the_value_from_stdin_and_what_it_prints_works(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UPLOAD_GATEWAY_SECRETS_KEY", key)
    typed(monkeypatch, f"{CLEAR}\n".encode())
    assert main(["secrets", "encrypt"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("!secret gAAAA")
    assert CLEAR not in printed
    write_plugin(tmp_path / "p", f"name: a\nconfig:\n  x: {printed}")
    assert loaded(tmp_path / "p", SecretKeys([key])).current.configs.get("a") == {"x": CLEAR}
    assert main(["check", "--plugins", str(tmp_path / "p")]) == 0
    assert CLEAR not in capsys.readouterr().out


def test_encrypt_asks_on_a_terminal_without_showing_what_is_typed(
    key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UPLOAD_GATEWAY_SECRETS_KEY", key)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda prompt: CLEAR)
    assert main(["secrets", "encrypt"]) == 0
    token = capsys.readouterr().out.split()[1]
    assert SecretKeys([key]).decrypt(token) == CLEAR


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "there is no value"),
        (b"\n", "there is no value"),
        (b"\xff\xfe", "not UTF-8"),
        (b"x" * (MAX_VALUE_BYTES + 1), "larger than 65536 bytes"),
    ],
)
def test_encrypt_refuses_what_is_no_value(
    key: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    complaint: str,
) -> None:
    monkeypatch.setenv("UPLOAD_GATEWAY_SECRETS_KEY", key)
    typed(monkeypatch, content)
    assert main(["secrets", "encrypt"]) == 2
    assert complaint in capsys.readouterr().err


def test_encrypt_takes_no_value_as_an_argument_and_needs_a_key(
    key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["secrets", "encrypt", CLEAR]) == 2
    assert main(["secrets", "encrypt"]) == 2
    monkeypatch.setenv("UPLOAD_GATEWAY_SECRETS_KEY", key)
    assert main(["secrets", "encrypt", "--out", "x"]) == 2
    told = capsys.readouterr().err
    assert CLEAR not in told
    assert "there is no key; set UPLOAD_GATEWAY_SECRETS_KEY" in told
    assert "--out belongs to keygen" in told


def test_keygen_prints_a_key_alone_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["secrets", "keygen"]) == 0
    printed = capsys.readouterr()
    assert SecretKeys([printed.out.strip()])
    assert "a copy in a safe place" in printed.err


def test_keygen_writes_a_private_file_and_replaces_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my.key"
    assert main(["secrets", "keygen", "--out", str(file)]) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    kept = file.read_text()
    assert kept.strip() not in capsys.readouterr().out
    assert main(["secrets", "keygen", "--out", str(file)]) == 2
    assert main(["secrets", "keygen", "--out", str(tmp_path / "none" / "x")]) == 2
    assert "the file exists and is not replaced" in capsys.readouterr().err
    assert file.read_text() == kept
    assert secret_keys(load({"secrets_key_file": str(file), "directory": str(tmp_path)}, {}))
    assert [one.name for one in tmp_path.iterdir()] == ["my.key"]
