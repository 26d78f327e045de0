"""`gateway reload` and `gateway serve --watch`: what authors change is checked, loaded, and told of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import StartGateway, StartProcess
from tests.support import PROJECT
from tests.support.harness import (
    GatewayProcess,
    RawResponse,
    get,
    raw_connection,
    request_head,
    wait_until,
    write_plugin,
)

JSON = "Content-Type: application/json"
ROUTE = """\
upstreams: []
proxy: {path: /who, authorization: {auth: none}}
spec: [{method: GET}]
request_script: |
  return "ANSWER"
tests:
- name: answers
  request: {method: GET}
  expect: {output: "ANSWER"}
"""


def reload(process: GatewayProcess, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "reload", "--directory", str(process.directory), *flags]
    return subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=60, check=False)


def said_until(process: GatewayProcess, end: str) -> list[str]:
    """Read what the server prints up to a line that begins with `end`."""
    lines: list[str] = []
    assert process.process.stdout is not None
    for line in process.process.stdout:
        lines.append(line.decode().rstrip("\n"))
        if lines[-1].startswith(end):
            return lines
    raise AssertionError(f"the server printed no {end!r}: {lines}\n{process.log()}")


async def answers(process: GatewayProcess, count: int = 20) -> set[bytes]:
    """Ask often enough to meet every process of a server."""
    return {(await get(process, "/who")).body for _ in range(count)}


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_reload_tells_what_is_in_force_or_every_fault(
    gateway_process: StartProcess, tmp_path: Path, processes: str
) -> None:
    folder = write_plugin(tmp_path / "p", ROUTE.replace("ANSWER", "first"))
    process = gateway_process("--plugins", str(folder), "--processes", processes)
    write_plugin(folder, ROUTE.replace("ANSWER", "second"))
    done = reload(process)
    assert (done.returncode, done.stderr) == (0, "")
    there = " in 2 processes" if processes == "2" else ""
    assert done.stdout.splitlines()[0].startswith("GET /who -> scripts (")
    assert done.stdout.splitlines()[-1] == f"reloaded: plugin set 2{there}"
    assert await answers(process) == {b"second"}

    write_plugin(folder, ROUTE.replace("return", "return ("), "broken.yaml")
    write_plugin(folder, "name: [\n", "more.yaml")
    done = reload(process)
    assert (done.returncode, done.stdout) == (1, "")
    faults = done.stderr.splitlines()
    assert faults[0].startswith(f"{folder}/broken.yaml:5: syntax error in the script")
    assert faults[1].startswith(f"{folder}/more.yaml:2: this is not YAML")
    assert await answers(process) == {b"second"}
    done = reload(process, "--json")
    assert (done.returncode, json.loads(done.stdout)["faults"]) == (1, faults[:2])

    process.terminate()
    done = reload(process)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"gateway: no server runs for {process.directory}: start one, or name its --directory\n"
    )


async def test_operators_reload_over_http_too(start_gateway: StartGateway, tmp_path: Path) -> None:
    folder = write_plugin(tmp_path / "p", ROUTE.replace("ANSWER", "first"))
    gateway = await start_gateway(plugins=[str(folder)], auth="token")
    token = f"Authorization: Bearer {gateway.resources.base.shared.token}"

    async def post(body: str, *lines: str) -> RawResponse:
        async with raw_connection(gateway) as connection:
            head = request_head("POST", "/-/reload", f"Content-Length: {len(body)}", *lines)
            await connection.send(head + body.encode())
            return await connection.answer()

    write_plugin(folder, ROUTE.replace("ANSWER", "second"))
    assert (await post("{}", JSON)).status == 401
    assert (await post("{}", token)).status == 415
    assert (await post("{}", token, JSON, "Origin: https://evil.example")).status == 403
    assert (await post("{}", token, JSON, "Sec-Fetch-Site: cross-site")).status == 403
    assert (await post('{"force": true}', token, JSON)).status == 400
    assert (await get(gateway, "/-/reload", token)).status == 405
    assert (await get(gateway, "/who")).body == b"first"
    answer = await post("{}", token, JSON)
    assert (answer.json["plugin_set"], answer.json["faults"]) == (2, [])
    assert (await get(gateway, "/who")).body == b"second"
    write_plugin(folder, "name: [", "broken.yaml")
    answer = await post("{}", token, JSON)
    assert answer.json["faults"][0].startswith(f"{folder}/broken.yaml:2: this is not YAML")
    assert (await get(gateway, "/who")).body == b"second"


async def test_a_watched_plugin_is_checked_and_reloaded_when_it_changes(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "p", ROUTE.replace("ANSWER", "first"))
    config = tmp_path / "settings.yaml"
    config.write_text("grace: 10s\n")
    flags = ("--plugins", str(folder), "--config", str(config), "--processes", "2")
    process = gateway_process(*flags, "--watch")
    assert said_until(process, "1 file,")[-1] == "1 file, 1 test, 0 failed"
    write_plugin(folder, ROUTE.replace("ANSWER", "second", 1))
    lines = said_until(process, "1 file,")
    assert lines[-1] == "1 file, 1 test, 1 failed"
    assert f"{folder}/plugin.yaml:7: FAILED" in lines[-2]
    await wait_until(lambda: "the check failed: the plugins in force stay" in process.log())
    assert await answers(process) == {b"first"}

    write_plugin(folder, ROUTE.replace("ANSWER", "third"))
    assert said_until(process, "1 file,")[-2:] == ["ok    GET /who: answers", "1 file, 1 test, 0 failed"]
    await wait_until(lambda: process.log().count("reloaded: plugin set 2") == 2)
    assert await answers(process) == {b"third"}

    (folder / "plugin.yaml").unlink()
    os.utime(folder)
    said_until(process, "0 files,")
    await wait_until(lambda: process.log().count("reloaded: plugin set 3") == 2)
    assert (await get(process, "/who")).status == 404

    config.write_text("grace: 20s\n")
    said_until(process, "0 files,")
    await wait_until(lambda: "its other settings after a restart" in process.log())
    assert process.terminate() == 0
