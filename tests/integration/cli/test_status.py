"""`gateway status`: facts of a running server of several processes, and nothing without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import gateway
from tests.conftest import StartProcess
from tests.support.cli import run_verb
from tests.support.harness import get, handlers_done, put, write_plugin
from tests.support.recorders import FAILING


@pytest.mark.slow
async def test_the_facts_of_all_processes_are_shown_together(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    data, plugins = tmp_path / "data", str(write_plugin(tmp_path / "p", FAILING))
    assert run_verb(data, "status")[0] == 2
    data.mkdir()
    (data / "config").mkdir()
    (data / "config/gateway.yaml").write_text("quotas: [{per: address, files: 5}]\n")
    server = gateway_process("--processes", "2", "--plugins", plugins)
    for number in range(4):
        upload_id = (await put(server, f"/upload/{number}")).json["upload_id"]
        await handlers_done(server, upload_id, state="dead")
        refused = await put(server, f"/upload/{number}", b"x", f"Content-MD5: {'A' * 22}==")
        assert refused.status == 400
    assert run_verb(data, "keys", "create", "backup", "--expires", "2d")[0] == 0
    assert run_verb(data, "events", "pause", "--handler", "failing")[0] == 0
    code, out, _ = run_verb(data, "status", "--json")
    facts = json.loads(out)
    assert (code, facts["version"], facts["processes"]) == (0, gateway.__version__, 2)
    assert (facts["url"], facts["directory"], facts["storage"]) == (server.url, str(data), "file")
    assert facts["uploads"]["failed"] == 4
    assert (facts["uploads"]["held"], facts["uploads"]["in_flight"]) == (0, 0)
    (depth,) = facts["deliveries"]
    assert (depth["handler"], depth["state"], depth["count"]) == ("failing", "dead", 4)
    assert (facts["paused"], facts["unknown"], facts["silent_processes"]) == (["failing"], {}, [])
    assert facts["disk"]["accepts_uploads"]
    assert facts["plugins"]["kinds"] == {"event handler": 1}
    assert [key["name"] for key in facts["keys"]] == ["backup"]
    (quota,) = facts["quotas"]
    assert (quota["what"], quota["used"], quota["limit"]) == ("files", 4, 5)
    assert facts["plugins"].get("faults", []) == []
    (tmp_path / "p/plugin.yaml").write_text("name: [")
    assert run_verb(data, "reload")[0] == 1
    (fault,) = json.loads(run_verb(data, "status", "--json")[1])["plugins"]["faults"]
    assert "plugin.yaml:2: this is not YAML" in fault
    assert (await get(server, "/-/status")).json["uploads"] == facts["uploads"]
    code, out, _ = run_verb(data, "status")
    assert (code, "\033" in out) == (0, False)
    assert "handler       failing: 4 dead, the oldest" in out
    assert server.terminate() == 0
    code, out, error = run_verb(data, "status")
    assert (code, out) == (2, "")
    assert error == f"gateway: no server runs for {data}: start one, or name its --directory\n"
