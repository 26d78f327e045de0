"""Resources of one process: state directory, journal, storage, plugins.

They are opened in order before the port is, and closed in reverse. Opening blocks: it locks the
directory, loads plugins, opens the journal and recovers from a crash.
"""

from __future__ import annotations

import logging
import ssl
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial

from gateway.auth.installation import Installation, public_url
from gateway.auth.links import SignedUrlFactory
from gateway.commit.batch import BatchCommitter
from gateway.commit.committer import Committer
from gateway.commit.deletion import DeletionEvents, FileRemover
from gateway.commit.deletion_recovery import settle_deletions
from gateway.commit.local_partials import LocalPartialStore
from gateway.commit.local_remover import LocalRemover
from gateway.commit.local_writer import LocalWriter
from gateway.commit.object_backend import MAX_CONNECTIONS, ObjectBackend
from gateway.commit.object_remover import ObjectRemover
from gateway.commit.partials import PartialStore
from gateway.commit.records import Subscribers, UploadEvents
from gateway.commit.recover import absorb_slots, create_journals, recover
from gateway.commit.writer import StorageWriter
from gateway.domain.model import DELETED, OBJECT_CREATED, UPLOADED
from gateway.endpoints.downloads.handler import MAX_OPEN_FILES
from gateway.endpoints.notifications.presigned_uploads import PresignedUploads
from gateway.events.journal import Journal
from gateway.files.peers import Peers
from gateway.files.saver import FileSaver
from gateway.files.service import FilesService, SharedDisk
from gateway.files.versions import JournalVersions
from gateway.http.sockets import tls_context
from gateway.plugins import Plugins
from gateway.plugins.hooks import Hooks
from gateway.records.collection import Records, open_records
from gateway.server.process import (
    DISK_THREADS,
    ProcessBase,
    SharedResources,
    open_base,
    open_shared_resources,
)
from gateway.server.quotas import QuotaParts, QuotaRemover, open_quotas
from gateway.server.script_services import connect_services, load_plugins, make_plugins
from gateway.settings import Settings
from gateway.storage.keyfile import read_secrets
from gateway.storage.local.cached_read import CachedReader
from gateway.storage.local.read_pool import ReadPool
from gateway.storage.local.storage import LocalStorage
from gateway.storage.protocols import FolderStorage, Storage
from gateway.storage.s3.client import MAX_CONNECTIONS as READ_CONNECTIONS
from gateway.storage.s3.client import Clients
from gateway.storage.s3.encoding import PrefixedKeys
from gateway.storage.s3.storage import S3Storage
from gateway.telemetry.logs import event
from gateway.telemetry.redaction import Redaction

log = logging.getLogger("gateway")


@dataclass(frozen=True, slots=True)
class StorageParts:
    """The storage of `--storage`: what reads it, what writes it, who commits to local disk.

    With a bucket, `backend` is its writing side and `clients` those that read and sign. `partials` are
    None where the storage has none.
    """

    storage: FolderStorage
    writer: StorageWriter
    committer: Committer
    remover: FileRemover
    read_pool: ReadPool
    backend: ObjectBackend | None = None
    clients: tuple[Clients, ...] = ()
    partials: PartialStore | None = None


@dataclass(frozen=True, slots=True)
class ScriptStorage:
    """The files and records of scripts."""

    files: FilesService
    versions: JournalVersions
    records: Records
    presigned_uploads: PresignedUploads


@dataclass(frozen=True, slots=True)
class Resources:
    """What the endpoints and the event delivery of one process need.

    `close` closes all of it. It blocks, and nothing may be committing any more.
    """

    base: ProcessBase
    tls: ssl.SSLContext | None
    parts: StorageParts
    scripts: ScriptStorage
    plugins: Plugins
    hooks: Hooks
    notification_secrets: tuple[str, ...]
    quotas: QuotaParts
    _stack: ExitStack

    def close(self) -> None:
        """Close everything in reverse order. Blocking."""
        self._stack.close()

    @property
    def settings(self) -> Settings:
        """The settings."""
        return self.base.shared.settings

    @property
    def journal(self) -> Journal:
        """The journal of this process."""
        return self.base.state.journal


def open_resources(
    settings: Settings, shared: SharedResources | None = None, slot: int = 0
) -> Resources:
    """Open the resources of one process. Raises `ConfigError`, and then nothing stays open.

    Without `shared`, from a supervisor, this is the only process of its directory. Blocking.
    """
    with ExitStack() as stack:
        if shared is None:
            shared = open_shared_resources(settings)
            stack.callback(shared.close)
        base = open_base(shared, slot, stack)
        tls = tls_context(settings)
        plugins = make_plugins(settings, stack)
        secrets = read_secrets(settings.notifications_secret_file)
        plugins.mask.add_secrets(secrets)
        clients = _storage_clients(settings, plugins)
        hooks = Hooks(plugins)
        parts = _open_storage(base, hooks, clients)
        quotas = open_quotas(base, parts.writer, parts.partials, parts.storage, stack)
        parts = replace(
            parts,
            writer=quotas.writer,
            partials=quotas.partials,
            remover=QuotaRemover(parts.remover, quotas.quotas.files),
        )
        scripts = _open_script_storage(base, parts.storage, stack)
        _connect_scripts(base.installation, parts.storage, scripts, plugins)
        load_plugins(plugins, warns=slot == 0)
        base.state.journal.open()
        stack.callback(base.state.journal.close)
        _recover(base, parts.backend)
        parts.remover.take_over(settle_deletions(base.disk.tree, base.state.journal))
        stack.callback(parts.read_pool.close)
        stack.callback(base.disk.executor.shutdown)
        return Resources(base, tls, parts, scripts, plugins, hooks, secrets, quotas, stack.pop_all())


