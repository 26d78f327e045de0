"""Resources of one process: state directory, journal, storage, plugins.

They are opened in order before the port is, and closed in reverse. Opening blocks: it locks the
directory, loads plugins, opens the journal and recovers from a crash.
"""

from __future__ import annotations

import logging
import os
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from gateway.auth.installation import Installation, installation_keys
from gateway.auth.links import SignedUrlFactory
from gateway.commit.batch import BatchCommitter
from gateway.commit.committer import Committer
from gateway.commit.disk_space import DiskSpace
from gateway.commit.local_writer import LocalWriter
from gateway.commit.object_backend import MAX_CONNECTIONS, ObjectBackend
from gateway.commit.process_state import ProcessState
from gateway.commit.records import LocalDisk
from gateway.commit.recover import recover
from gateway.commit.rename_lock import RenameLock
from gateway.commit.slot_takeover import absorb_slots, create_journals
from gateway.commit.upload_events import Subscribers, UploadEvents
from gateway.commit.writer import StorageWriter
from gateway.domain.addresses import connectable_host
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
from gateway.plugins.scripting import Services
from gateway.records import Records, open_records
from gateway.server.script_services import connect_services, make_plugins
from gateway.server.shared import ProcessContext, open_shared_resources
from gateway.settings import Settings
from gateway.storage.keyfile import read_secrets
from gateway.storage.local.incoming import IncomingDirectory
from gateway.storage.local.one_time_marks import OneTimeMarks
from gateway.storage.local.read_pool import ReadPool
from gateway.storage.local.state_dir import SLOT_LOCK_TIMEOUT, StateDirectory
from gateway.storage.local.storage import LocalStorage
from gateway.storage.local.tree import DirectoryTree
from gateway.storage.protocols import Storage
from gateway.storage.s3.client import Clients
from gateway.storage.s3.storage import S3Storage
from gateway.telemetry.logs import event
from gateway.telemetry.redaction import Redaction

log = logging.getLogger("gateway")

DISK_THREADS: Final = min(8, (os.cpu_count() or 1) + 2)


@dataclass(frozen=True, slots=True)
class StorageParts:
    """The storage of `--storage`: what reads it, what writes it, who commits to local disk.

    With a bucket, `backend` is its writing side and `clients` those that read and sign.
    """

    storage: Storage
    writer: StorageWriter
    committer: Committer
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


def open_resources(settings: Settings, process: ProcessContext | None = None) -> Resources:
    """Open the resources of one process. Raises `ConfigError`, and then nothing stays open.

    Without `process`, from a supervisor, this is the only process of its directory. Blocking.
    """
    with ExitStack() as stack:
        if process is None:
            shared = open_shared_resources(settings)
            stack.callback(shared.close)
            process = shared.process(0)
        directory = _locked_directory(settings, process, stack)
        tls = tls_context(settings)
        installation = Installation(settings, installation_keys(settings), process.address)
        disk = _open_disk(settings, process, directory, stack)
        plugins = make_plugins(settings, stack)
        notification_secrets = read_secrets(settings.notifications_secret_file)
        plugins.mask.add_secrets(notification_secrets)
        state = _process_state(settings, process, directory, stack)
        clients = _storage_clients(settings, plugins)
        hooks = Hooks(plugins)
        read_pool = ReadPool(DISK_THREADS)
        parts = _storage_parts(settings, installation, disk, state, hooks, plugins, clients, read_pool)
        records = open_records(settings)
        stack.callback(records.close)
        presigned_uploads = PresignedUploads(
            records.own("initiated"), first_check=settings.reconcile_after
        )
        in_bucket = parts.backend is not None
        upload_versions = JournalVersions(state.journal, objects=in_bucket)
        files = FilesService(
            parts.storage,
            FileSaver(process.slot),
            versions=upload_versions,
            peers=Peers(installation, partial(advertised_address, settings, process)),
            disk=None if in_bucket else SharedDisk(parts.storage, settings.directory),
        )
        links = SignedUrlFactory(
            settings,
            installation.urls,
            lambda: installation.public_url,
            parts.storage,
            presigned_uploads.record_grant,
        )
        connect_services(plugins.services, files, records, links, installation)
        plugins.services.own_endpoint = lambda: installation.own_url
        plugins.load()
        _open_journal(directory, disk, state, parts, process, stack)
        stack.callback(read_pool.close)
        stack.callback(disk.executor.shutdown)
        return Resources(
            settings,
            process,
            directory,
            tls,
            installation,
            disk,
            state,
            parts,
            records,
            presigned_uploads,
            files,
            upload_versions,
            plugins,
            hooks,
            notification_secrets,
            stack.pop_all(),
        )


def advertised_address(settings: Settings, process: ProcessContext) -> tuple[str, int]:
    """Return the address and port that events name: never `all interfaces`."""
    if settings.advertise is not None:
        return settings.advertise.host, settings.advertise.port
    host, port = process.address
    return connectable_host(host), port


