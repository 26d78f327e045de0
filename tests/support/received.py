"""A handler of OnFileReceived that does what the header `X-Act` of the upload says."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from gateway.domain.model import RECEIVED
from tests.support.harness import files_below, leftovers
from tests.support.recorders import write_handler

_SCRIPT = """
import hashlib, pathlib
async with files.open(event) as file:
    content = await file.read()
assert len(content) == event["bytes"]
if event["filepath"] is not None:
    assert pathlib.Path(event["filepath"]).read_bytes() == content
act, gate = event["headers"].get("X-Act", ""), pathlib.Path("{gate}")
if act == "wait":
    gate.with_suffix(".begun").touch()
    while not gate.exists():
        await asyncio.sleep(0.01)
    act = gate.read_text()
if act == "refuse":
    await handle.terminate(422, {{"virus": "EICAR"}})
if act == "raise":
    1 / 0
if act == "hang":
    await asyncio.Event().wait()
if act.startswith("path "):
    event["path"] = act[5:]
event["metadata"]["Judged-By"] = "judge"
handle.result({{"size": len(content), "sha": hashlib.sha256(content).hexdigest()}})
"""


class Judge:
    """The handler `judge` in `folder`: it accepts, or does what `X-Act` says.

    With `wait` it waits until `decide` tells it what to do.
    """

    def __init__(self, folder: Path, more: str = "timeout: 3\n") -> None:
        self._gate = folder.parent / "gate"
        script = _SCRIPT.format(gate=self._gate)
        self.plugins = write_handler(folder, script, name="judge", event=RECEIVED, more=more)

    def has_begun(self) -> bool:
        """Whether the handler waits."""
        return self._gate.with_suffix(".begun").exists()

    def decide(self, act: str = "") -> None:
        """Let it go on."""
        aside = self._gate.with_suffix(".new")
        aside.write_text(act)
        aside.rename(self._gate)


def result_of(body: bytes) -> dict[str, Any]:
    """Return what the handler leaves for the client of a body that it accepts."""
    return {"size": len(body), "sha": hashlib.sha256(body).hexdigest()}


def is_clean(data: Path) -> bool:
    """Tell whether nothing of any upload is left below a directory, visible or private."""
    partials = [name for name in os.listdir(data / ".gateway/partials") if "-" in name]
    return files_below(data / "upload") == {} and leftovers(data) == [] and not partials
