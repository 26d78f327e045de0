"""`gateway sign` against a running gateway: the printed URL is accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import StartGateway, StartProcess
from tests.support.cli import key_file, signed_url
from tests.support.harness import curl, get, put, write_plugin
from tests.unit.cli.test_sign import ROUTE


async def test_the_running_gateway_takes_it(
    start_gateway: StartGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_plugin(tmp_path / "plugins", ROUTE)
    gateway = await start_gateway(auth="token", plugins=[str(folder)])
    more = ["--directory", str(tmp_path / "data"), "--port", str(gateway.address[1])]
    more += ["--plugins", str(folder)]
    upload = signed_url(capsys, "PUT", "/upload/x.txt", "--content-type", "text/plain", *more)
    (tmp_path / "x.txt").write_text("body")
    wrong = await curl("-T", str(tmp_path / "x.txt"), upload)
    right = await curl("-T", str(tmp_path / "x.txt"), "-H", "Content-Type: text/plain", upload)
    assert (wrong.status, right.status) == (403, 201)
    read = signed_url(capsys, "GET", "/-/objects/upload/x.txt", "--filename", "a b.txt", *more)
    assert (await curl(read)).body == "body"
    assert (await curl("-X", "PUT", "-d", "x", read)).status == 403
    asked = signed_url(capsys, "GET", "/exports/csv?from=a%20b&from=c", *more)
    assert (await curl(asked)).body.strip() == '{"kind": "csv", "params": ["a b", "c"]}'
    assert (await curl(asked.replace("/csv", "/json"))).status == 403
    page = signed_url(capsys, "GET", f"/-/uploads/{right.body.split(chr(34))[3]}", *more)
    assert '"path": "/upload/x.txt"' in (await curl(page)).body


@pytest.mark.slow
async def test_a_new_key_signs_and_the_old_one_verifies_until_it_is_taken_out(
    tmp_path: Path, gateway_process: StartProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(key_file(tmp_path))
    flags = ["--installation-key-file", str(file)]
    sign = ["GET", "/-/health", "--directory", str(tmp_path / "data"), *flags]
    before = "/" + signed_url(capsys, *sign).split("/", 3)[3]
    assert before.startswith("/-/health?")
    old = signed_url(capsys, "PUT", "/upload/x", *sign[2:]).split("/", 3)[3]
    file.write_bytes(b"n" * 40 + b"\n" + b"k" * 40 + b"\n")
    new = signed_url(capsys, "PUT", "/upload/x", *sign[2:]).split("/", 3)[3]
    with gateway_process(*flags) as gateway:
        assert [(await put(gateway, f"/{one}")).status for one in (old, new)] == [201, 200]
    file.write_bytes(b"n" * 40 + b"\n")
    gateway = gateway_process(*flags)
    assert [(await put(gateway, f"/{one}")).status for one in (old, new)] == [403, 200]
    assert (await get(gateway, "/-/health")).status == 200
