"""The systemd unit and the compose file start the gateway that the documents describe."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.cli import VERBS
from gateway.cli.serve import MAX_OPEN_FILES
from gateway.domain.units import parse_duration
from gateway.server.supervisor import KILL_TIMEOUT
from gateway.settings import Settings, load
from tests.support import PROJECT
from tests.unit.test_project import arguments

SYSTEMD = PROJECT / "packaging/systemd"
UNIT = SYSTEMD / "upload-gateway.service"
COMPOSE = PROJECT / "packaging/compose/compose.yaml"
PREFIX = "UPLOAD_GATEWAY_"
GRACE = Settings().grace


def assignments() -> dict[str, list[str]]:
    """What the unit sets, by name."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in UNIT.read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found[name].append(value)
    return found


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return document


def test_the_unit_serves_reloads_and_gives_a_stop_its_time() -> None:
    unit = assignments()
    for name, verb in (("ExecStart", "serve"), ("ExecReload", "reload")):
        assert unit[name] == [f"/opt/upload-gateway/bin/gateway {verb}"]
        assert verb in VERBS
    assert unit["Type"] == ["notify"]
    assert parse_duration(unit["TimeoutStopSec"][0]) >= GRACE + KILL_TIMEOUT
    assert unit["LimitNOFILE"] == [str(MAX_OPEN_FILES)]
    environ = dict(pair.split("=", 1) for pair in unit["Environment"])
    settings = load({}, environ)
    assert (settings.auth, str(settings.directory)) == ("token", "/var/lib/upload-gateway")


def test_the_unit_keeps_what_it_must_from_the_gateway() -> None:
    unit = assignments()
    for name in ("NoNewPrivileges", "PrivateDevices", "ProtectHome", "MemoryDenyWriteExecute"):
        assert unit[name] == ["yes"]
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["StateDirectory"] == ["upload-gateway"]
    assert unit["CapabilityBoundingSet"] == [""]
    assert unit["RestrictAddressFamilies"] == ["AF_INET AF_INET6 AF_UNIX"]
    assert unit["SystemCallFilter"] == ["@system-service", "~@privileged @resources"]


def test_systemd_takes_the_unit_and_rates_it_as_well_protected(tmp_path: Path) -> None:
    # `verify` wants the programs to be there.
    text = UNIT.read_text().replace("/opt/upload-gateway/bin/gateway", str(shutil.which("true")))
    copy = tmp_path / UNIT.name
    copy.write_text(text)
    for command in (["verify"], ["security", "--offline=yes", "--threshold=15"]):
        words = ["systemd-analyze", "--no-pager", *command, str(copy)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""


def test_the_user_of_the_unit_is_the_one_that_is_created() -> None:
    [line] = re.findall(r"^u .*", (SYSTEMD / "upload-gateway.sysusers").read_text(), re.MULTILINE)
    unit = assignments()
    assert [line.split()[1]] == unit["User"] == unit["Group"]


def test_each_example_of_a_setting_is_valid(tmp_path: Path) -> None:
    text = (SYSTEMD / "environment.example").read_text()
    examples = dict(re.findall(rf"^#({PREFIX}\w+)=(.+)$", text, re.MULTILINE))
    assert len(examples) > 5
    load({"directory": str(tmp_path), "auth": "token"}, examples)


def test_compose_runs_the_command_and_the_health_check_of_the_image() -> None:
    service = compose()["services"]["gateway"]
    assert service["image"] == "upload-gateway"
    assert service["command"] == json.loads(arguments("CMD")[0])
    interval, timeout, start, check = re.findall(
        r"--interval=(\S+) --timeout=(\S+) --start-period=(\S+)\s+CMD (.*)", arguments("HEALTHCHECK")[0]
    )[0]
    assert service["healthcheck"] == {
        "test": ["CMD", *json.loads(check)],
        "interval": interval,
        "timeout": timeout,
        "start_period": start,
    }
    assert parse_duration(service["stop_grace_period"]) >= GRACE + KILL_TIMEOUT


def test_compose_gives_the_gateway_its_volume_and_nothing_else() -> None:
    service = compose()["services"]["gateway"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["ports"] == ["127.0.0.1:8080:8080"]
    assert service["volumes"] == ["data:/data", "./plugins:/my-plugins:ro"]
    assert arguments("VOLUME") == ["/data"]
    names = {name for name in service["environment"] if name.startswith(PREFIX)}
    assert {name.removeprefix(PREFIX).lower() for name in names} <= set(Settings.model_fields)


def test_every_volume_and_file_that_compose_mounts_is_there() -> None:
    document = compose()
    mounts = [mount.split(":")[0] for each in document["services"].values() for mount in each["volumes"]]
    assert {mount for mount in mounts if not mount.startswith(".")} == set(document["volumes"])
    files = {mount for mount in mounts if mount.startswith(".")} - {"./plugins"}
    assert [file for file in files if not (COMPOSE.parent / file).exists()] == []
    assert {each.get("profiles", [None])[0] for each in document["services"].values()} == {
        None, "nats", "s3",
    }  # fmt: skip


def test_nats_takes_its_configuration() -> None:
    words = ["nats-server", "-t", "-c", str(COMPOSE.parent / "nats.conf")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("tools", [("bash", "dirname", "sed", "mktemp", "rm", "id")])
def test_a_machine_without_an_engine_is_told_what_builds_the_image(
    tmp_path: Path, tools: tuple[str, ...]
) -> None:
    for name in tools:
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    words = ["/usr/bin/env", "-i", f"PATH={tmp_path}", "bash", str(PROJECT / "scripts/image")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "apt-get install buildah debootstrap" in done.stderr
