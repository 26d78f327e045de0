"""The ground: all that a gateway stands on, opened before it takes its first request.

The rule: nothing here serves anybody. What is opened is closed in reverse, also when a later step
fails. Blocking: it takes the directory, loads plugins, opens the journal and settles what a crash
left.
"""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

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
from gateway.endpoints.routing.plugin import routing_kind
from gateway.events.journal import Journal
from gateway.files.peers import Peers
from gateway.files.saver import FileSaver
from gateway.files.service import FilesService, SharedDisk
from gateway.files.versions import JournalVersions
from gateway.http.sockets import tls_context
from gateway.plugins import KINDS, Plugins
from gateway.plugins.hooks import Hooks
from gateway.plugins.scripting import Services
from gateway.plugins.secrets import secret_keys
from gateway.records import Records, open_records, secrets_of
from gateway.server.shared import ProcessContext
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
from gateway.telemetry import logs
from gateway.telemetry.redaction import Redaction

log = logging.getLogger("gateway")

DISK_THREADS = min(8, (os.cpu_count() or 1) + 2)


@dataclass(slots=True)
class Resources:
    """What every door needs, for the process that has this `process`."""

    settings: Settings
    process: ProcessContext
    state: StateDirectory = field(init=False)
    installation: Installation = field(init=False)
    plugins: Plugins = field(init=False)
    hooks: Hooks = field(init=False)
    journal: Journal = field(init=False)
    incoming: IncomingDirectory = field(init=False)
    one_time_marks: OneTimeMarks = field(init=False)
    tree: DirectoryTree = field(init=False)
    disk_space: DiskSpace = field(init=False)
    committer: Committer = field(init=False)
    object_backend: ObjectBackend | None = None
    writer: StorageWriter = field(init=False)
    upload_versions: JournalVersions = field(init=False)
    storage: Storage = field(init=False)
    s3_clients: Sequence[Clients] = ()
    files: FilesService = field(init=False)
    records: Records = field(init=False)
    presigned_uploads: PresignedUploads = field(init=False)
    notification_secrets: tuple[str, ...] = ()
    rename_lock: RenameLock | None = None
    disk_executor: ThreadPoolExecutor = field(init=False)
    read_pool: ReadPool = field(init=False)
    services: Services = field(default_factory=Services)
    tls: ssl.SSLContext | None = None
    _opened: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def open(self) -> None:
        """Open it all. Raises `ConfigError`, and then nothing stays open."""
        with contextlib.ExitStack() as opened:
            self._take_slot(opened)
            self._lay_out(opened)
            self._load_plugins(opened)
            self._settle(opened)
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Finish what was handed to the threads, then close all of it."""
        self.committer.close()
        self.disk_executor.shutdown()
        self.read_pool.close()
        self._opened.close()

    @property
    def advertised(self) -> tuple[str, int]:
        """The address and port that events name: never `all interfaces`."""
        if self.settings.advertise is not None:
            return self.settings.advertise.host, self.settings.advertise.port
        host, port = self.process.address
        return connectable_host(host), port

    @property
    def node(self) -> str:
        """What runs are signed with: `HOST:PORT`, and the slot where there are several."""
        host, port = self.advertised
        return f"{host}:{port}" + (f"/{self.process.slot}" if self.process.count > 1 else "")

    def protected(self) -> list[Path]:
        """Return the places that no upload may reach."""
        s = self.settings
        singles = (
            s.config,
            s.tls_cert,
            s.tls_key,
            s.installation_key_file,
            s.secrets_key_file,
            s.notifications_secret_file,
        )
        return [s.state, *s.plugins, *(place for place in singles if place is not None)]

    def _take_slot(self, opened: contextlib.ExitStack) -> None:
        settings = self.settings
        self.state = StateDirectory(settings.state, self.process.slot)
        self.state.prepare()
        self.state.lock(SLOT_LOCK_TIMEOUT)
        opened.callback(self.state.unlock)
        self.tls = tls_context(settings)
        keys = installation_keys(settings)
        self.installation = Installation(settings, keys, lambda: self.process.address)

    def _lay_out(self, opened: contextlib.ExitStack) -> None:
        """Where bodies come in, where files go, who brings them there."""
        settings = self.settings
        self.incoming = IncomingDirectory(self.state.incoming)
        opened.callback(self.incoming.close)
        self.tree = DirectoryTree(settings.directory, self.protected(), self.incoming.device)
        opened.callback(self.tree.close)
        self.records = open_records(settings)
        opened.callback(self.records.close)
        self.presigned_uploads = PresignedUploads(
            self.records.own("initiated"), first_check=settings.reconcile_after
        )
        durable = settings.durability == "full"
        self.one_time_marks = OneTimeMarks(self.state.one_time_marks, durable=durable)
        opened.callback(self.one_time_marks.close)
        self.journal = Journal(self.state.journal, full=durable, node=self.node)
        self.rename_lock = RenameLock(self.state.folder) if self.process.count > 1 else None
        if self.rename_lock is not None:
            opened.callback(self.rename_lock.close)
        self.disk_space = DiskSpace(
            self.incoming.fd, settings.min_free_bytes, self.process.reservations, self.process.slot
        )
        self.disk_executor = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="disk")
        self.read_pool = ReadPool(DISK_THREADS)
        self._open_writer()

    def _open_writer(self) -> None:
        """Make the committer and the writing side of the storage."""
        settings = self.settings
        disk = LocalDisk(
            self.tree,
            self.incoming,
            self.disk_space,
            self.disk_executor,
            durable=settings.durability == "full",
            rename_lock=self.rename_lock,
        )
        state = ProcessState(self.process.slot, self.journal, self.one_time_marks)
        events = UploadEvents(self._subscribers, Redaction(settings.redact), self.process.slot)
        self.committer = Committer(BatchCommitter(disk, state, events), self.journal.outbox, disk)
        if settings.storage == "file":
            self.writer = LocalWriter(disk, self.committer, settings.file_mode)
            return
        clients = Clients(
            lambda secrets: self.plugins.mask.add_secrets(secrets),  # noqa: PLW0108  loaded later
            connections=MAX_CONNECTIONS,
            attempts=1,
        )
        marks = self.installation.marks
        self.object_backend = ObjectBackend(settings, clients, disk, state, events, marks)
        self.writer = self.object_backend.writer

    def _make_files(self) -> FilesService:
        in_bucket = self.object_backend is not None
        self.upload_versions = JournalVersions(self.journal, objects=in_bucket)
        return FilesService(
            self.storage,
            FileSaver(self.process.slot),
            versions=self.upload_versions,
            peers=Peers(self.installation, lambda: self.advertised),
            disk=None if in_bucket else SharedDisk(self.storage, self.settings.directory),
        )

    def _subscribers(self) -> Subscribers:
        uploaded = tuple(spec.name for spec in self.hooks.handler_specs(UPLOADED))
        return Subscribers(uploaded, self.hooks.handler_specs(OBJECT_CREATED))

    def _make_shelf(self) -> Storage:
        storage = self.settings.storage
        if storage == "file":
            alone = contextlib.nullcontext if self.rename_lock is None else self.rename_lock.exclusive
            return LocalStorage(self.tree, self.committer.between_batches, alone, self.read_pool)
        reading, signing = (
            Clients(lambda secrets: self.plugins.mask.add_secrets(secrets), endpoint=endpoint)  # noqa: PLW0108
            for endpoint in (None, self.settings.storage_public_url)
        )
        self.s3_clients = (reading, signing)
        self.services.closers += [clients.close for clients in self.s3_clients]
        return S3Storage(storage, reading, signing)

    def _load_plugins(self, opened: contextlib.ExitStack) -> None:
        settings, services = self.settings, self.services
        self.storage = self._make_shelf()
        self.files = self._make_files()
        services.files = self.files
        services.records = self.records
        links = SignedUrlFactory(
            settings,
            self.installation.urls,
            lambda: self.installation.public_url,
            self.storage,
            self.presigned_uploads.record_grant,
        )
        services.sign_url = links.sign_url
        services.own_endpoint = lambda: self.installation.own_url
        services.credentials_for = self.installation.credentials_for
        issuer = settings.jwt_issuer is not None
        kinds = (*KINDS, routing_kind(settings.file_upload_api_path, issuer=issuer))
        self.plugins = Plugins(settings.plugins, services, kinds, lambda: secret_keys(settings))
        self.plugins.mask.add_secrets(key.get_secret_value() for key in settings.secrets_key)
        self.notification_secrets = read_secrets(settings.notifications_secret_file)
        self.plugins.mask.add_secrets(self.notification_secrets)
        self.plugins.mask.add_secrets(secrets_of(settings))
        logs.set_mask(self.plugins.mask)
        opened.callback(self.plugins.close)
        self.plugins.load()
        self.hooks = Hooks(self.plugins)

    def _settle(self, opened: contextlib.ExitStack) -> None:
        """Open the journal and settle what a crash left."""
        self.journal.open()
        opened.callback(self.journal.close)
        self.state.sync()
        recover(self.incoming, self.journal, self.one_time_marks)
        if self.process.slot == 0:
            absorb_slots(self.state, self.journal, self.process.count)
            create_journals(self.state, self.journal, self.process.count)
        pending = self.journal.pending_uploads.hold().result()
        if self.object_backend is not None:
            self.object_backend.prepare(pending)
        elif pending:
            log.error("%d uploads wait for the bucket of an earlier --storage", len(pending))
