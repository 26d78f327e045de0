"""Hooks room: fires the events at the handlers of the plugins, from the server's side.

One rule: `uploading` may refuse or change and fails closed; `deliver` and `failed` cannot. Whatever a
handler does, the answer comes within its time-out and about a second. May import `plugins` and below.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from gateway import logs
from gateway.errors import GatewayError, HolderAway, Refusal, Terminated
from gateway.model import UPLOAD_FAILED, UPLOADING, Delivery, HandlerSpec, Upload
from gateway.plugins import Handler, Plugins
from gateway.plugins.models import DELIVERED
from gateway.scripting import (
    Changes,
    Event,
    Handle,
    HTTPError,
    Junk,
    Lane,
    LaneLost,
    TimedOut,
    failed_event,
    never_waits,
    read_changes,
    uploading_event,
)
from gateway.scripting.trace import place_of_error, plugin_traceback

FAILED_IN_FLIGHT: Final = 100
LONGEST_EXCERPT: Final = 1000
"""Characters of an error answer that the journal and the log show."""

log = logging.getLogger("gateway.hooks")


class HandlerFailed(GatewayError):
    """A run of a handler came to nothing. `traceback` holds the plugin's frames, secrets masked."""

    def __init__(self, message: str, traceback: str) -> None:
        super().__init__(message)
        self.traceback = traceback


class HandlerGone(GatewayError):
    """The newest generation of plugins has no such handler."""


@dataclass(slots=True)
class _Run:
    """One run of a handler: what it decided, and the exception it ended with, if any."""

    handler: Handler
    handle: Handle
    error: Exception | None
    milliseconds: float

    @property
    def refused(self) -> bool:
        verdict = self.handle.verdict
        return verdict is not None and verdict.refuses


