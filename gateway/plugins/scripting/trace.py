"""Finds the place in a plugin where something happened.

Tracebacks show the plugin's own frames only, named by the YAML file and its line. The globals of every
script carry `MARK`, so no register of files is needed.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import CoroutineType, FrameType
from typing import Any, Final

MARK: Final = "__plugin__"
"""The global of every script that holds the folder of its YAML file."""

MAX_TRACEBACK: Final = 8192
"""Characters of a traceback that are kept, since the journal may store it."""

_listing: Final = threading.Lock()


def frame_of(thread_id: int | None) -> FrameType | None:
    """Return the innermost frame of a running thread, None for a thread that does not run.

    The garbage collector is off meanwhile: CPython 3.11 deadlocks the process if it frees a
    `threading.local` while the frames are listed (python/cpython#106883).
    """
    with _listing:
        gc_was_enabled = gc.isenabled()
        gc.disable()
        try:
            return sys._current_frames().get(thread_id or 0)
        finally:
            if gc_was_enabled:
                gc.enable()


def outermost_and_innermost(frame: FrameType | None) -> tuple[FrameType, FrameType] | None:
    """Return the first and the last plugin frame of a stack, None if it has no plugin frame."""
    frames = [caller for caller in _callers(frame) if MARK in caller.f_globals]
    return (frames[-1], frames[0]) if frames else None


def place_of_frame(frame: FrameType) -> str:
    """Return `file:line` of a frame."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def place_of_wait(coroutine: Any) -> str | None:
    """Return the plugin line at which a suspended coroutine waits, or None."""
    place = None
    while isinstance(coroutine, CoroutineType):
        frame = coroutine.cr_frame
        if frame is not None and MARK in frame.f_globals:
            place = place_of_frame(frame)
        coroutine = coroutine.cr_await
    return place


def place_of_error(error: BaseException) -> tuple[str, int] | None:
    """Return file and line of the deepest plugin frame that an exception, or its cause, came through."""
    for link in _chain(error):
        steps = [step for step in traceback.walk_tb(link.__traceback__) if MARK in step[0].f_globals]
        if steps:
            frame, line = steps[-1]
            return frame.f_code.co_filename, line
    return None


def plugin_traceback(error: BaseException, mask: Callable[[str], str] = str) -> str:
    """Return the traceback of `error` and of its causes with the plugins' frames only.

    Frames of modules that lie beside the YAML file count as the plugin's. The end is kept
    if the text is longer than `MAX_TRACEBACK`. Masking comes first: half a secret is not recognized.
    """
    report = traceback.TracebackException.from_exception(error, compact=True)
    folders = tuple({os.path.join(os.path.abspath(folder), "") for folder in _folders(error)})
    _keep_only(report, folders)
    return mask("".join(report.format()))[-MAX_TRACEBACK:]


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        waiting += [link.__cause__, link.__context__]
        if isinstance(link, BaseExceptionGroup):
            waiting += link.exceptions


def _folders(error: BaseException) -> Iterator[str]:
    for link in _chain(error):
        for frame, _ in traceback.walk_tb(link.__traceback__):
            if MARK in frame.f_globals:
                yield str(frame.f_globals[MARK])


def _keep_only(report: traceback.TracebackException | None, folders: tuple[str, ...]) -> None:
    if report is None:
        return
    report.stack[:] = [
        step for step in report.stack if os.path.abspath(step.filename).startswith(folders)
    ]
    _keep_only(report.__cause__, folders)
    _keep_only(report.__context__, folders)
    for part in report.exceptions or ():
        _keep_only(part, folders)
