"""Tells where in a plugin something happened.

One rule: what is shown of a traceback are the plugin's own frames, named by the YAML file and its
line. A script's globals carry `MARK`, so that no register of files is needed.
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

LONGEST: Final = 8192
"""Characters of a traceback that are kept: it may end up in the journal."""


_listing: Final = threading.Lock()


def frame_of(thread_id: int | None) -> FrameType | None:
    """Return the innermost frame that a thread is running now, None for one that does not run.

    Without the collector of garbage meanwhile: in CPython 3.11 the whole process stands still for ever
    where it frees a `threading.local` while the frames are listed (python/cpython#106883).
    """
    with _listing:
        collects = gc.isenabled()
        gc.disable()
        try:
            return sys._current_frames().get(thread_id or 0)
        finally:
            if collects:
                gc.enable()


def outermost_and_innermost(frame: FrameType | None) -> tuple[FrameType, FrameType] | None:
    """Return the first and the last plugin frame of a running stack, or None: no plugin is running."""
    found = [step for step in _callers(frame) if MARK in step.f_globals]
    return (found[-1], found[0]) if found else None


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
    for one in _chain(error):
        steps = [step for step in traceback.walk_tb(one.__traceback__) if MARK in step[0].f_globals]
        if steps:
            frame, line = steps[-1]
            return frame.f_code.co_filename, line
    return None


def plugin_traceback(error: BaseException, mask: Callable[[str], str] = str) -> str:
    """Return the traceback of `error` and of its causes with the plugins' frames only.

    Frames of modules that lie beside the YAML file count as the plugin's. The end is kept
    where the text is longer than `LONGEST`. `mask` goes first: half a secret would not be known.
    """
    report = traceback.TracebackException.from_exception(error, compact=True)
    folders = tuple({os.path.join(os.path.abspath(folder), "") for folder in _folders(error)})
    _keep_only(report, folders)
    return mask("".join(report.format()))[-LONGEST:]


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions


def _folders(error: BaseException) -> Iterator[str]:
    for one in _chain(error):
        for frame, _ in traceback.walk_tb(one.__traceback__):
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
