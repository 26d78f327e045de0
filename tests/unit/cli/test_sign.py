"""gateway sign: what is signed and what is refused."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from gateway.auth.installation import read_installation_keys
from gateway.cli import main
from gateway.domain.grant import Grant
from gateway.domain.paths import split_target
from gateway.signing.urls import UrlSigner
from tests.support.cli import key_file, signed_url
from tests.support.harness import write_plugin

ROUTE = """
name: exports
upstreams: []
proxy: {path: "/exports/{kind}", scheme: "http:", authorization: {auth: default}}
target: {path: "/exports/{kind}", scheme: "http:"}
spec:
- {command: callout, method: GET, schema: {}}
request_script: |
  return {"kind": request.resources["kind"], "params": request.params["from"]}
"""


def grant(url: str, tmp_path: Path, method: str = "PUT") -> Grant:
    target = "/" + url.split("/", 3)[3]
    return UrlSigner(read_installation_keys(tmp_path / "shared.key")).verify(
        method, *split_target(target)
    )


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    return ["--directory", str(tmp_path), "--installation-key-file", key_file(tmp_path)]


def test_it_signs_what_is_said(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["put", "/upload/a b/%C3%BC;1.png", "--expires", "60", "--content-type", "image/png"]
    words += ["--max-length", "10", "--meta", "Title=a=b", "--meta", "x=", "--once", "--no-overwrite"]
    url = signed_url(capsys, *words, *flags)
    assert url.startswith("http://127.0.0.1:8080/upload/a%20b/%C3%BC;1.png?X-Gateway-")
    found = grant(url, tmp_path)
    assert found.path == "/upload/a b/ü;1.png"
    assert (found.content_type, found.max_length, found.on_conflict) == ("image/png", 10, "reject")
    assert found.metadata == {"title": "a=b", "x": ""}
    assert re.fullmatch(r"[\w-]{22}", found.once or "")


def test_two_one_time_urls_are_two(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["PUT", "/upload/x", "--once", *flags]
    assert signed_url(capsys, *words) != signed_url(capsys, *words)


@pytest.mark.parametrize(
    ("more", "base"),
    [
        ([], "http://127.0.0.1:8080"),
        (["--port", "9000"], "http://127.0.0.1:9000"),
        (["--host", "0.0.0.0", "--auth", "token"], "http://127.0.0.1:8080"),
        (["--host", "::1"], "http://[::1]:8080"),
        (["--advertise", "files.internal:99"], "http://files.internal:99"),
        (["--public-url", "https://f.example/base", "--port", "0"], "https://f.example/base"),
    ],
)
def test_the_url_begins_with_what_the_operator_said(
    flags: list[str], more: list[str], base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert signed_url(capsys, "PUT", "/upload/x", *flags, *more).startswith(f"{base}/upload/x?")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["PUT", "upload/x"], "PATH must start with a slash"),
        (["PUT", "http://127.0.0.1:8080/upload/x"], "PATH must start with a slash"),
        (
            ["PUT", "/uploads/x"],
            "/uploads/x is not a path of this gateway. Files are uploaded with PUT /upload/",
        ),
        (["GET", "/v1/unknown"], "not a path of this gateway"),
        (["GET", "/-/secrets"], "not a path of this gateway"),
        (["GET", "/-/journals"], "not a path of this gateway"),
        (["POST", "/-/health"], "this path allows GET, HEAD, not POST"),
        (["GET", "/-/notifications"], "this path allows POST, not GET"),
        (["GET", "/upload/x"], "without --downloads: sign /-/objects/upload/x"),
        (["DELETE", "/upload/x"], "this path allows PUT, GET, HEAD, not DELETE"),
        (["POST", "/-/objects/x"], "this path allows PUT, GET, HEAD, not POST"),
        (["POST", "/exports/csv"], "this path allows GET, HEAD, not POST"),
        (["PUT", "/upload/../x"], "segment 2 of the path is not a plain name"),
        (["PUT", "/upload/a%2Fb"], "contains a slash"),
        (["PUT", "/upload/%zz"], "bad percent-escape"),
        (["PUT", "/-/objects/.gateway/x"], "reserved for the gateway's state"),
        (["PUT", "/upload/x", "--expires", "0"], "at least a second and at most 7 days"),
        (["PUT", "/upload/x", "--expires", "604801"], "at most 7 days"),
        (["PUT", "/upload/x", "--length", "1", "--max-length", "2"], "not both"),
        (["PUT", "/upload/x", "--meta", "novalue"], "must look like NAME=VALUE"),
        (["PUT", "/upload/x", "--meta", "a=1", "--meta", "A=2"], "has a name twice"),
        (["PUT", "/upload/x", "--meta", "a_b=1"], "a-z, 0-9 and hyphens"),
        (["PUT", "/upload/x", "--filename", "x"], "applies to downloads: GET"),
        (["GET", "/-/objects/x", "--once"], "apply to uploads: PUT"),
        (["GET", "/exports/csv", "--once"], "this path stores no file"),
        (["PUT", "/upload/x?X-Gateway-Key=1"], "is already signed"),
        (["PUT", "/upload/x", "--port", "0"], "add --public-url"),
    ],
)
def test_a_path_without_endpoint_is_refused_with_a_reason(
    tmp_path: Path,
    flags: list[str],
    words: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write_plugin(tmp_path / "plugins", ROUTE)
    assert main(["sign", *words, *flags, "--plugins", str(folder)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert complaint in printed.err


def test_without_a_key_it_says_where_it_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sign", "PUT", "/upload/x", "--directory", str(tmp_path)]) == 2
    assert "the gateway creates it at its first start" in capsys.readouterr().err
    assert not (tmp_path / ".gateway").exists()


def test_lifetime_and_sizes_take_units(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("PUT", "/upload/x", *flags, "--max-length", "10K", "--expires")
    signed = grant(signed_url(capsys, *words, "1d"), tmp_path)
    assert signed.max_length == 10_240
    assert 86_000 < signed.expires - time.time() <= 86_400
    assert main(["sign", *words, "1 day"]) == 2
    assert "--expires: must be a time such as 30s" in capsys.readouterr().err
