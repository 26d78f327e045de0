"""`gateway sign`: a door of this gateway takes what it prints; what no door takes it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.auth.installation import known_keys
from gateway.cli import main
from gateway.domain.grant import Grant
from gateway.domain.paths import split_target
from gateway.signing import UrlSigner
from tests.conftest import StartGateway, StartProcess
from tests.support.harness import curl, get, put, write_plugin

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


def key(tmp_path: Path) -> str:
    file = tmp_path / "shared.key"
    file.write_bytes(b"k" * 40 + b"\n")
    file.chmod(0o600)
    return str(file)


def signed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["sign", *words]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    return line


def grant(url: str, tmp_path: Path, method: str = "PUT") -> Grant:
    target = "/" + url.split("/", 3)[3]
    return UrlSigner(known_keys(tmp_path / "shared.key")).verify(method, *split_target(target))


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    return ["--directory", str(tmp_path), "--installation-key-file", key(tmp_path)]


def test_it_signs_what_is_said(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["put", "/upload/a b/%C3%BC;1.png", "--expires", "60", "--content-type", "image/png"]
    words += ["--max-length", "10", "--meta", "Title=a=b", "--meta", "x=", "--once", "--no-overwrite"]
    url = signed(capsys, *words, *flags)
    assert url.startswith("http://127.0.0.1:8080/upload/a%20b/%C3%BC;1.png?X-Gateway-")
    found = grant(url, tmp_path)
    assert found.path == "/upload/a b/ü;1.png"
    assert (found.content_type, found.max_length, found.on_conflict) == ("image/png", 10, "reject")
    assert found.metadata == {"title": "a=b", "x": ""}
    assert re.fullmatch(r"[\w-]{22}", found.once or "")


def test_two_one_time_urls_are_two(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["PUT", "/upload/x", "--once", *flags]
    assert signed(capsys, *words) != signed(capsys, *words)


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
    assert signed(capsys, "PUT", "/upload/x", *flags, *more).startswith(f"{base}/upload/x?")


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
        (["GET", "/upload/x"], "without --downloads: sign /-/objects/upload/x"),
        (["DELETE", "/upload/x"], "this path accepts PUT, GET, HEAD, not DELETE"),
        (["POST", "/-/objects/x"], "this path accepts PUT, GET, HEAD, not POST"),
        (["POST", "/exports/csv"], "this path answers GET, HEAD, not POST"),
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


async def test_the_running_gateway_takes_it(
    start_gateway: StartGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_plugin(tmp_path / "plugins", ROUTE)
    gateway = await start_gateway(auth="token", plugins=[str(folder)])
    more = ["--directory", str(tmp_path / "data"), "--port", str(gateway.address[1])]
    more += ["--plugins", str(folder)]
    upload = signed(capsys, "PUT", "/upload/x.txt", "--content-type", "text/plain", *more)
    (tmp_path / "x.txt").write_text("body")
    wrong = await curl("-T", str(tmp_path / "x.txt"), upload)
    right = await curl("-T", str(tmp_path / "x.txt"), "-H", "Content-Type: text/plain", upload)
    assert (wrong.status, right.status) == (403, 201)
    read = signed(capsys, "GET", "/-/objects/upload/x.txt", "--filename", "a b.txt", *more)
    assert (await curl(read)).body == "body"
    assert (await curl("-X", "PUT", "-d", "x", read)).status == 403
    asked = signed(capsys, "GET", "/exports/csv?from=a%20b&from=c", *more)
    assert (await curl(asked)).body.strip() == '{"kind": "csv", "params": ["a b", "c"]}'
    assert (await curl(asked.replace("/csv", "/json"))).status == 403
    page = signed(capsys, "GET", f"/-/uploads/{right.body.split(chr(34))[3]}", *more)
    assert '"path": "/upload/x.txt"' in (await curl(page)).body


@pytest.mark.slow
async def test_a_new_key_signs_and_the_old_one_verifies_until_it_is_taken_out(
    tmp_path: Path, gateway_process: StartProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(key(tmp_path))
    flags = ["--installation-key-file", str(file)]
    sign = ["GET", "/-/health", "--directory", str(tmp_path / "data"), *flags]
    before = "/" + signed(capsys, *sign).split("/", 3)[3]
    assert before.startswith("/-/health?")
    old = signed(capsys, "PUT", "/upload/x", *sign[2:]).split("/", 3)[3]
    file.write_bytes(b"n" * 40 + b"\n" + b"k" * 40 + b"\n")
    new = signed(capsys, "PUT", "/upload/x", *sign[2:]).split("/", 3)[3]
    with gateway_process(*flags) as gateway:
        assert [(await put(gateway, f"/{one}")).status for one in (old, new)] == [201, 200]
    file.write_bytes(b"n" * 40 + b"\n")
    gateway = gateway_process(*flags)
    assert [(await put(gateway, f"/{one}")).status for one in (old, new)] == [403, 200]
    assert (await get(gateway, "/-/health")).status == 200
