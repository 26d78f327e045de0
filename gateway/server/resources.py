"""Resources of one process: state directory, journal, storage, plugins.

They are opened in order before the port is, and closed in reverse. Opening blocks: it locks the
directory, loads plugins, opens the journal and recovers from a crash.
"""

from __future__ import annotations

import logging
import ssl
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial

from gateway.auth.installation import Installation
from gateway.auth.links import SignedUrlFactory
from gateway.commit.batch import BatchCommitter
from gateway.commit.committer import Committer
from gateway.commit.local_writer import LocalWriter
from gateway.commit.object_backend import MAX_CONNECTIONS, ObjectBackend
from gateway.commit.records import LocalDisk, ProcessState, Subscribers, UploadEvents
from gateway.commit.recover import absorb_slots, create_journals, recover
from gateway.commit.writer import StorageWriter
from gateway.domain.model import OBJECT_CREATED, UPLOADED
from gateway.endpoints.notifications.presigned_uploads import PresignedUploads
from gateway.events.journal import Journal
from gateway.files.peers import Peers
from gateway.files.saver import FileSaver
from gateway.files.service import FilesService, SharedDisk
from gateway.files.versions import JournalVersions
from gateway.http.sockets import tls_context
from gateway.plugins import Plugins
from gateway.plugins.hooks import Hooks
from gateway.plugins.scripting.namespace import Services
from gateway.records.collection import Records, open_records
from gateway.server.base import (
    DISK_THREADS,
    ProcessBase,
    advertised_address,
    node_name,
    open_base,
)
from gateway.server.script_services import connect_services, make_plugins
from gateway.server.shared import ProcessContext, open_shared_resources
from gateway.settings import Settings
from gateway.storage.keyfile import read_secrets
from gateway.storage.local.read_pool import ReadPool
from gateway.storage.local.state_dir import StateDirectory
from gateway.storage.local.storage import LocalStorage
from gateway.storage.protocols import Storage
from gateway.storage.s3.client import Clients
from gateway.storage.s3.storage import S3Storage
from gateway.telemetry.logs import event
from gateway.telemetry.redaction import Redaction

log = logging.getLogger("gateway")


@dataclass(frozen=True, slots=True)
class StorageParts:
    """The storage of `--storage`: what reads it, what writes it, who commits to local disk.

    With a bucket, `backend` is its writing side and `clients` those that read and sign.
    """

    storage: Storage
    writer: StorageWriter
    committer: Committer
    read_pool: ReadPool
    backend: ObjectBackend | None = None
    clients: tuple[Clients, ...] = ()


@dataclass(frozen=True, slots=True)
class Resources:
    """What the endpoints and the event delivery of one process need.

    `close` closes all of it. It blocks, and nothing may be committing any more.
    """

    settings: Settings
    process: ProcessContext
    directory: StateDirectory
    tls: ssl.SSLContext | None
    installation: Installation
    disk: LocalDisk
    state: ProcessState
    parts: StorageParts
    records: Records
    presigned_uploads: PresignedUploads
    files: FilesService
    upload_versions: JournalVersions
    plugins: Plugins
    hooks: Hooks
    notification_secrets: tuple[str, ...]
    _stack: ExitStack

    def close(self) -> None:
        """Close everything in reverse order. Blocking."""
        self._stack.close()

    @property
    def journal(self) -> Journal:
        """The journal of this process."""
        return self.state.journal

    @property
    def storage(self) -> Storage:
        """The reading side of the storage."""
        return self.parts.storage

    @property
    def writer(self) -> StorageWriter:
        """The writing side of the storage."""
        return self.parts.writer

    @property
    def services(self) -> Services:
        """What the gateway provides for scripts."""
        return self.plugins.services

    @property
    def advertised(self) -> tuple[str, int]:
        """The address and port that events name: never `all interfaces`."""
        return advertised_address(self.settings, self.process)

    @property
    def node(self) -> str:
        """The name that runs of handlers are recorded with."""
        return node_name(self.settings, self.process)


@dataclass(frozen=True, slots=True)
class _Files:
    """The files and records of scripts."""

    records: Records
    presigned_uploads: PresignedUploads
    versions: JournalVersions
    service: FilesService


