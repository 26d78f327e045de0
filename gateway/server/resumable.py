"""Opens the resumable uploads of one process, and gives each part what it needs."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

from gateway.auth.installation import public_url
from gateway.endpoints.admin.processes import ProcessClients
from gateway.endpoints.uploads.admission import Admission
from gateway.endpoints.uploads.body import BodyReceiver
from gateway.endpoints.uploads.decision import ReceivedDecisions
from gateway.endpoints.uploads.outcomes import UploadOutcomes
from gateway.endpoints.uploads.resumable.access import FindUpload, PartialAccess
from gateway.endpoints.uploads.resumable.completion import PartialCompletion
from gateway.endpoints.uploads.resumable.creation import PartialAdmission
from gateway.endpoints.uploads.resumable.final_uploads import FinalUploads
from gateway.endpoints.uploads.resumable.handover import RunningRequests
from gateway.endpoints.uploads.resumable.janitor import COUNT_INTERVAL, SWEEP_INTERVAL, PartialJanitor
from gateway.endpoints.uploads.resumable.receiving import PartialReceiver
from gateway.endpoints.uploads.resumable.references import PartialReferences
from gateway.endpoints.uploads.resumable.requests import PartialRequests
from gateway.endpoints.uploads.resumable.service import ResumableUploads
from gateway.server.resources import Resources
from gateway.telemetry.redaction import Redaction


@dataclass(slots=True, frozen=True)
class ResumableContext:
    """What resumable uploads share with others. `find_upload` is that of the status page."""

    admission: Admission
    receiver: BodyReceiver
    outcomes: UploadOutcomes
    decisions: ReceivedDecisions
    processes: ProcessClients
    find_upload: FindUpload


def open_resumable(
    stack: AsyncExitStack, resources: Resources, context: ResumableContext
) -> ResumableUploads | None:
    """Return the operations on partial uploads, None where they are switched off.

    Until `stack` is closed, the first process also removes what expires, switched off or not.
    """
    settings, installation = resources.settings, resources.base.installation
    store, admission, outcomes = resources.parts.partials, context.admission, context.outcomes
    if store is None:
        return None
    references = PartialReferences(installation.secrets, lambda: public_url(settings, installation.own))
    access = PartialAccess(admission, store, references, context.find_upload)
    creation = PartialAdmission(admission, Redaction(settings.redact), resources.base.state.slot)
    running = RunningRequests(store, context.processes, outcomes.metrics)
    completion = PartialCompletion(access, outcomes, context.decisions, settings.computed_digest)
    if resources.base.state.slot == 0:
        interval = COUNT_INTERVAL if settings.storage == "file" else SWEEP_INTERVAL
        sweeping = asyncio.create_task(PartialJanitor(store, completion, interval).run())
        stack.push_async_callback(_end, sweeping)
    if not settings.resumable:
        return None
    requests = PartialRequests(access, running, PartialReceiver(context.receiver), completion)
    return ResumableUploads(access, creation, requests, FinalUploads(access, running))


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task, and wait for its end."""
    task.cancel()
    await asyncio.wait({task})
