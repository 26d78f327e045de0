"""Settings: precedence, exact complaints, nothing ignored, generated pages are fresh."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path

import pytest

from gateway.domain.addresses import Address
from gateway.errors import ConfigError
from gateway.settings import (
    Bucket,
    Settings,
    Token,
    add_flags,
    example,
    flag_values,
    load,
    reference,
    with_hyphens,
)
from gateway.settings.table import settings_table
from tests.support import PROJECT

SHA = "ab" * 32


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(text: str, at: str = "config/gateway.yaml") -> Path:
    path = Path(at).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def complaint(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(flags or {}, environ or {})
    return str(caught.value)


def test_nothing_said_gives_the_defaults(tmp_path: Path) -> None:
    settings = load({}, {"PATH": "/bin", "GATEWAY_PORT": "tcp://10.0.0.1:80"})
    assert settings == Settings(directory=tmp_path)
    assert (settings.host, settings.port, settings.auth, settings.auth_explicit) == (
        "127.0.0.1",
        8080,
        "none",
        False,
    )
    assert settings.file_mode == 0o640
    assert settings.min_free_bytes == 64 * 1024**2
    assert settings.state == tmp_path / ".gateway"


def test_flag_wins_over_environment_over_file_over_default() -> None:
    written("port: 1\nidle_timeout: 1m\ngrace: 1\n")
    environ = {"UPLOAD_GATEWAY_PORT": "2", "UPLOAD_GATEWAY_IDLE_TIMEOUT": "2"}
    settings = load({"port": "3"}, environ)
    assert (settings.port, settings.idle_timeout, settings.grace, settings.retention) == (
        3,
        2,
        1,
        604800,
    )


@pytest.mark.parametrize(
    ("words", "on"),
    [
        (["--downloads"], True),
        (["--downloads=false"], False),
        (["--downloads=yes"], True),
        ([], False),
    ],
)
def test_a_switch_stands_bare_or_takes_its_value_behind_an_equals_sign(
    words: list[str], on: bool
) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("word", nargs="?")
    add_flags(parser)
    args = parser.parse_args(with_hyphens([*words, "list"]))
    assert args.word == "list"
    assert load(flag_values(args), {}).downloads is on


def test_a_switch_is_taken_from_the_environment_and_the_file() -> None:
    written("downloads: on\n")
    assert load({}, {}).downloads
    assert not load({}, {"UPLOAD_GATEWAY_DOWNLOADS": "0"}).downloads
    words = complaint({}, {"UPLOAD_GATEWAY_DOWNLOADS": "maybe"})
    assert words == "UPLOAD_GATEWAY_DOWNLOADS: must be true or false (got 'maybe')"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(load({}, {}), "port", 1)  # noqa: B010  mypy would refuse the assignment


def test_auth_counts_as_said_from_any_source() -> None:
    assert load({"auth": "none"}, {}).auth_explicit
    assert load({}, {"UPLOAD_GATEWAY_AUTH": "token"}).auth_explicit
    written("auth: none\n")
    assert load({}, {}).auth_explicit


def test_a_folder_is_chosen_by_a_flag_or_by_its_own_settings(tmp_path: Path) -> None:
    assert load({"directory": "."}, {}).directory_explicit
    written("# only comments\n")
    assert not load({}, {}).directory_explicit
    written("auth: none\n")
    assert load({}, {}).directory_explicit
    elsewhere = tmp_path / "elsewhere.yaml"
    elsewhere.write_text("auth: none\n")
    assert not load({"config": str(elsewhere)}, {}).directory_explicit


def test_paths_of_flags_start_at_the_current_folder_and_paths_of_the_file_at_the_directory(
    tmp_path: Path,
) -> None:
    written("plugins: [mine, /absolute]\ninstallation-key-file: key\n", "data/config/gateway.yaml")
    settings = load({"directory": "data"}, {})
    assert settings.directory == tmp_path / "data"
    assert settings.config == tmp_path / "data/config/gateway.yaml"
    assert settings.plugins == (tmp_path / "data/mine", Path("/absolute"))
    assert settings.installation_key_file == tmp_path / "data/key"
    flagged = load({"directory": "data", "plugins": ["one", "two"]}, {})
    assert flagged.plugins == (tmp_path / "one", tmp_path / "two")


def test_the_file_may_name_the_directory(tmp_path: Path) -> None:
    path = written("directory: elsewhere\nplugins: p\n", "my.yaml")
    settings = load({"config": "my.yaml"}, {})
    assert (settings.directory, settings.config) == (tmp_path / "elsewhere", path)
    assert settings.plugins == (tmp_path / "elsewhere/p",)


def test_lists_come_from_the_environment_separated(tmp_path: Path) -> None:
    settings = load(
        {},
        {
            "UPLOAD_GATEWAY_PLUGINS": f"one:{tmp_path}/two",
            "UPLOAD_GATEWAY_REDACT": "X-One, X-Two",
            "UPLOAD_GATEWAY_TRUSTED_PROXIES": "10.0.0.0/8,::1",
            "UPLOAD_GATEWAY_TOKENS": f"alice:{SHA}",
        },
    )
    assert settings.plugins == (tmp_path / "one", tmp_path / "two")
    assert settings.redact == ("X-One", "X-Two")
    assert settings.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    assert settings.tokens == (Token(name="alice", sha256=SHA),)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0x1", None),
        ("1000", 1000),
        ("5B", 5),
        ("2K", 2048),
        ("2 KiB", 2048),
        ("2KB", 2000),
        ("3m", 3 * 1024**2),
        ("1G", 1024**3),
        ("1GiB", 1024**3),
        ("2T", 2 * 1024**4),
        ("-1", None),
        ("1.5G", None),
        ("K", None),
        ("0", None),
    ],
)
def test_sizes_are_bytes_or_take_a_suffix(text: str, size: int | None) -> None:
    if size is None:
        assert complaint({"max_bytes": text}).startswith("--max-bytes: must be ")
    else:
        assert load({"max_bytes": text}, {}).max_bytes == size


@pytest.mark.parametrize(
    ("written_storage", "bucket", "key"),
    [
        ("s3://files", Bucket("files", ""), "a/b"),
        ("s3://files/", Bucket("files", ""), "a/b"),
        ("s3://my.files/in/here/", Bucket("my.files", "in/here"), "in/here/a/b"),
    ],
)
def test_a_bucket_and_a_prefix_say_where_keys_lie(
    written_storage: str, bucket: Bucket, key: str
) -> None:
    assert load({"storage": written_storage}, {}).storage == bucket
    assert bucket.key("/a/b") == key


def test_a_limit_of_the_file_can_be_taken_away() -> None:
    written("max_bytes: 1M\n")
    assert load({}, {}).max_bytes == 1024**2
    assert load({"max_bytes": "none"}, {}).max_bytes is None


@pytest.mark.parametrize("written_mode", ["0640", "640", "0o640"])
def test_the_file_mode_is_octal_however_it_is_written(written_mode: str) -> None:
    written(f"file_mode: {written_mode}\n")
    assert load({}, {}).file_mode == 0o640
    assert load({"file_mode": written_mode}, {}).file_mode == 0o640


def test_addresses_are_taken_apart() -> None:
    assert load({"advertise": "files.example.org:443"}, {}).advertise == Address(
        "files.example.org", 443
    )
    assert load({"advertise": "[2001:db8::1]:80"}, {}).advertise == Address("2001:db8::1", 80)
    assert load({"host": "[::1]"}, {}).host == "::1"
    assert load({"public_url": "https://x.example/files/"}, {}).public_url == "https://x.example/files"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("port", "eighty", "--port: must be a whole number"),
        ("port", "65536", "--port: must be less than or equal to 65535 (got '65536')"),
        ("auth", "jwt", "--auth: no issuer is set: add --jwt-issuer URL"),
        ("jwt_issuer", "https://i.example", "--jwt-issuer: no audience is set"),
        ("jwt_audience", ["a"], "--jwt-audience: no issuer is set"),
        ("jwt_issuer", "login.example", "--jwt-issuer: must look like https://"),
        ("oidc_client_id", "gateway", "--oidc-client-id: no issuer is set: add --oidc-issuer URL"),
        ("oidc_groups", ["staff"], "--oidc-groups: no issuer is set: add --oidc-issuer URL"),
        ("jwt_issuer", "https://user:word@i.example", "--jwt-issuer: must look like https://"),
        ("jwt_algorithms", ["RS256", "HS256"], "--jwt-algorithms[2]: must be one of RS256"),
        ("jwt_algorithms", ["none"], "--jwt-algorithms[1]: must be one of RS256"),
        ("jwt_token_use", "refresh", "--jwt-token-use: must be 'any', 'access' or 'id'"),
        ("jwt_leeway", "3600", "--jwt-leeway: must be less than or equal to 300"),
        ("auth", "maybe", "--auth: must be 'none', 'token' or 'jwt' (got 'maybe')"),
        ("on_conflict", "keep", "--on-conflict: must be 'replace', 'reject' or 'rename'"),
        ("durability", "some", "--durability: must be 'full' or 'none'"),
        ("processes", "0", "--processes: must be greater than or equal to 1"),
        ("events", "redis://a", "--events: must be journal, or look like nats://"),
        ("storage", "s3:b", "--storage: must be file, or look like s3://bucket"),
        ("storage", "s3://bucket/a/../b", "--storage: segment 2 of the prefix"),
        ("file_mode", "888", "--file-mode: must be octal"),
        ("file_mode", "4755", "--file-mode: must be octal"),
        ("idle_timeout", "0", "--idle-timeout: must be greater than 0"),
        ("grace", "inf", "--grace: must be a time such as 30s, 15m, 12h or 7d"),
        ("log_level", "loud", "--log-level: must be 'debug'"),
        ("log_format", "xml", "--log-format: must be 'text' or 'json'"),
        ("advertise", "host", "--advertise: must be HOST:PORT"),
        ("advertise", "::1:80", "--advertise: must be HOST:PORT"),
        ("host", "http://x", "--host: must be a host name"),
        ("trusted_proxies", ["10.0.0.1/8"], "the bits behind the prefix must be 0"),
        ("redact", ["two words"], "--redact[1]: must be the name of a header"),
        ("file_upload_api_path", "upload", "--file-upload-api-path: "),
        ("tls_cert", "missing.pem", "--tls-cert: HTTPS needs both files; give --tls-key too"),
        ("config", "missing.yaml", "missing.yaml: cannot be read: No such file or directory"),
    ],
)
def test_a_bad_flag_is_named_with_what_to_do(name: str, value: object, words: str) -> None:
    told = complaint({name: value})
    assert words in told
    assert "\n" not in told


def test_a_bad_variable_is_named() -> None:
    assert complaint(environ={"UPLOAD_GATEWAY_PORT": "x"}).startswith("UPLOAD_GATEWAY_PORT: must be")
    assert complaint(environ={"UPLOAD_GATEWAY_PORT": ""}).startswith("UPLOAD_GATEWAY_PORT is empty")


def test_an_unknown_variable_is_refused_with_a_guess() -> None:
    told = complaint(environ={"UPLOAD_GATEWAY_PROT": "1"})
    assert told == "unknown environment variable UPLOAD_GATEWAY_PROT; did you mean UPLOAD_GATEWAY_PORT?"


def test_variables_that_kubernetes_injects_are_explained() -> None:
    environ = {"UPLOAD_GATEWAY_SERVICE_HOST": "10.0.0.7"}
    assert "enableServiceLinks: false" in complaint(environ=environ)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("host: ::1\nprot: 1\n", 2, "unknown key 'prot'; did you mean port?"),
        ("port: 1\nport: 2\n", 2, "port is set twice"),
        ("config: other.yaml\n", 1, "cannot be set in the settings file"),
        ("\nport: yes\n", 2, "port: must be a whole number"),
        ("port: [1]\n", 1, "port: must be a whole number"),
        ("tokens:\n- {name: a, sha256: 12}\n", 2, "tokens[1].sha256: must be 64 hex digits"),
        (
            f"tokens:\n- name: a\n  sha256: {SHA}\n  sha265: x\n",
            4,
            "tokens[1].sha265: is not a known key",
        ),
        ("tokens:\n- name: a\n", 2, "tokens[1].sha256: is missing"),
        (
            f"tokens:\n- {{name: a, sha256: {SHA}}}\n- {{name: a, sha256: {SHA}}}\n",
            3,
            "token name a is used twice",
        ),
        ("port: 1\n  host: x\n", 2, "is not valid YAML (mapping values are not allowed here)"),
        ("- port\n", 1, "must hold `key: value` lines"),
        ("tokens: &a [*a]\n", 1, "tokens: is nested too deeply"),
        ("? [a]\n: 1\n", 1, "unknown key"),
        ("host: 0.0.0.0\n", 1, "--auth token"),
        ("tls_key: k\n", 1, "give --tls-cert too"),
    ],
)
def test_a_fault_of_the_file_is_named_with_file_and_line(text: str, line: int, words: str) -> None:
    path = written(text)
    told = complaint()
    assert told.startswith(f"{path}:{line}: ")
    assert words in told


def test_a_file_that_is_no_text_is_refused() -> None:
    Path("binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8 text" in complaint({"config": "binary.yaml"})
    Path("control.yaml").write_bytes(b"port: \x01")
    assert "forbids" in complaint({"config": "control.yaml"})
    assert "Is a directory" in complaint({"config": "."})


def test_several_faults_are_told_together() -> None:
    written("prot: 1\nport: x\n")
    with pytest.raises(ExceptionGroup) as caught:
        load({"grace": "-1"}, {"UPLOAD_GATEWAY_FOO": "1"})
    assert len(caught.value.exceptions) == 4


@pytest.mark.parametrize("secret", ["hunter2hunter2", "https://user:hunter2hunter2@host/"])
def test_secrets_are_never_quoted(secret: str) -> None:
    for flags in ({"tokens": [f"alice:{secret}"]}, {"tokens": [secret]}, {"public_url": secret}):
        assert "hunter2" not in complaint(flags)
    path = written(f"tokens: {{a: 'hunter2', b: [\n{secret}\n")
    assert "hunter2" not in complaint({"config": str(path)})
    assert SHA not in repr(load({"tokens": [f"a:{SHA}"], "config": str(written(""))}, {}))


def test_an_address_that_others_reach_needs_auth_explicit_aloud() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "gateway.example.org"):
        assert "--auth none if you mean it" in complaint({"host": host})
        assert load({"host": host, "auth": "none"}, {}).host == host
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        assert load({"host": host}, {}).host == host


def test_a_verb_that_opens_no_port_may_leave_auth_unsaid() -> None:
    assert load({"host": "0.0.0.0"}, {}, listening=False).host == "0.0.0.0"


def test_an_unreadable_certificate_is_refused() -> None:
    Path("key.pem").write_text("")
    told = complaint({"tls_cert": "missing.pem", "tls_key": "key.pem"})
    assert told.startswith("--tls-cert: ")
    assert "cannot be read" in told


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    Path("README.md").write_text("")
    message = complaint({"directory": "README.md"})
    assert message == f"--directory: {tmp_path}/README.md is a file, not a folder"


def test_a_directory_that_cannot_be_looked_up_is_left_to_the_start() -> None:
    name = "x" * 300  # ENAMETOOLONG; a folder that may not be searched is EACCES
    assert load({"directory": name}, {}).directory.name == name


def test_every_setting_is_told_to_operators() -> None:
    told = {row.name for row in settings_table()}
    assert told == set(Settings.model_fields) - {"auth_explicit", "directory_explicit"}
    assert all(row.option.help and row.option.metavar for row in settings_table())


def test_the_reference_page_is_fresh() -> None:
    page = (PROJECT / "docs/reference/settings.md").read_text()
    assert page == reference(), "run: python -m gateway.settings reference > docs/reference/settings.md"


def test_the_example_file_is_fresh() -> None:
    file = (PROJECT / "config/gateway.yaml").read_text()
    assert file == example(), "run: python -m gateway.settings example > config/gateway.yaml"


def test_the_example_file_with_every_key_uncommented_says_the_defaults(tmp_path: Path) -> None:
    text = re.sub(r"^#(\w+:)", r"\1", example(), flags=re.MULTILINE)
    keys = set(re.findall(r"^(\w+):", text, flags=re.MULTILINE))
    assert keys == {row.name for row in settings_table() if row.option.in_file}
    path = written(text)
    assert load({}, {}) == Settings(
        directory=tmp_path, config=path, auth_explicit=True, directory_explicit=True
    )
    path.write_text(example())
    assert load({}, {}) == Settings(directory=tmp_path, config=path)


def test_every_duration_takes_a_unit_in_every_source() -> None:
    durations = [row.name for row in settings_table() if row.option.metavar == "TIME"]
    floats = [row.name for row in settings_table() if isinstance(row.field.default, float)]
    assert durations == floats
    for name in durations:
        assert getattr(load({name: "2m"}, {}), name) == 120
        assert getattr(load({}, {f"UPLOAD_GATEWAY_{name.upper()}": "120"}), name) == 120
    written("retention: 2d\ngrace: 1m\n")
    assert (load({}, {}).retention, load({}, {}).grace) == (172_800, 60)


def test_a_sign_in_with_an_issuer_needs_a_client_and_an_authorization(tmp_path: Path) -> None:
    given = {"directory": str(tmp_path), "oidc_issuer": "https://login.example"}
    with pytest.raises(ExceptionGroup) as incomplete:
        load(given, {})
    messages = [str(error) for error in incomplete.value.exceptions]
    assert any("add --oidc-client-id ID" in message for message in messages)
    assert any("add --auth token, or --auth jwt" in message for message in messages)
    whole = {**given, "oidc_client_id": "gateway", "auth": "token"}
    assert load(whole, {}).oidc_scopes == ()
    with pytest.raises(ConfigError, match="cannot be read"):
        load({**whole, "oidc_client_secret_file": "missing"}, {})
