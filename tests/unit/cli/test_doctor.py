"""`gateway doctor`: finds what is wrong, says what to do, leaves no trace."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from gateway.cli import doctor, main
from gateway.cli.doctor import deployment, disk, events, machine
from gateway.cli.doctor.finding import Finding
from gateway.settings import Settings, Token, load, usable_cores
from tests.support.harness import self_signed_certificate
from tests.support.jwt.issuing import FakeIssuer, rsa_pair


def settings_of(directory: Path, **more: Any) -> Settings:
    return Settings(directory=directory, **{"port": 0, "min_free_bytes": 1, **more})


def levels(findings: Iterator[Finding]) -> list[str]:
    return [finding.level for finding in findings]


def everything(directory: Path) -> set[Path]:
    return set(directory.rglob("*"))


def test_a_sound_installation_has_no_failure_and_keeps_no_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".gateway").mkdir()
    (tmp_path / "upload").mkdir()
    before = everything(tmp_path)
    assert main(["doctor", "--port", "0", "--min-free-bytes", "1"]) == 0
    printed = capsys.readouterr().out
    assert everything(tmp_path) == before
    assert {line.split()[0] for line in printed.splitlines()} <= {"ok", "warn"}
    for words in (
        "is writable",
        "free space",
        "file system",
        "rename works",
        "fsync: file",
        "clock",
        "SQLite",
    ):
        assert words in printed


def test_a_missing_directory_fails_and_the_other_checks_still_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.run(settings_of(tmp_path / "gone")) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("FAIL")] == [
        f"FAIL  directory {tmp_path}/gone does not exist  (create it, or set --directory)"
    ]
    assert any("SQLite" in line for line in lines)


def test_a_directory_that_refuses_us_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert levels(disk.directory(settings_of(tmp_path))) == ["FAIL"]


def test_an_error_of_the_system_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuses(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuses)
    assert doctor.run(settings_of(tmp_path)) == 1
    assert "FAIL  fsync: Input/output error" in capsys.readouterr().out
    assert everything(tmp_path) == set()


def test_no_space_above_the_watermark_fails(tmp_path: Path) -> None:
    assert levels(disk.free_space(settings_of(tmp_path, min_free_bytes=2**62))) == ["FAIL"]
    assert levels(disk.free_space(settings_of(tmp_path))) == ["ok"]


@pytest.mark.parametrize(
    ("free", "total", "found"),
    [(0, 9, ["FAIL"]), (9, 20_000, ["warn"]), (15_000, 20_000, ["ok"]), (0, 0, [])],
)
def test_a_file_system_without_inodes_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, total: int, found: list[str]
) -> None:
    figures = SimpleNamespace(f_favail=free, f_files=total)
    monkeypatch.setattr(os, "statvfs", lambda _: figures)
    assert levels(disk.inodes(settings_of(tmp_path))) == found


def test_an_upload_folder_on_another_mount_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_mount(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "rename", other_mount)
    assert levels(disk.publishing(settings_of(tmp_path))) == ["FAIL"]
    assert everything(tmp_path) == set()


@pytest.mark.parametrize(
    ("mounts", "level"),
    [
        ("/dev/sda1 / ext4 rw 0 0\n", "ok"),
        ("overlay / overlay rw 0 0\n", "warn"),
        ("overlay / overlay rw 0 0\nserver:/x {root} nfs4 rw 0 0\n", "warn"),
        ("server:/x / nfs4 rw 0 0\n/dev/sdb {root} xfs rw 0 0\n", "ok"),
        ("/dev/sda1 / ext4 rw 0 0\nserver:/x {root}-other nfs4 rw 0 0\n", "ok"),
        ("/dev/sda1 {root} ext4 rw 0 0\ntmpfs {root} tmpfs rw 0 0\n", "warn"),
        ("", "warn"),
    ],
)
def test_the_file_system_is_that_of_the_innermost_last_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounts: str, level: str
) -> None:
    monkeypatch.setattr(disk, "_mounts", lambda: mounts.format(root=tmp_path.resolve()))
    assert levels(disk.file_system(settings_of(tmp_path))) == [level]


def test_a_mount_point_with_a_blank_is_understood() -> None:
    assert disk.mounted_as(Path("/my disk/data"), "x / ext4 rw\ny /my\\040disk btrfs rw\n") == "btrfs"


def test_a_clock_that_was_never_set_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 12.0)
    assert levels(disk.clock(settings_of(tmp_path))) == ["FAIL"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ["ok"]),
        ({"host": "0.0.0.0"}, ["FAIL"]),
        ({"host": "0.0.0.0", "auth_explicit": True}, ["warn"]),
        ({"host": "0.0.0.0", "auth": "token", "auth_explicit": True}, ["warn"]),
        ({"host": "::", "auth": "token", "auth_explicit": True, "tls_cert": Path("c")}, ["ok"]),
        ({"tokens": (Token(name="a", sha256="0" * 64),)}, ["ok", "warn"]),
        ({"auth": "jwt"}, ["ok", "warn"]),
        ({"auth": "jwt", "jwt_operators": ("ops",)}, ["ok"]),
    ],
)
def test_address_and_authorization_are_weighed_together(
    tmp_path: Path, more: dict[str, Any], expected: list[str]
) -> None:
    assert levels(deployment.authorization(settings_of(tmp_path, **more))) == expected


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ["ok"]),
        ({"public_url": "https://x"}, ["FAIL", "warn"]),
        ({"public_url": "https://x", "auth_explicit": True}, ["warn"]),
        ({"trusted_proxies": (ip_network("10.0.0.0/8"),), "auth_explicit": True}, ["warn"]),
        (
            {"trusted_proxies": (ip_network("::1"),), "public_url": "https://x", "auth_explicit": True},
            ["ok"],
        ),
    ],
)
def test_a_proxy_in_front_must_be_known(
    tmp_path: Path, more: dict[str, Any], expected: list[str]
) -> None:
    assert levels(deployment.proxy(settings_of(tmp_path, **more))) == expected


def test_plugins_that_do_not_load_fail_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: x\nevent: APIGW.OnNothing\nscript: ''\n")
    [*findings] = deployment.plugins(settings_of(tmp_path, plugins=(tmp_path,)))
    assert {finding.level for finding in findings} == {"FAIL"}
    assert f"{tmp_path}/bad.yaml:" in findings[0].text


def test_plugins_that_load_are_listed(tmp_path: Path) -> None:
    script = "|\n  async def hello(event, handle):\n    pass\n"
    (tmp_path / "good.yaml").write_text(f"name: hello\nevent: APIGW.OnFileUploaded\nscript: {script}")
    [finding] = deployment.plugins(settings_of(tmp_path, plugins=(tmp_path,)))
    assert finding.level == "ok"
    assert "hello" in finding.text


class Health(BaseHTTPRequestHandler):
    """Answers like a gateway, and remembers the paths it was asked for."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": "ok"}')

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def test_a_running_server_is_asked_for_its_health_and_readiness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment, "_HEALTH_TIMEOUT", 30.0)
    Health.asked.clear()
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        [finding] = deployment.server(settings_of(tmp_path, port=server.server_port))
        server.shutdown()
        thread.join()
    assert finding.level == "ok"
    assert "a server answers 200" in finding.text
    assert Health.asked == ["/-/health", "/-/ready"]


