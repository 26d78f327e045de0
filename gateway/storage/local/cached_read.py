"""Small files read on the event loop, by system calls that succeed at once or fail at once.

What the kernel does not have in memory, and whatever else is unusual, is left to threads, which may
wait for a disk. The containment is that of `DirectoryTree.open_file`: every folder on the way is
entered by its own descriptor, without following a link, and checked by path and by inode.

- Names are looked up in the cache of names alone (openat2(2), RESOLVE_CACHED, since Linux 5.12), and
  no mount is entered: what is mounted below DIRECTORY may wait for a network.
- Folders are opened as places (O_PATH), and so is nothing of their content read.
- Extended attributes are not read: their block may be on the disk though the inode is in memory.
  Threads tell by `remember` what they read. A file is known by its inode, size and times: a change of
  an attribute changes ctime.
- Bytes come from the page cache (preadv2(2), RWF_NOWAIT). Where a read would write the time of access,
  which may wait for the file system's journal, a thread reads.

- A scanner that has to allow each open (fanotify(7), FAN_OPEN_PERM) makes the loop wait.

tmpfs has no RWF_NOWAIT, and needs none. overlayfs has none either (Linux 6.18), and NFS and FUSE ask a
server: there this module is not used.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import threading
import time
from collections.abc import Callable, Sequence
from stat import S_ISREG
from typing import Final, NamedTuple, Self

from gateway.domain import paths
from gateway.storage.local.tree import DirectoryTree
from gateway.storage.protocols import MAX_SINGLE_PASS_BYTES, SinglePassRead, Stat

MAX_FILES: Final = 4096
MAX_TEXT: Final = 1024
"""Characters of the path, type and metadata of a file that is remembered. Both bound memory."""

MAX_SEGMENTS: Final = 16
"""Segments of a path that is read here: each folder takes 2.2 us of the event loop."""

MIN_AGE: Final = 0.1
"""Seconds since the last change of a file that is remembered.

