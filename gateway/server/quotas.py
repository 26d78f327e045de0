"""Puts the quotas of one process together: around the writer, the partial uploads and the removals."""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from gateway.commit.deletion import FileRemover
from gateway.commit.partials import PartialStore
from gateway.commit.quotas.files import QuotaFiles, QuotaPlace
from gateway.commit.quotas.partials import QuotaPartialStore
from gateway.commit.quotas.quotas import Quotas
from gateway.commit.quotas.recovery import QuotaRecovery, settle_at_start
from gateway.commit.quotas.scan import BUCKET_SCAN_INTERVAL, SCAN_INTERVAL, QuotaScan, scan_periodically
from gateway.commit.quotas.writer import QuotaWriter
from gateway.commit.writer import StorageWriter
from gateway.domain.model import FileRequest
from gateway.domain.path_template import UploadPathTemplate
from gateway.domain.units import RequestRate
from gateway.endpoints.uploads.upload_rates import UploadRates
from gateway.errors import ConfigError, Refusal
from gateway.events.deletions import PendingDeletion
from gateway.events.journal import Journal
from gateway.limits import FixedWindowCounters
from gateway.limits.quota_rules import QuotaRules
from gateway.limits.quota_sweeps import count_request
from gateway.records.quota_store import QuotaStore, SqliteQuotaStore
from gateway.server.process import ProcessBase
from gateway.settings import Settings
from gateway.storage.local.storage import LocalStorage
from gateway.storage.protocols import Storage
from gateway.storage.s3.storage import S3Storage

log = logging.getLogger("gateway.quotas")

FILE: Final = "quotas.db"
NODE_FILE: Final = "quotas-node"
"""The name of this directory among the gateways that count together."""


@dataclass(slots=True, frozen=True)
class QuotaParts:
    """The quotas of one process, and what stores files that count.

    `partials` is None where the storage has none.
    """

    quotas: Quotas
    writer: QuotaWriter
    partials: PartialStore | None
    recovery: QuotaRecovery
    scan: QuotaScan


class QuotaRemover:
    """A `FileRemover` around another one: what it removes counts no more."""

    def __init__(self, remover: FileRemover, files: QuotaFiles) -> None:
        self._remover = remover
        self._files = files

    def take_over(self, rows: Sequence[PendingDeletion]) -> None:
        """See `FileRemover.take_over`."""
        self._remover.take_over(rows)

    async def start(self) -> None:
        """See `FileRemover.start`."""
        await self._remover.start()

    async def close(self) -> None:
        """See `FileRemover.close`."""
        await self._remover.close()

    def remove(
        self, deletion: FileRequest, etags: Collection[str] | None = None
    ) -> Coroutine[Any, Any, None]:
        """See `FileRemover.remove`."""
        if not self._files.are_counted():
            return self._remover.remove(deletion, etags)
        return self._remove(deletion, etags)

    async def _remove(self, deletion: FileRequest, etags: Collection[str] | None) -> None:
        await self._remover.remove(deletion, etags)
        await self._files.removed(deletion.path)


def open_quotas(
    base: ProcessBase,
    writer: StorageWriter,
    partials: PartialStore | None,
    storage: Storage,
    stack: ExitStack,
) -> QuotaParts:
    """Put the quotas together. Blocking. Raises `ConfigError` where they cannot be counted."""
    settings, slot = base.shared.settings, base.state.slot
    rules = QuotaRules(settings.quota_rules)
    store, node = open_quota_store(settings, is_first=slot == 0)
    stack.callback(store.close)
    in_bucket = settings.storage != "file"
    place = QuotaPlace(str(settings.storage) if in_bucket else node, node, slot, in_bucket)
    quotas = Quotas(QuotaFiles(rules, store, place, storage))
    if isinstance(storage, LocalStorage | S3Storage):
        storage.removed = quotas.files.removed
    around = QuotaWriter(writer, quotas)
    kept = None if partials is None else QuotaPartialStore(partials, quotas, around)
    journal: Journal = base.state.journal
    scan = QuotaScan(quotas.files, storage, journal.uploads, variables_of(settings.upload_template))
    return QuotaParts(quotas, around, kept, QuotaRecovery(quotas, journal, partials), scan)


def upload_rates(
    parts: QuotaParts,
    settings: Settings,
    counters: FixedWindowCounters,
    exceeded: Callable[[str], None],
) -> UploadRates | None:
    """Return the rates of uploads, None without any. With a database all nodes count together."""
    if all(quota.limits.requests is None for quota in settings.quota_rules):
        return None

    async def count_shared(key: str, rate: RequestRate) -> tuple[int, float]:
        count = partial(count_request, key, rate.requests, rate.seconds)
        return await parts.quotas.files.store.run(count)

    in_file = settings.records.get_secret_value() == "file"
    return UploadRates(settings.quota_rules, counters, exceeded, None if in_file else count_shared)


def open_quota_store(settings: Settings, *, is_first: bool) -> tuple[QuotaStore, str]:
    """Return where quotas are counted, and the name of this directory there."""
    url = settings.records.get_secret_value()
    if url == "file":
        store = SqliteQuotaStore(settings.state / FILE)
        if is_first and (settings.quotas or store.exists()):
            store.prepare()
        return store, ""
    try:
        from gateway.records.quota_postgres import PostgresQuotaStore
    except ImportError as error:
        raise ConfigError(
            f"quotas in PostgreSQL need a package that is missing ({error}): "
            "run pip install '.[postgres]' in the checkout"
        ) from error
    return PostgresQuotaStore(url, settings.state / "quotas-used"), _node_name(
        settings.state / NODE_FILE
    )


def _node_name(path: Path) -> str:
    """Return the name in a file, which the first process makes."""
    if not path.exists():
        new = path.with_name(f"{path.name}.{os.getpid()}")
        new.write_text(uuid.uuid4().hex, encoding="ascii")
        with suppress(FileExistsError):
            os.link(new, path)
        new.unlink()
    return path.read_text(encoding="ascii").strip()


def variables_of(template: UploadPathTemplate) -> Callable[[str], Mapping[str, str]]:
    """Return what tells the variables of a stored path, where it is the path of the request."""

    def variables(path: str) -> Mapping[str, str]:
        if template.stored is not None:
            return {}
        try:
            match = template.match(quote(path))
        except Refusal:
            return {}
        return {} if match is None or match.path != path else match.resources

    return variables


async def start_quotas(stack: AsyncExitStack, parts: QuotaParts, settings: Settings) -> None:
    """Settle what an earlier run left; then scan, and settle what is late, until `stack` is closed."""
    stack.push_async_callback(parts.writer.close)
    place = parts.quotas.files.place
    if parts.quotas.files.are_counted():
        await settle_at_start(parts.recovery, settings.processes, place.slot)
    interval = BUCKET_SCAN_INTERVAL if place.in_bucket else SCAN_INTERVAL
    scanning = scan_periodically(parts.scan, interval, files=place.slot == 0)
    for work in (scanning, parts.recovery.settle_periodically(), parts.recovery.prune_periodically()):
        task = asyncio.create_task(work)
        stack.push_async_callback(_end, task)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
