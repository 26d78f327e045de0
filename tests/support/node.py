"""Clients of other projects in JavaScript: installed once from npm, run with node."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.support import PROJECT

SCRIPTS: Final = PROJECT / "tests" / "support" / "js"
_PINS: Final = ("package.json", "package-lock.json")


def node_modules() -> Path:
    """Return the folder whose `node_modules` has the pinned packages, installed if need be.

    It lies in the environment that the tests run in. Test processes that start together wait for one.
    """
    assert shutil.which("npm"), "npm is missing: scripts/test installs it (Debian: apt-get install npm)"
    pins = [(SCRIPTS / name).read_bytes() for name in _PINS]
    folder = Path(sys.prefix) / "js" / hashlib.sha256(b"".join(pins)).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            for name, content in zip(_PINS, pins, strict=True):
                (folder / name).write_bytes(content)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            subprocess.run(command, cwd=folder, check=True, timeout=100)
            (folder / "installed").touch()
    return folder


async def run_node(script: str, job: dict[str, Any]) -> Any:
    """Run a script of `tests/support/js` with a job, and return what it prints, as JSON.

    Returns the exit code where it prints nothing.
    """
    folder = await asyncio.to_thread(node_modules)
    process = await asyncio.create_subprocess_exec(
        "node", str(SCRIPTS / script), json.dumps({"modules": str(folder), **job}),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(100):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if not output:
        assert process.returncode == 3, errors.decode()
        return process.returncode
    return json.loads(output.splitlines()[-1])


def bundle(source: str) -> str:
    """Return an ES module and all that it imports as one script for a browser."""
    folder = node_modules()
    esbuild = str(folder / "node_modules/.bin/esbuild")
    done = subprocess.run(
        [esbuild, "--bundle", "--format=iife", "--log-level=error"],
        cwd=folder, input=source, stdout=subprocess.PIPE, encoding="utf-8", check=True,
    )  # fmt: skip
    return done.stdout