def _storage_clients(settings: Settings, plugins: Plugins) -> tuple[Clients, ...]:
    """Return the S3 clients that read, sign and write.

    Every script executor has its own of the first two, and closes them.
    """
    if settings.storage == "file":
        return ()
    mask = plugins.mask.add_secrets
    # Each download that is read slowly holds a connection: as many as downloads, and some for the rest.
    reading = Clients(mask, connections=MAX_OPEN_FILES + READ_CONNECTIONS)
    signing = Clients(mask, endpoint=settings.storage_public_url)
    plugins.services.closers += [reading.close, signing.close]
    return reading, signing, Clients(mask, connections=MAX_CONNECTIONS, attempts=1)


def _open_storage(base: ProcessBase, hooks: Hooks, clients: tuple[Clients, ...]) -> StorageParts:
    settings, disk, state = base.shared.settings, base.disk, base.state
    events = UploadEvents(partial(_subscribers, hooks), Redaction(settings.redact), state.slot)
    committer = Committer(BatchCommitter(disk, state, events), state.journal.outbox, disk)
    read_pool = ReadPool(DISK_THREADS)
    if settings.storage == "file":
        exclusive = nullcontext if disk.rename_lock is None else disk.rename_lock.exclusive
        storage = LocalStorage(
            disk.tree,
            committer.between_batches,
            exclusive,
            read_pool,
            CachedReader.where_supported(disk.tree),
        )
        writer = LocalWriter(disk, committer, settings.file_mode, settings.computed_digest)
        partials = LocalPartialStore(base.partials, disk, committer, writer)
        removed = DeletionEvents(partial(_handlers_of_deletions, hooks))
        remover = LocalRemover(disk, committer, state.journal.deletions, removed)
        return StorageParts(storage, writer, committer, remover, read_pool, partials=partials)
    reading, signing, writing = clients
    backend = ObjectBackend(settings, writing, disk, state, events, base.installation.marks)
    objects = S3Storage(settings.storage, reading, signing)
    removed = DeletionEvents(partial(_handlers_of_deletions, hooks), settings.storage.name)
    keys, recorded = PrefixedKeys(settings.storage), state.journal.deletions
    return StorageParts(
        objects,
        backend.writer,
        committer,
        ObjectRemover(objects, backend.objects, keys, recorded, removed),
        read_pool,
        backend,
        (reading, signing),
        backend.partials,
    )


def _handlers_of_deletions(hooks: Hooks) -> tuple[str, ...]:
    return tuple(spec.name for spec in hooks.handler_specs(DELETED))


def _subscribers(hooks: Hooks) -> Subscribers:
    """Return the handlers of stored files in the plugins that are loaded now."""
    uploaded = tuple(spec.name for spec in hooks.handler_specs(UPLOADED))
    return Subscribers(uploaded, hooks.handler_specs(OBJECT_CREATED))


def _open_script_storage(base: ProcessBase, storage: Storage, stack: ExitStack) -> ScriptStorage:
    settings = base.shared.settings
    in_bucket = settings.storage != "file"
    records = open_records(settings)
    stack.callback(records.close)
    presigned = PresignedUploads(records.own("initiated"), first_check=settings.reconcile_after)
    versions = JournalVersions(base.state.journal, objects=in_bucket)
    files = FilesService(
        storage,
        FileSaver(base.state.slot),
        versions=versions,
        peers=Peers(base.installation, lambda: base.installation.advertised),
        disk=None if in_bucket else SharedDisk(storage, settings.directory),
    )
    return ScriptStorage(files, versions, records, presigned)


def _connect_scripts(
    installation: Installation, storage: Storage, scripts: ScriptStorage, plugins: Plugins
) -> None:
    links = SignedUrlFactory(
        installation.settings,
        installation.urls,
        lambda: public_url(installation.settings, installation.own),
        storage,
        scripts.presigned_uploads.record_grant,
    )
    connect_services(plugins.services, scripts.files, scripts.records, links, installation)
    plugins.services.own_endpoint = lambda: installation.own_url


def _recover(base: ProcessBase, backend: ObjectBackend | None) -> None:
    """Settle what a crash left, in the files and the journal of this slot and of unused ones."""
    directory, journal = base.directory, base.state.journal
    processes = base.shared.settings.processes
    directory.sync()
    recover(base.disk.incoming, journal, base.state.one_time_marks)
    if base.state.slot == 0:
        absorb_slots(directory, journal, processes)
        create_journals(directory, journal, processes)
    base.partials.remove_rests()
    if backend is not None and any(base.partials.upload_ids()):
        log.warning(
            "partial uploads on this disk wait for the --storage with which they began",
            extra=event("partials.waiting"),
        )
    pending = journal.pending_uploads.hold().result()
    if backend is not None:
        backend.prepare(pending)
    elif pending:
        log.error(
            "%d uploads wait for the bucket of an earlier --storage",
            len(pending),
            extra=event("uploads.pending", count=len(pending)),
        )
