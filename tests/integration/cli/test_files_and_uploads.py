"""`gateway files` and `gateway uploads`, with a running server and without one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.conftest import StartProcess
from tests.support.cli import run_verb
from tests.support.harness import files_below, put
from tests.support.recorders import recording_events

pytestmark = pytest.mark.slow


def masked(text: str) -> str:
    """Replace what differs from run to run."""
    text = re.sub(r"[0-9A-Z]{26}-\d", "<id>                      -0", text)
    text = re.sub(r"\b[0-9a-f]{20}\b", "<etag>", text)
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "<date>             ", text)


async def test_files_are_listed_shown_and_removed(gateway_process: StartProcess, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with recording_events() as recorder:
        (plugins,) = recorder.write_handler(tmp_path / "p", "APIGW.OnFileDeleted", "gone")
        with gateway_process("--plugins", plugins, "--advertise", "localhost:8080") as running:
            await put(running, "/upload/a.txt", b"12345", "X-Amz-Meta-Color: red")
            await put(running, "/upload/d/e.bin", b"x" * 2000)
            code, out, _ = run_verb(data, "files", "list")
            assert (code, masked(out)) == (
                0,
                "       5 B  <date>               a.txt\n                                 d/\n",
            )
            _, out, _ = run_verb(data, "files", "list", "--recursive", "--json")
            assert [entry["name"] for entry in json.loads(out)] == ["a.txt", "d/e.bin"]
            _, out, _ = run_verb(data, "files", "show", "/upload/a.txt")
            lines = masked(out).splitlines()
            assert lines[:2] == ["path      /upload/a.txt", "bytes     5 (5 B)"]
            assert "mime      text/plain" in lines
            assert "metadata  color: red" in lines
            code, _, err = run_verb(data, "files", "remove", "/upload/a.txt", "--if-match", "other")
            assert (code, "If-Match is not met" in err) == (1, True)
            assert run_verb(data, "files", "remove", "/upload/a.txt")[:2] == (
                0,
                "removed /upload/a.txt\n",
            )
            _, event = await recorder.next_event()
            assert event["principal"] == {"name": "operator", "kind": "owner"}
            assert event["remote"] is None
            assert run_verb(data, "files", "show", "/upload/a.txt")[0] == 1
            assert run_verb(data, "files", "list", "/upload/none")[0] == 1
    code, out, _ = run_verb(data, "files", "list", "upload/d")
    assert (code, masked(out)) == (0, "    2.0 kB  <date>               e.bin\n")
    code, _, err = run_verb(data, "files", "remove", "/upload/d/e.bin")
    assert (code, "needs a running server" in err) == (2, True)
    assert set(files_below(data / "upload")) == {"d/e.bin"}
    for words in (("show",), ("list", "--if-match", "x"), ("remove", "/x", "--recursive")):
        assert run_verb(data, "files", *words)[0] == 2


async def test_uploads_are_listed_and_shown(gateway_process: StartProcess, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with gateway_process("--processes", "2") as running:
        for name in ("x", "y"):
            await put(running, f"/upload/{name}", b"12345")
        assert run_verb(data, "files", "remove", "/upload/x")[0] == 0
        await put(running, "/upload/z", b"x", f"Content-MD5: {'A' * 22}==")
        code, out, err = run_verb(data, "uploads", "list")
        assert (code, err) == (0, "")
        header, *lines = out.splitlines()
        assert header.split() == ["UPLOAD", "STATE", "SIZE", "CREATED", "PRINCIPAL", "PATH"]
        assert [(line.split()[1], line.split()[-1]) for line in lines] == [
            ("failed", "/upload/z"),
            ("stored", "/upload/y"),
            ("removed", "/upload/x"),
        ]
        (removed,) = json.loads(run_verb(data, "uploads", "list", "--state", "removed", "--json")[1])
        key = removed["upload_id"]
        shown = run_verb(data, "uploads", "show", key)[1]
        assert f"upload_id       {key}\nstate           removed\n" in shown
        assert run_verb(data, "uploads", "list", "--since", "2h", "--principal", "me")[1] == (
            "no uploads match\n"
        )
        assert run_verb(data, "uploads", "show", "none")[0] == 1
    stopped = json.loads(run_verb(data, "uploads", "list", "--json")[1])
    assert [(row["state"], row["path"]) for row in stopped] == [
        ("stored", "/upload/y"),
        ("removed", "/upload/x"),
    ]
    assert run_verb(data, "uploads", "show", key)[0] == 0
    for words in (("show",), ("list", key), ("show", key, "--state", "stored")):
        assert run_verb(data, "uploads", *words)[0] == 2
    assert run_verb(tmp_path / "empty", "uploads", "list")[0] == 2
