"""Locks by name between processes: exclusive, gone with their process, without files of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gateway.storage.local.named_locks import NamedLocks

HOLD = (
    "import sys; from pathlib import Path; from gateway.storage.local.named_locks import NamedLocks;"
    "locks = NamedLocks(Path(sys.argv[1])); print(locks.owner(), locks.try_acquire('a'), flush=True);"
    "sys.stdin.read()"
)


def hold(path: Path) -> tuple[subprocess.Popen[str], str]:
    """Start a process that takes the lock `a`; return it and what it printed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_a_lock_excludes_other_processes_until_they_end(tmp_path: Path) -> None:
    locks = NamedLocks(tmp_path / "state" / "locks")
    process, printed = hold(tmp_path / "state" / "locks")
    try:
        assert printed == f"{locks.owner()} True"
        assert not locks.try_acquire("a")
        assert locks.try_acquire("b")
    finally:
        process.kill()
        process.communicate()
    assert locks.try_acquire("a")
    process, printed = hold(tmp_path / "state" / "locks")
    process.communicate()
    assert printed == f"{locks.owner()} False"
    locks.release("a")
    process, printed = hold(tmp_path / "state" / "locks")
    process.communicate()
    assert printed == f"{locks.owner()} True"
    locks.close()
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["locks"]


def test_gateways_have_different_names(tmp_path: Path) -> None:
    names = {NamedLocks(tmp_path / name).owner() for name in ("first", "second")}
    assert len(names) == 2
    assert {len(name) for name in names} == {32}
