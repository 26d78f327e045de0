"""What `--processes auto` stands for: the cores of this process, less what control groups withhold."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.settings import load, usable_cores
from gateway.settings.cores import MAX_PROCESSES, describe_processes

V1 = "5:cpu,cpuacct:/docker/1\n4:cpuset:/\n"
QUOTA, PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def cores(root: Path, groups: str, files: dict[str, str]) -> int:
    """Return the cores of a process in `groups`, with these files below `/sys/fs/cgroup`."""
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        path = root / (name if name.startswith("proc/") else f"sys/fs/cgroup/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return usable_cores(root)


def test_without_control_groups_all_cores_of_the_process_count(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", 8),
        ("400000 100000\n", 4),
        ("150000 100000\n", 2),
        ("1000 100000\n", 1),
        ("900000 100000\n", 8),
        ("", 8),
        ("much too much\n", 8),
        ("100000 0\n", 8),
    ],
)
def test_a_quota_of_version_2_counts_rounded_up(tmp_path: Path, text: str, expected: int) -> None:
    assert cores(tmp_path, "0::/a\n", {"a/cpu.max": text}) == expected


def test_the_smallest_quota_of_the_group_and_those_around_it_counts(tmp_path: Path) -> None:
    files = {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000", "cpu.max": "500000 100000"}
    assert cores(tmp_path, "0::/a/b\n", files) == 3


@pytest.mark.parametrize("place", ["cpu/docker/1", "cpu"])
@pytest.mark.parametrize(("quota", "expected"), [("-1\n", 8), ("250000\n", 3), ("5000\n", 1)])
def test_a_quota_of_version_1_counts_also_where_a_container_sees_its_own_group_as_the_root(
    tmp_path: Path, place: str, quota: str, expected: int
) -> None:
    files = {f"{place}/{QUOTA}": quota, f"{place}/{PERIOD}": "100000\n"}
    assert cores(tmp_path, V1, files) == expected


def test_files_of_other_controllers_limit_nothing(tmp_path: Path) -> None:
    files = {f"cpu/{QUOTA}": "100000\n", f"cpu/{PERIOD}": "100000\n"}
    assert cores(tmp_path, "4:cpuset:/\n3:cpuacct:/\n", files) == 8


def test_auto_is_a_number_from_any_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    number = usable_cores()
    assert load({"processes": "auto"}, {}).processes == number
    assert load({}, {"UPLOAD_GATEWAY_PROCESSES": "auto"}).processes == number
    (tmp_path / "mine.yaml").write_text("processes: auto\n")
    assert load({"config": "mine.yaml"}, {}).processes == number
    assert load({}, {}).processes == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(MAX_PROCESSES + 1)))
    monkeypatch.setattr("gateway.settings.cores._limits", lambda _: iter([float("inf")]))
    assert load({"processes": "auto"}, {}).processes == MAX_PROCESSES


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("all", "must be a whole number, or auto (got 'all')"),
        ("1.5", "must be a whole number, or auto (got '1.5')"),
        ("0", "must be greater than or equal to 1 (got '0')"),
        ("65", "must be less than or equal to 64 (got '65')"),
    ],
)
def test_another_word_or_number_is_refused(value: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"processes": value}, {})
    assert str(caught.value) == f"--processes: {message}"


def test_the_number_is_told_with_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.settings.cores._limits", lambda _: iter([3.0]))
    assert describe_processes(2) == "processes: 2 on 3 cores"
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert describe_processes(1) == "processes: 1 on 1 core"