Kernels count ctime in ticks of up to 10 ms: two changes within one leave the same time.
"""

ACCESS_TIME_TTL: Final = 86_000.0
"""Seconds for which relatime leaves the time of access as it is: a day (mount(8)), less some."""

_OPENAT2: Final = 437
_MACHINES: Final = frozenset({"x86_64", "aarch64"})
"""Where the number of the system call is certain."""

_TMPFS: Final = 0x01021994
_FILE_SYSTEMS: Final = frozenset({0xEF53, 0x58465342, 0x9123683E, _TMPFS})
"""Types of ext4, XFS, btrfs and tmpfs (statfs(2)): their fstat(2) and RWF_NOWAIT never wait."""

_RESOLVE: Final = 0x01 | 0x02 | 0x04 | 0x08 | 0x20
"""RESOLVE_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH and _CACHED of linux/openat2.h."""

_libc: Final = ctypes.PyDLL(None)  # keeps the interpreter's lock: the call is shorter than a handover
_syscall: Final = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [
    ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t,
]  # fmt: skip


def _open_how(flags: int) -> bytes:
    """Return a `struct open_how` of linux/openat2.h."""
    return struct.pack("=QQQ", flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0, _RESOLVE)


_FOLDER: Final = _open_how(os.O_PATH | os.O_DIRECTORY)
_FILE: Final = _open_how(os.O_RDONLY | os.O_NONBLOCK)


def _openat2(fd: int, name: str, how: bytes) -> int:
    """Open a name in the folder `fd`; a negative number where that fails."""
    opened: int = _syscall(_OPENAT2, fd, name.encode(), how, len(how))
    return opened


class _File(NamedTuple):
    names: tuple[str, ...]
    version: tuple[int, ...]
    stat: Stat


class CachedReader:
    """Reads files of `tree` that it was told of. `read` belongs to the event loop, `remember` does not.

    `in_memory` tells that the file system is tmpfs, `writes_access_time` that reads may write it.
    """

    def __init__(self, tree: DirectoryTree, *, in_memory: bool, writes_access_time: bool) -> None:
        self._tree = tree
        self._in_memory = in_memory
        self._writes_access_time = writes_access_time
        self._root = os.fstat(tree.root_fd)
        self._files: dict[str, _File] = {}
        self._lock = threading.Lock()

    @classmethod
    def where_supported(cls, tree: DirectoryTree) -> Self | None:
        """Return a reader, None where the machine, the kernel or the file system has no such calls."""
        if os.uname().machine not in _MACHINES:
            return None
        file_system, flags = _file_system(tree.root_fd), os.fstatvfs(tree.root_fd).f_flag
        never, seldom = flags & (os.ST_NOATIME | os.ST_RDONLY), flags & os.ST_RELATIME
        in_memory = file_system == _TMPFS
        if file_system not in _FILE_SYSTEMS or not (in_memory or never or seldom):
            return None
        probe = _openat2(tree.root_fd, ".", _FOLDER)
        if probe < 0:  # an old kernel, or a filter of system calls
            return None
        os.close(probe)
        return cls(tree, in_memory=in_memory, writes_access_time=not in_memory and not never)

    def remember(self, stat: Stat, status: os.stat_result, opened: float) -> None:
        """Remember a file whose attributes were read after `opened` (Unix seconds). Thread-safe."""
        if (
            stat.bytes > MAX_SINGLE_PASS_BYTES
            or _text_length(stat) > MAX_TEXT
            or opened - status.st_ctime < MIN_AGE
        ):
            return
        names = paths.check_path(stat.path)
        with self._lock:
            self._files.pop(stat.path, None)
            if len(self._files) >= MAX_FILES:
                del self._files[next(iter(self._files))]
            self._files[stat.path] = _File(names, _version(status), stat)

    def read(
        self, path: str, choose: Callable[[Stat], Sequence[tuple[int, int]]]
    ) -> SinglePassRead | None:
        """Read parts of a file as `LocalStorage.read_parts` does; None where a thread has to.

        Raises `Refusal` as that does.
        """
        remembered = self._files.get(path)
        if remembered is None:
            return None
        try:
            names = remembered.names
            fd = self._open(names)
            if fd < 0:
                return None
            try:
                status = os.fstat(fd)
                self._tree.refuse_protected(names, status)
                if not S_ISREG(status.st_mode) or _version(status) != remembered.version:
                    return None
                return self._read(fd, status, remembered.stat, choose)
            finally:
                _close(fd)
        except OSError:
            return None

    def _open(self, names: tuple[str, ...]) -> int:
        """Return a descriptor, a negative number where there is none. Raises `Refusal`."""
        if len(names) > MAX_SEGMENTS:
            return -1
        refuse_protected = self._tree.refuse_protected
        refuse_protected((), self._root)
        parent = root = self._tree.root_fd
        try:
            for depth in range(1, len(names)):
                child = _openat2(parent, names[depth - 1], _FOLDER)
                if child < 0:
                    return -1
                if parent != root:
                    os.close(parent)
                parent, status = child, os.fstat(child)
                refuse_protected(names[:depth], status)
                if _is_search_only(status.st_mode):
                    return -1
            return _openat2(parent, names[-1], _FILE)
        finally:
            if parent != root:
                os.close(parent)

    def _read(
        self,
        fd: int,
        status: os.stat_result,
        stat: Stat,
        choose: Callable[[Stat], Sequence[tuple[int, int]]],
    ) -> SinglePassRead | None:
        size, parts, pieces = 0, choose(stat), []
        for _, length in parts:
            size += length
        if size > MAX_SINGLE_PASS_BYTES or (size and self._access_time_due(status)):
            return None
        for start, length in parts:
            piece = self._read_part(fd, start, length) if length else b""
            if len(piece) < length:
                return None
            pieces.append(piece)
        return SinglePassRead(stat, pieces)

    def _read_part(self, fd: int, start: int, length: int) -> bytes:
        """Return what is in memory of a part. Raises `BlockingIOError` where that is nothing."""
        if self._in_memory:
            return os.pread(fd, length, start)
        content = bytearray(length)
        size = os.preadv(fd, [content], start, os.RWF_NOWAIT)
        return bytes(content) if size == length else b""

    def _access_time_due(self, status: os.stat_result) -> bool:
        """Tell whether a read would write the time of access, as relatime does (mount(8))."""
        if not self._writes_access_time:
            return False
        accessed, now = status.st_atime, time.time()
        changed = max(status.st_mtime, status.st_ctime)
        return accessed <= changed or not 0 <= now - accessed < ACCESS_TIME_TTL


def _is_search_only(mode: int) -> bool:
    """Tell whether some may enter a folder and not read it: threads open it for reading (EACCES)."""
    return mode & 0o111 & ~(mode >> 2) != 0


def _version(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes with the content or an attribute of a file."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _text_length(stat: Stat) -> int:
    metadata = sum(len(name) + len(value) for name, value in stat.metadata.items())
    return len(stat.path) + len(stat.mime or "") + metadata


def _close(fd: int) -> None:
    """Close a descriptor; of a file removed meanwhile in a thread: the last close frees its blocks."""
    if os.fstat(fd).st_nlink:
        os.close(fd)
    else:
        asyncio.get_running_loop().run_in_executor(None, os.close, fd)


def _file_system(fd: int) -> int:
    """Return the type of the file system of `fd`, 0 where that cannot be told."""
    answer = (ctypes.c_long * 64)()  # f_type comes first, and the struct is shorter
    return int(answer[0]) if _libc.fstatfs(fd, answer) == 0 else 0