def open_resources(settings: Settings, process: ProcessContext | None = None) -> Resources:
    """Open the resources of one process. Raises `ConfigError`, and then nothing stays open.

    Without `process`, from a supervisor, this is the only process of its directory. Blocking.
    """
    with ExitStack() as stack:
        if process is None:
            shared = open_shared_resources(settings)
            stack.callback(shared.close)
            process = shared.process(0)
        base = open_base(settings, process, stack)
        tls = tls_context(settings)
        plugins = make_plugins(settings, stack)
        notification_secrets = read_secrets(settings.notifications_secret_file)
        plugins.mask.add_secrets(notification_secrets)
        clients = _storage_clients(settings, plugins)
        hooks = Hooks(plugins)
        parts = _open_storage(base, hooks, clients)
        files = _open_files(base, parts.storage, stack)
        _connect_scripts(base.installation, parts.storage, files, plugins)
        plugins.load()
        base.state.journal.open()
        stack.callback(base.state.journal.close)
        _recover(base, parts.backend)
        stack.callback(parts.read_pool.close)
        stack.callback(base.disk.executor.shutdown)
        return Resources(
            settings=settings,
            process=process,
            directory=base.directory,
            tls=tls,
            installation=base.installation,
            disk=base.disk,
            state=base.state,
            parts=parts,
            records=files.records,
            presigned_uploads=files.presigned_uploads,
            files=files.service,
            upload_versions=files.versions,
            plugins=plugins,
            hooks=hooks,
            notification_secrets=notification_secrets,
            _stack=stack.pop_all(),
        )


def _storage_clients(settings: Settings, plugins: Plugins) -> tuple[Clients, ...]:
    """Return the S3 clients that read, sign and write.

    Every script executor has its own of the first two, and closes them.
    """
    if settings.storage == "file":
        return ()
    mask = plugins.mask.add_secrets
    reading, signing = Clients(mask), Clients(mask, endpoint=settings.storage_public_url)
    plugins.services.closers += [reading.close, signing.close]
    return reading, signing, Clients(mask, connections=MAX_CONNECTIONS, attempts=1)


def _open_storage(base: ProcessBase, hooks: Hooks, clients: tuple[Clients, ...]) -> StorageParts:
    settings, disk, state = base.settings, base.disk, base.state
    events = UploadEvents(partial(_subscribers, hooks), Redaction(settings.redact), state.slot)
    committer = Committer(BatchCommitter(disk, state, events), state.journal.outbox, disk)
    read_pool = ReadPool(DISK_THREADS)
    if settings.storage == "file":
        exclusive = nullcontext if disk.rename_lock is None else disk.rename_lock.exclusive
        storage = LocalStorage(disk.tree, committer.between_batches, exclusive, read_pool)
        writer = LocalWriter(disk, committer, settings.file_mode)
        return StorageParts(storage, writer, committer, read_pool)
    reading, signing, writing = clients
    backend = ObjectBackend(settings, writing, disk, state, events, base.installation.marks)
    objects = S3Storage(settings.storage, reading, signing)
    return StorageParts(objects, backend.writer, committer, read_pool, backend, (reading, signing))


def _subscribers(hooks: Hooks) -> Subscribers:
    """Return the handlers of stored files in the plugins that are loaded now."""
    uploaded = tuple(spec.name for spec in hooks.handler_specs(UPLOADED))
    return Subscribers(uploaded, hooks.handler_specs(OBJECT_CREATED))


def _open_files(base: ProcessBase, storage: Storage, stack: ExitStack) -> _Files:
    settings, in_bucket = base.settings, base.settings.storage != "file"
    records = open_records(settings)
    stack.callback(records.close)
    presigned = PresignedUploads(records.own("initiated"), first_check=settings.reconcile_after)
    versions = JournalVersions(base.state.journal, objects=in_bucket)
    service = FilesService(
        storage,
        FileSaver(base.process.slot),
        versions=versions,
        peers=Peers(base.installation, partial(advertised_address, settings, base.process)),
        disk=None if in_bucket else SharedDisk(storage, settings.directory),
    )
    return _Files(records, presigned, versions, service)


def _connect_scripts(
    installation: Installation, storage: Storage, files: _Files, plugins: Plugins
) -> None:
    links = SignedUrlFactory(
        installation.settings,
        installation.urls,
        lambda: installation.public_url,
        storage,
        files.presigned_uploads.record_grant,
    )
    connect_services(plugins.services, files.service, files.records, links, installation)
    plugins.services.own_endpoint = lambda: installation.own_url


def _recover(base: ProcessBase, backend: ObjectBackend | None) -> None:
    """Settle what a crash left, in the files and the journal of this slot and of unused ones."""
    directory, journal, processes = base.directory, base.state.journal, base.process.count
    directory.sync()
    recover(base.disk.incoming, journal, base.state.one_time_marks)
    if base.process.slot == 0:
        absorb_slots(directory, journal, processes)
        create_journals(directory, journal, processes)
    pending = journal.pending_uploads.hold().result()
    if backend is not None:
        backend.prepare(pending)
    elif pending:
        log.error(
            "%d uploads wait for the bucket of an earlier --storage",
            len(pending),
            extra=event("uploads.pending", count=len(pending)),
        )