class Hooks:
    """Calls handlers in two lanes: admission (`OnFileUploading`) and work (the rest)."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins
        closers = (plugins.services.callout.close, *plugins.services.closers)
        self._admission = Lane("admission", closers)
        self._work = Lane("work", closers)
        self._failing: set[asyncio.Task[None]] = set()
        self._delivering: dict[tuple[str, str], Handle] = {}

    async def start(self) -> None:
        """Start the lanes."""
        self._admission.start()
        self._work.start()

    async def close(self, grace: float) -> None:
        """Let runs in flight end for `grace` seconds, then end the lanes."""
        until = time.monotonic() + grace
        if self._failing:
            await asyncio.wait(self._failing, timeout=grace)
        rest = max(0.0, until - time.monotonic())
        await asyncio.gather(self._admission.close(rest), self._work.close(rest))
        if self._failing:  # without a lane they end at once
            await asyncio.wait(self._failing, timeout=1)

    @property
    def alive(self) -> bool:
        """Whether both lanes can run handlers; readiness depends on it."""
        return self._admission.alive and self._work.alive

    async def work(self, make: Callable[[], Awaitable[Any]], seconds: float) -> Any:
        """Run a script of another room in the lane of work; raises as `Lane.call` does."""
        return await self._work.call(make, seconds)

    def replaces_authorization(self) -> bool:
        """Whether some `OnFileUploading` handler decides instead of the default authorization."""
        handlers = self._plugins.current.handlers[UPLOADING]
        return any(not handler.keeps_authorization for handler in handlers)

    async def uploading(self, upload: Upload) -> None:
        """Run the `OnFileUploading` handlers in name order and write their changes to `upload`.

        Raises `Terminated` for the first `terminate(code >= 400)`, `Refusal("hook_failed")` for a
        handler that failed, `Refusal("overloaded")`. The caller checks the new path.
        """
        handlers = self._plugins.current.handlers[UPLOADING]
        if not handlers:
            return
        event, changes = uploading_event(upload), None
        with logs.bind(upload_id=upload.id, event_id=event["id"]):
            for handler in handlers:
                # The first one's is nobody else's, and nobody else's after it should it fail.
                alone = handler is handlers[0] and handler.on_error != "allow"
                given = event if alone else event.copy()
                decided = await self._admit(handler, given)
                if decided is not None:
                    event, changes = given, decided
        if changes is not None:
            _apply(changes, upload)

    def specs(self, *events: str) -> tuple[HandlerSpec, ...]:
        """Return what others must know of the newest handlers of `events`; of all journalled ones."""
        handlers = self._plugins.current.handlers
        return tuple(handler.spec for event in events or DELIVERED for handler in handlers[event])

    async def deliver(self, delivery: Delivery, event: dict[str, Any]) -> None:
        """Run one handler of a journalled event on the complete event, `attempt` included.

        Raises `HandlerFailed` where it has to run again, `HandlerGone` where there is none,
        `HolderAway` where nobody is to blame.
        """
        handler = self._plugins.current.handler(delivery.event, delivery.handler)
        if handler is None:
            raise HandlerGone(f"there is no handler {delivery.handler} of {delivery.event} any more")
        with logs.bind(upload_id=delivery.upload_id, event_id=delivery.event_id):
            run = await self._run_told(handler, Event(event), delivery.event_id)
            message = self._message(run)
            self._report(run, message or "done")
        if isinstance(run.error, HolderAway):
            raise run.error
        if message is not None:
            raise HandlerFailed(message, self._traceback(run)) from run.error

    def progress(self, event_id: str, handler: str) -> dict[str, float] | None:
        """Return the `done` and `total` that a running delivery told last, None if it did not."""
        handle = self._delivering.get((event_id, handler))
        if handle is None or handle.reported is None:
            return None
        done, total = handle.reported
        return {"done": done, "total": total}

    def failed(self, upload: Upload, reason: str, received: int) -> None:
        """Tell the `OnFileUploadFailed` handlers, not waiting: `reason` is a code, `received` bytes."""
        handlers = self._plugins.current.handlers[UPLOAD_FAILED]
        if not handlers:
            return
        if len(self._failing) >= FAILED_IN_FLIGHT:
            log.warning("too many failed uploads at once: no %s for upload %s", UPLOAD_FAILED, upload.id)
            return
        task = asyncio.create_task(self._tell(handlers, failed_event(upload, reason, received)))
        self._failing.add(task)
        task.add_done_callback(self._failing.discard)

    async def _tell(self, handlers: tuple[Handler, ...], event: Event) -> None:
        with logs.bind(upload_id=event["upload_id"], event_id=event["id"]):
            for handler in handlers:
                run = await self._run(self._work, handler, event.copy(), Handle())
                self._report(run, self._message(run) or "done")

    async def _admit(self, handler: Handler, event: Event) -> Changes | None:
        """Run one handler on an event; return its changes, or None where its failure is allowed."""
        changes = None
        run = await self._run(self._admission, handler, event, Handle())
        verdict, junk = run.handle.verdict, run.handle.junk
        if verdict is not None and run.refused:
            self._report(run, f"refused {verdict.code}")
            raise Terminated(verdict.code, verdict.body, verdict.content_type)
        if isinstance(run.error, Refusal):
            self._report(run, run.error.message)
            raise run.error
        if junk is None and run.error is None:
            try:
                changes = read_changes(event)
            except Junk as found:
                junk = found
        if junk is not None:
            self._report(run, f"left junk: {junk}")
            raise _hook_failed(handler)
        if run.error is None:
            self._report(run, "accepted")
            return changes
        allowed = handler.on_error == "allow"
        self._report(run, f"{self._message(run)}{' (allowed by on_error)' if allowed else ''}")
        if not allowed:
            raise _hook_failed(handler)
        return None

    async def _run_told(self, handler: Handler, event: Event, event_id: str) -> _Run:
        """Run a delivery, whose progress can be asked for meanwhile."""
        key, handle = (event_id, handler.name), Handle()
        self._delivering[key] = handle
        try:
            return await self._run(self._work, handler, event, handle)
        finally:
            if self._delivering.get(key) is handle:
                del self._delivering[key]

    async def _run(self, lane: Lane, handler: Handler, event: Event, handle: Handle) -> _Run:
        error, started = None, time.monotonic()
        try:
            waits = not never_waits(handler.function)
            await lane.call(lambda: handler.function(event, handle), handler.timeout, waits=waits)
        except Exception as raised:
            error = raised
        return _Run(handler, handle, error, (time.monotonic() - started) * 1000)

    def _message(self, run: _Run) -> str | None:
        """Say in a line why a run came to nothing, or None: it did its work."""
        if run.handle.junk is not None:
            return str(run.handle.junk)
        if run.refused and run.handle.verdict is not None:
            return f"terminated with {run.handle.verdict.code}"
        if run.error is None:
            return None
        if isinstance(run.error, GatewayError | TimedOut):
            return str(run.error)
        return self._plugins.mask(f"{type(run.error).__name__}: {run.error}")

    def _traceback(self, run: _Run) -> str:
        if run.error is None or isinstance(run.error, LaneLost | TimedOut | Refusal):
            return ""
        traceback = plugin_traceback(run.error, self._plugins.mask)
        if isinstance(run.error, HTTPError):
            traceback += f"the answer: {_excerpt(run.error.body, self._plugins.mask)}\n"
        return traceback

    def _report(self, run: _Run, outcome: str) -> None:
        failed = run.error is not None or run.handle.junk is not None or outcome.startswith("left junk")
        level = logging.ERROR if failed and not run.refused else logging.INFO
        if not log.isEnabledFor(level):
            return
        facts = {
            "plugin": run.handler.name,
            "event": run.handler.event,
            "ms": round(run.milliseconds, 1),
            "outcome": outcome,
        }
        if failed:
            facts["place"] = _place(run)
        traceback = self._traceback(run)
        log.log(
            level,
            "handler %s%s",
            run.handler.name,
            f" failed\n{traceback.rstrip()}" if traceback else "",
            extra={"facts": facts},
        )


def _hook_failed(handler: Handler) -> Refusal:
    return Refusal(
        "hook_failed", f"the handler {handler.name} could not decide on the upload; try again later"
    )


def _excerpt(body: Any, mask: Callable[[str], str]) -> str:
    """Return the beginning of what a callout was answered, as text, masked before it is cut."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    return mask(text)[:LONGEST_EXCERPT]


def _place(run: _Run) -> str:
    if isinstance(run.error, TimedOut) and run.error.place:
        return run.error.place
    place = place_of_error(run.error) if run.error else None
    return f"{place[0]}:{place[1]}" if place else run.handler.place


def _apply(changes: Changes, upload: Upload) -> None:
    upload.path = changes.path
    if "max_bytes" in changes.asked:
        upload.max_bytes = changes.max_bytes
    if "on_conflict" in changes.asked:
        upload.on_conflict = changes.on_conflict
