"""Resources of one process: state directory, journal, storage, plugins.

They are opened in order before the port is, and closed in reverse. Opening blocks: it locks the
directory, loads plugins, opens the journal and recovers from a crash.
"""

from __future__ import annotations

import logging
import ssl
from contextlib import ExitStack
from dataclasses import dataclass, replace

from gateway.auth.installation import Installation, public_url
from gateway.auth.signed_urls import SignedUrlFactory
from gateway.commit.deletion_recovery import settle_deletions
from gateway.commit.held.recovery import warn_of_unknown
from gateway.commit.objects.backend import ObjectBackend
from gateway.commit.recover import absorb_slots, create_journals, recover
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
from gateway.server.process import ProcessBase, SharedResources, open_base, open_shared_resources
from gateway.server.quotas import QuotaParts, QuotaRemover, open_quotas
from gateway.server.script_services import connect_services, load_plugins, make_plugins
from gateway.server.storage_parts import StorageParts, open_storage, storage_clients
from gateway.server.traces import open_traces
from gateway.settings import Settings
from gateway.storage.keyfile import read_secrets
from gateway.storage.protocols import Storage
from gateway.telemetry.logs import event

log = logging.getLogger("gateway")


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
        open_traces(settings, base.node, slot, plugins.mask, stack)
        secrets = read_secrets(settings.notifications_secret_file)
        plugins.mask.add_secrets(secrets)
        clients = storage_clients(settings, plugins)
        hooks = Hooks(plugins)
        parts = open_storage(base, hooks, clients)
        quotas = open_quotas(base, parts.writer, parts.partials, parts.storage, stack)
        parts = replace(
            parts,
            writer=quotas.writer,
            partials=quotas.partials,
            remover=QuotaRemover(parts.remover, quotas.quotas.files),
        )
        plugins.services.quota_left = quotas.quotas.left_of
        parts.held.ends = quotas.quotas
        scripts = _open_script_storage(base, parts.storage, stack)
        scripts.files.saver.quota_files = quotas.quotas.files
        _connect_scripts(base.installation, parts.storage, scripts, plugins)
        load_plugins(plugins, warns=slot == 0)
        base.state.journal.open()
        stack.callback(base.state.journal.close)
        _recover(base, parts.backend)
        parts.remover.take_over(settle_deletions(base.disk.tree, base.state.journal))
        stack.callback(parts.read_pool.close)
        stack.callback(base.disk.executor.shutdown)
        return Resources(base, tls, parts, scripts, plugins, hooks, secrets, quotas, stack.pop_all())


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
        if processes == 1:
            warn_of_unknown(base.held, journal)
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
