"""Gives threads the names that Python has for them, so that `/proc/PID/task/*/comm` tells them apart.

`python bench/thread_names.py serve ...` runs the gateway with it, unchanged otherwise.
"""

from __future__ import annotations

import contextlib
import runpy
import sys
import threading
from types import FrameType
from typing import Any


def name_threads() -> None:
    """Name each thread that is started from now on, before its first function runs."""
    threading.setprofile(_name)


def _name(frame: FrameType, event: str, argument: Any) -> None:
    sys.setprofile(None)
    thread = threading.current_thread()
    with contextlib.suppress(OSError), open(f"/proc/self/task/{thread.native_id}/comm", "w") as file:
        file.write(thread.name[:15])  # the kernel keeps 15 bytes


if __name__ == "__main__":
    sys.path[0] = ""  # not the folder of this file, whose modules would hide others of that name
    name_threads()
    runpy.run_module("gateway", run_name="__main__", alter_sys=True)
