"""Lets handlers of OnFileReceived decide about a whole file before it is visible.

Without `hold` they decide here, while the client waits; then the file is committed, or held for those
with `hold`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web

from gateway.domain import failpoints, paths
from gateway.domain.held import Held, PrivateFile, add_result, limit_to_credential
from gateway.domain.model import Stored, Upload
from gateway.endpoints.inflight import Progress
from gateway.endpoints.uploads.admission import Admission, as_hook_failure
from gateway.endpoints.uploads.received_shadows import ReceivedShadows
from gateway.errors import ClientDisconnected, Refusal
from gateway.files.service import FilesService
from gateway.http.protocol import on_disconnect
from gateway.plugins.shadow_runs import compared
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.uploads")


class FinishedBody(Protocol):
    """A body that is whole: a `PendingWrite` or an `OpenPartial`."""

    async def stage(self) -> PrivateFile:
        """See `PendingWrite.stage`."""

    async def hold(self, digests: Mapping[str, str], handlers: Sequence[str]) -> Held:
        """See `PendingWrite.hold`."""


@dataclass(slots=True)
class WholeUpload:
    """An upload whose body is whole, its digests verified: what a decision is about.

    `digests` are in base64 by RFC 9530 name. `commit` publishes the body. The decision ends early where
    `request` is given and its client disconnects. `asked_path` is the path before the decision.
    """

    upload: Upload
    body: FinishedBody
    digests: Mapping[str, str]
    progress: Progress
    commit: Callable[[], Awaitable[Stored]]
    request: web.BaseRequest | None = None
    asked_path: str = field(init=False)

    def __post_init__(self) -> None:
        self.asked_path = self.upload.path


@dataclass(slots=True, frozen=True)
class ReceivedDecisions:
    """Runs the handlers, and commits or holds what they accept. On the server's event loop.

    `decide` comes first, then `complete` with what it returned.
    """

    admission: Admission
    files: FilesService
    shadows: ReceivedShadows

    async def decide(self, whole: WholeUpload) -> Sequence[str]:
        """Run the handlers that decide now; return the names of those that hold the upload.

        What they change is in the upload then, and checked. The body stays as it was. Raises
        `Terminated` for a refusal, `Refusal` (`hook_failed` for a handler that fails),
        `ClientDisconnected`.
        """
        if not self.admission.decides_received(whole.upload):
            return ()
        whole.progress.state = "deciding"
        holding = await self._run_handlers(whole)
        limit_to_credential(whole.upload)
        self._check_changes(whole)
        failpoints.hit("after decision")
        return holding

    async def complete(self, whole: WholeUpload, holding: Sequence[str]) -> Stored | Held:
        """Hold the body until the handlers `holding` have decided, or commit it. Raises as they do."""
        whole.progress.state = "committing"
        try:
            if holding:
                return add_result(await whole.body.hold(whole.digests, holding), whole.upload)
            stored = await whole.commit()
            if not self.admission.decides_received(whole.upload):
                self.shadows.after_commit(whole.upload, stored)
            return add_result(stored, whole.upload)
        except Refusal as refusal:
            if failure := as_hook_failure(refusal, whole.upload, whole.asked_path):
                raise failure from refusal
            raise

    async def _run_handlers(self, whole: WholeUpload) -> Sequence[str]:
        upload = whole.upload
        private = await _staged(whole)
        self.files.private.register(upload.id, private)
        try:
            body = self.shadows.body(upload, private.size, whole.digests)
            received = self.files.received_event(upload.id, body)
            trial = await self.shadows.beside_decision(upload, received, private)
            deciding = asyncio.ensure_future(self.admission.hooks.decide_received(upload, received))
            with compared(trial), _cancelled_on_disconnect(whole.request, deciding):
                holding = await _result(deciding)
            (self.shadows.held if holding else self.shadows.accepted)(trial, upload)
            return holding
        finally:
            self.files.private.forget(upload.id)

    def _check_changes(self, whole: WholeUpload) -> None:
        """Check what handlers wrote, as after OnFileUploading. Raises `Refusal("hook_failed")`."""
        upload = whole.upload
        try:
            paths.check_path(upload.path)
        except Refusal as refusal:
            raise as_hook_failure(refusal, upload, whole.asked_path) or refusal from refusal
        if self.admission.event_size is None:
            return
        try:
            self.admission.event_size.check(upload)
        except Refusal as refusal:
            log.error(
                "a handler of OnFileReceived made an event too large: %s",
                refusal,
                extra=event("hook.failed", path=upload.path),
            )
            raise Refusal("hook_failed", "a handler wrote more than an event can have") from refusal


async def _staged(whole: WholeUpload) -> PrivateFile:
    """Let handlers read the body. A plain upload that began before there were any is sent again."""
    try:
        return await whole.body.stage()
    except Refusal as refusal:
        if refusal.code != "not_implemented" or whole.request is None:
            raise
        raise Refusal(
            "hook_failed", "handlers have been loaded meanwhile: send the file again"
        ) from None


async def _result(deciding: asyncio.Future[tuple[str, ...]]) -> Sequence[str]:
    """Return the result of a decision. Raises `ClientDisconnected` where it was cancelled alone."""
    try:
        return await deciding
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ClientDisconnected("the client disconnected while handlers decided") from None
    finally:
        deciding.cancel()


@contextlib.contextmanager
def _cancelled_on_disconnect(
    request: web.BaseRequest | None, deciding: asyncio.Future[tuple[str, ...]]
) -> Iterator[None]:
    def cancel() -> None:
        deciding.cancel()

    with contextlib.nullcontext() if request is None else on_disconnect(request, cancel):
        yield
