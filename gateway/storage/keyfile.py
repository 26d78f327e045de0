"""Small files that hold a key. Read only if nobody else can, written whole or not at all.

The rule: what a key file holds never appears in a complaint.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from gateway.errors import ConfigError
from gateway.storage.local.fsync import sync_folder

MAX_KEY_FILE_BYTES: Final = 64 * 1024
MIN_SECRET_LENGTH: Final = 16

OWNER_ONLY: Final = 0o600
GROUP_MAY_READ: Final = 0o640
"""For keys that an orchestrator mounts: such files belong to root and are read through a group."""


def read_key_file(path: Path, widest: int = OWNER_ONLY) -> bytes:
    """Return the bytes of a key file. `widest` is the widest mode that is accepted.

    Raises `ConfigError` that says what to do: not there, not a file, too large, somebody else's
    (neither this process' user nor root), or open to others.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as fault:
        raise ConfigError(
            f"the key file cannot be read ({fault.strerror}): check the path and its owner", str(path)
        ) from None
    with os.fdopen(fd, "rb") as file:
        _check(path, os.fstat(fd), widest)
        content = file.read(MAX_KEY_FILE_BYTES + 1)
    if len(content) > MAX_KEY_FILE_BYTES:
        raise ConfigError(
            f"a key file has at most {MAX_KEY_FILE_BYTES} bytes: is it another file?", str(path)
        )
    return content


def read_secrets(path: Path | None) -> tuple[str, ...]:
    """Return the shared secrets in a file, one a line; none without a file.

    Raises `ConfigError` as `read_key_file` does, and for a secret that can be guessed.
    """
    if path is None:
        return ()
    lines = read_key_file(path, GROUP_MAY_READ).decode("utf-8", "replace").splitlines() or [""]
    for number, line in enumerate(lines, start=1):
        if len(line.strip()) < MIN_SECRET_LENGTH:
            raise ConfigError(
                f"a secret is a line of at least {MIN_SECRET_LENGTH} characters: make one with"
                " `openssl rand -hex 24`",
                str(path),
                number,
            )
    return tuple(line.strip() for line in lines)


def write_key_file(path: Path, content: bytes) -> None:
    """Write a new key file with mode 0600, on stable storage: after a crash it is whole or not there.

    Raises `FileExistsError` where something has that name, `OSError`.
    """
    descriptor, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, path)  # unlike a rename it replaces nothing
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
    sync_folder(path.parent)


def _check(path: Path, found: os.stat_result, widest: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError("this is no file: a key is expected here", str(path))
    if found.st_uid not in {0, os.geteuid()}:
        raise ConfigError(
            f"the key file belongs to user {found.st_uid}: it must be root's or that of the user"
            f" of this process (chown {os.geteuid()})",
            str(path),
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & ~(widest | 0o100):
        raise ConfigError(
            f"others may touch the key file (mode {mode:04o}): run `chmod {widest:04o}` on it", str(path)
        )