def test_a_free_port_and_a_stranger_on_the_port_are_told_apart(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(1000)
                peer.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        taken = levels(deployment.server(settings_of(tmp_path, port=port)))
        thread.join()
    assert taken == ["warn"]
    [finding] = deployment.server(settings_of(tmp_path, port=port))
    assert "the port is free" in finding.text


def told_of_issuer(directory: Path, **more: Any) -> str:
    settings = settings_of(directory, jwt_audience=("photos",), **more)
    return "\n".join(str(finding) for finding in deployment.issuer(settings))


async def test_the_issuer_of_tokens_is_asked_for_its_keys(tmp_path: Path) -> None:
    assert list(deployment.issuer(settings_of(tmp_path))) == []
    async with FakeIssuer().serving() as issuer:
        ask = partial(asyncio.to_thread, told_of_issuer, tmp_path, jwt_issuer=issuer.url)
        assert await ask() == (f"ok    issuer {issuer.url}: 1 keys for RS256, fetched again after 300 s")
        issuer.pairs.append(rsa_pair("e", use="enc"))
        assert "warn  issuer: key 2: it is not for signatures  (this key is ignored)" in await ask()
        issuer.status = 500
        assert (await ask()).startswith(
            f"FAIL  issuer: {issuer.url}/keys answers 500  (until it answers"
        )


def test_an_issuer_on_an_unencrypted_way_is_warned_of(tmp_path: Path) -> None:
    told = told_of_issuer(tmp_path, jwt_issuer="http://issuer.invalid")
    assert told.startswith("warn  the keys of http://issuer.invalid come unencrypted")
    assert "FAIL  issuer: http://issuer.invalid/.well-known" in told


def test_more_processes_than_cores_are_warned_of(tmp_path: Path) -> None:
    cores = usable_cores()
    [finding] = machine.processes(load({"directory": str(tmp_path), "processes": "auto"}, {}))
    assert str(finding).startswith(f"ok    processes: {cores} on {cores} core")
    assert levels(machine.processes(settings_of(tmp_path, processes=cores + 1))) == ["warn"]


@pytest.mark.parametrize(
    ("days", "public", "told"),
    [
        (90, "https://gw.example", ["ok"]),
        (90, "https://other.example", ["ok", "warn"]),
        (3, None, ["warn"]),
    ],
)
def test_dates_and_names_of_the_certificate_are_read(
    tmp_path: Path, days: int, public: str | None, told: list[str]
) -> None:
    cert, key = self_signed_certificate(tmp_path, "gw.example", days=days)
    settings = settings_of(tmp_path, tls_cert=cert, tls_key=key, public_url=public)
    assert levels(machine.certificate(settings)) == told


def test_a_certificate_that_has_expired_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Later:
            return cls.fromtimestamp(datetime.now(UTC).timestamp() + 3 * 86400, tz)

    cert, key = self_signed_certificate(tmp_path)
    monkeypatch.setattr(machine, "datetime", Later)
    assert levels(machine.certificate(settings_of(tmp_path, tls_cert=cert, tls_key=key))) == ["FAIL"]


def test_a_certificate_of_another_key_fails(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    cert, _ = self_signed_certificate(tmp_path)
    _, key = self_signed_certificate(tmp_path / "other")
    assert levels(machine.certificate(settings_of(tmp_path, tls_cert=cert, tls_key=key))) == ["FAIL"]


def test_the_size_of_the_journal_is_told(tmp_path: Path) -> None:
    (tmp_path / ".gateway").mkdir()
    journal = tmp_path / ".gateway/journal-0.db"
    journal.write_bytes(b"x")
    assert levels(events.journal(settings_of(tmp_path))) == ["ok"]
    os.truncate(journal, events.LARGE_JOURNAL + 1)
    assert levels(events.journal(settings_of(tmp_path))) == ["warn"]


def test_a_low_limit_of_open_files_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    assert levels(machine.open_files(settings_of(tmp_path))) == ["warn"]


class NotReady(BaseHTTPRequestHandler):
    """A gateway that is healthy and not ready."""

    def do_GET(self) -> None:
        ready = self.path != "/-/ready"
        body = {"ready": ready, "checks": {"disk": True, "processes": ready}}
        if not ready:
            body["reasons"] = {"processes": "unresponsive: 1; look at it"}
        text = json.dumps(body).encode()
        self.send_response(200 if ready else 503)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def test_what_a_running_gateway_lacks_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), NotReady) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        healthy, lack = deployment.server(settings_of(tmp_path, port=server.server_port))
        server.shutdown()
        thread.join()
    assert healthy.level == "ok"
    assert (lack.level, lack.text) == ("FAIL", "the running gateway is not ready: processes")
    assert lack.advice == "unresponsive: 1; look at it"


class NoGateway(NotReady):
    """A service whose health is like ours, and which has no `/-/ready`."""

    def do_GET(self) -> None:
        if self.path == "/-/ready":
            self.send_error(404)
        else:
            super().do_GET()


def test_a_service_without_readiness_does_not_end_the_checks(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), NoGateway) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        findings = levels(deployment.server(settings_of(tmp_path, port=server.server_port)))
        server.shutdown()
        thread.join()
    assert findings == ["ok", "warn"]
