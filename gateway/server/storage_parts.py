"""Opens the storage of `--storage` for one process: what reads it, writes it, and commits to it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from gateway.commit.batch import BatchCommitter
from gateway.commit.committer import Committer
from gateway.commit.deletion import DeletionEvents, FileRemover
from gateway.commit.held.decisions import HeldDecisions
from gateway.commit.held.holder import Holder
from gateway.commit.held.local_holder import LocalHolder
from gateway.commit.held.local_store import LocalHeldStore
from gateway.commit.local_partials import LocalPartialStore
from gateway.commit.local_remover import LocalRemover
from gateway.commit.local_writer import LocalWriter
from gateway.commit.objects.backend import MAX_CONNECTIONS, ObjectBackend
from gateway.commit.objects.remover import ObjectRemover
from gateway.commit.partials import PartialStore
from gateway.commit.records import Subscribers, UploadEvents
from gateway.commit.writer import StorageWriter
from gateway.domain.model import DELETED, OBJECT_CREATED, UPLOADED
from gateway.endpoints.downloads.handler import MAX_OPEN_FILES
from gateway.plugins import Plugins
from gateway.plugins.hooks import Hooks
from gateway.server.process import DISK_THREADS, ProcessBase
from gateway.settings import Settings
from gateway.storage.local.cached_read import CachedReader
from gateway.storage.local.read_pool import ReadPool
from gateway.storage.local.storage import LocalStorage
from gateway.storage.protocols import FolderStorage
from gateway.storage.s3.client import MAX_CONNECTIONS as READ_CONNECTIONS
from gateway.storage.s3.client import Clients
from gateway.storage.s3.encoding import PrefixedKeys
from gateway.storage.s3.storage import S3Storage
from gateway.telemetry.redaction import Redaction


@dataclass(frozen=True, slots=True)
class StorageParts:
    """The storage of `--storage`: what reads it, what writes it, who commits to local disk.

    With a bucket, `backend` is its writing side and `clients` those that read and sign. `partials` are
    None where the storage has none. `held` carries out what is decided about held uploads; `holder`
    keeps their bodies on the local disk.
    """

    storage: FolderStorage
    writer: StorageWriter
    committer: Committer
    remover: FileRemover
    read_pool: ReadPool
    held: HeldDecisions
    backend: ObjectBackend | None = None
    clients: tuple[Clients, ...] = ()
    partials: PartialStore | None = None
    holder: LocalHolder | None = None


def storage_clients(settings: Settings, plugins: Plugins) -> tuple[Clients, ...]:
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


def open_storage(base: ProcessBase, hooks: Hooks, clients: tuple[Clients, ...]) -> StorageParts:
    """Open the storage of one process; nothing is committed before its parts are started."""
    settings, disk, state = base.shared.settings, base.disk, base.state
    redaction = Redaction(settings.redact)
    events = UploadEvents(partial(_subscribers, hooks), redaction, state.slot)
    holder = Holder(state, redaction)
    committer = Committer(BatchCommitter(disk, state, events), state.journal.outbox, disk)
    if settings.storage == "file":
        return _open_local_storage(base, hooks, committer, LocalHolder(disk, base.held, state, holder))
    reading, signing, writing = clients
    backend = ObjectBackend(settings, writing, disk, state, events, base.installation.marks)
    objects = S3Storage(settings.storage, reading, signing)
    removed = DeletionEvents(partial(hooks.handler_specs, DELETED), settings.storage.name)
    keys, recorded = PrefixedKeys(settings.storage), state.journal.deletions
    return StorageParts(
        objects,
        backend.writer,
        committer,
        ObjectRemover(objects, backend.objects, keys, recorded, removed),
        ReadPool(DISK_THREADS),
        HeldDecisions(state, backend.held, hooks.notify_upload_failed),
        backend,
        (reading, signing),
        backend.partials,
    )


def _open_local_storage(
    base: ProcessBase, hooks: Hooks, committer: Committer, holder: LocalHolder
) -> StorageParts:
    settings, disk, state = base.shared.settings, base.disk, base.state
    read_pool = ReadPool(DISK_THREADS)
    storage = LocalStorage(
        disk.tree,
        committer.between_batches,
        nullcontext if disk.rename_lock is None else disk.rename_lock.exclusive,
        read_pool,
        CachedReader.where_supported(disk.tree),
    )
    writer = LocalWriter(disk, committer, settings.file_mode, settings.computed_digest, holder)
    removed = DeletionEvents(partial(hooks.handler_specs, DELETED))
    store = LocalHeldStore(disk, base.held, committer, state)
    return StorageParts(
        storage,
        writer,
        committer,
        LocalRemover(disk, committer, state.journal.deletions, removed),
        read_pool,
        HeldDecisions(state, store, hooks.notify_upload_failed),
        partials=LocalPartialStore(base.partials, disk, committer, writer),
        holder=holder,
    )


def _subscribers(hooks: Hooks) -> Subscribers:
    """Return the handlers of stored files in the plugins that are loaded now."""
    return Subscribers(hooks.handler_specs(UPLOADED), hooks.handler_specs(OBJECT_CREATED))