def node_name(settings: Settings, process: ProcessContext) -> str:
    """Return `HOST:PORT`, with the slot where there are several processes."""
    host, port = advertised_address(settings, process)
    return f"{host}:{port}" + (f"/{process.slot}" if process.count > 1 else "")


def protected_places(settings: Settings) -> list[Path]:
    """Return the places that no upload may reach."""
    files = (
        settings.config,
        settings.tls_cert,
        settings.tls_key,
        settings.installation_key_file,
        settings.secrets_key_file,
        settings.notifications_secret_file,
    )
    return [settings.state, *settings.plugins, *(file for file in files if file is not None)]


def _locked_directory(settings: Settings, process: ProcessContext, stack: ExitStack) -> StateDirectory:
    directory = StateDirectory(settings.state, process.slot)
    directory.prepare()
    directory.lock(SLOT_LOCK_TIMEOUT)
    stack.callback(directory.unlock)
    return directory


def _open_disk(
    settings: Settings, process: ProcessContext, directory: StateDirectory, stack: ExitStack
) -> LocalDisk:
    incoming = IncomingDirectory(directory.incoming)
    stack.callback(incoming.close)
    tree = DirectoryTree(settings.directory, protected_places(settings), incoming.device)
    stack.callback(tree.close)
    rename_lock = RenameLock(directory.folder) if process.count > 1 else None
    if rename_lock is not None:
        stack.callback(rename_lock.close)
    return LocalDisk(
        tree,
        incoming,
        DiskSpace(incoming.fd, settings.min_free_bytes, process.reservations, process.slot),
        ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="disk"),
        durable=settings.durability == "full",
        rename_lock=rename_lock,
    )


def _process_state(
    settings: Settings, process: ProcessContext, directory: StateDirectory, stack: ExitStack
) -> ProcessState:
    """Return the journal, not opened yet, and the one-time URLs of this process."""
    durable = settings.durability == "full"
    marks = OneTimeMarks(directory.one_time_marks, durable=durable)
    stack.callback(marks.close)
    journal = Journal(directory.journal, full=durable, node=node_name(settings, process))
    return ProcessState(process.slot, journal, marks)


def _storage_clients(settings: Settings, plugins: Plugins) -> tuple[Clients, ...]:
    """Return the S3 clients that read and sign; every script executor closes its own of them."""
    if settings.storage == "file":
        return ()
    clients = tuple(
        Clients(plugins.mask.add_secrets, endpoint=endpoint)
        for endpoint in (None, settings.storage_public_url)
    )
    plugins.services.closers += [client.close for client in clients]
    return clients


def _storage_parts(
    settings: Settings,
    installation: Installation,
    disk: LocalDisk,
    state: ProcessState,
    hooks: Hooks,
    plugins: Plugins,
    clients: tuple[Clients, ...],
    read_pool: ReadPool,
) -> StorageParts:
    events = UploadEvents(partial(_subscribers, hooks), Redaction(settings.redact), state.slot)
    committer = Committer(BatchCommitter(disk, state, events), state.journal.outbox, disk)
    if settings.storage == "file":
        exclusive = nullcontext if disk.rename_lock is None else disk.rename_lock.exclusive
        storage = LocalStorage(disk.tree, committer.between_batches, exclusive, read_pool)
        return StorageParts(storage, LocalWriter(disk, committer, settings.file_mode), committer)
    writing = Clients(plugins.mask.add_secrets, connections=MAX_CONNECTIONS, attempts=1)
    backend = ObjectBackend(settings, writing, disk, state, events, installation.marks)
    reading, signing = clients
    objects = S3Storage(settings.storage, reading, signing)
    return StorageParts(objects, backend.writer, committer, backend, clients)


def _subscribers(hooks: Hooks) -> Subscribers:
    """Return the handlers of stored files in the plugins that are loaded now."""
    uploaded = tuple(spec.name for spec in hooks.handler_specs(UPLOADED))
    return Subscribers(uploaded, hooks.handler_specs(OBJECT_CREATED))


def _open_journal(
    directory: StateDirectory,
    disk: LocalDisk,
    state: ProcessState,
    parts: StorageParts,
    process: ProcessContext,
    stack: ExitStack,
) -> None:
    """Open the journal and settle what a crash left."""
    journal = state.journal
    journal.open()
    stack.callback(journal.close)
    directory.sync()
    recover(disk.incoming, journal, state.one_time_marks)
    if process.slot == 0:
        absorb_slots(directory, journal, process.count)
        create_journals(directory, journal, process.count)
    pending = journal.unsettled.hold().result()
    if parts.backend is not None:
        parts.backend.prepare(pending)
    elif pending:
        log.error(
            "%d uploads wait for the bucket of an earlier --storage",
            len(pending),
            extra=event("uploads.pending", count=len(pending)),
        )
