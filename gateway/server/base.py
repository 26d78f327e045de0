"""The slot of one process: its state directory, its part of the disk, its journal, its keys."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.auth.installation import Installation, installation_keys
from gateway.commit.disk import DiskSpace, RenameLock
from gateway.commit.records import LocalDisk, ProcessState
from gateway.domain.addresses import connectable_host
from gateway.events.journal import Journal
from gateway.server.shared import ProcessContext
from gateway.settings import Settings
from gateway.storage.local.incoming import IncomingDirectory
from gateway.storage.local.one_time_marks import OneTimeMarks
from gateway.storage.local.state_dir import SLOT_LOCK_TIMEOUT, StateDirectory
from gateway.storage.local.tree import DirectoryTree

DISK_THREADS: Final = min(8, (os.cpu_count() or 1) + 2)


@dataclass(frozen=True, slots=True)
class ProcessBase:
    """The slot of one process: what storage and scripts are built on."""

    settings: Settings
    process: ProcessContext
    directory: StateDirectory
    installation: Installation
    disk: LocalDisk
    state: ProcessState


def open_base(settings: Settings, process: ProcessContext, stack: ExitStack) -> ProcessBase:
    """Lock the slot; open its directories. The journal is made and not opened yet."""
    directory = StateDirectory(settings.state, process.slot)
    directory.prepare()
    directory.lock.acquire(SLOT_LOCK_TIMEOUT)
    stack.callback(directory.lock.release)
    installation = Installation(settings, installation_keys(settings), process.address)
    durable = settings.durability == "full"
    disk = _open_disk(settings, process, directory, stack)
    marks = OneTimeMarks(directory.one_time_marks, durable=durable)
    stack.callback(marks.close)
    journal = Journal(directory.journal, full=durable, node=node_name(settings, process))
    state = ProcessState(process.slot, journal, marks)
    return ProcessBase(settings, process, directory, installation, disk, state)


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
