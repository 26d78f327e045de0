"""The scheduling of the bench: its session is raised where that is allowed, and it is told where not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.scheduling import ENABLED, isolate
from tests.support import PROJECT

SCRIPT = """\
from bench.scheduling import OWN, isolate
print(isolate())
print(OWN.read_text() if OWN.exists() else "")
"""


@pytest.mark.skipif(not ENABLED.exists(), reason="this system has no autogroups")
def test_the_session_of_the_bench_is_raised_or_it_is_told_why_not() -> None:
    words = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(
        words, cwd=PROJECT, capture_output=True, text=True, check=True, start_new_session=True
    )
    sentence, group, *_ = done.stdout.splitlines()
    raised = "a session of its own, nice -15" in sentence
    assert raised == group.endswith("nice -15")
    assert raised or "not isolated" in sentence or "autogroups are turned off" in sentence


def test_a_session_of_others_is_left_alone(tmp_path: Path) -> None:
    enabled, own = tmp_path / "enabled", tmp_path / "autogroup"
    enabled.write_text("1\n")
    own.write_text("/autogroup-7 nice 0\n")
    assert "start it with scripts/bench" in isolate(enabled, own)
    assert own.read_text() == "/autogroup-7 nice 0\n"


def test_a_system_without_autogroups_is_told(tmp_path: Path) -> None:
    assert "has no autogroups" in isolate(tmp_path / "enabled", tmp_path / "autogroup")
    (tmp_path / "enabled").write_text("0\n")
    assert "turned off" in isolate(tmp_path / "enabled", tmp_path / "autogroup")


def test_a_system_that_does_not_allow_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "enabled").write_text("1\n")
    monkeypatch.setattr(os, "getsid", lambda _: os.getpid())
    assert "cannot be set (Is a directory): run it as root" in isolate(tmp_path / "enabled", tmp_path)
