"""Small files that hold keys: readable by their owner alone, written whole or not at all.

No error message shows what a key file holds.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from gateway.errors import ConfigError
from gateway.storage.local.directory import sync_folder

MAX_KEY_FILE_BYTES: Final = 64 * 1024
MIN_SECRET_LENGTH: Final = 16

OWNER_ONLY: Final = 0o600
GROUP_MAY_READ: Final = 0o640
"""For keys that an orchestrator mounts: such files belong to root and are read through a group."""


def read_key_file(path: Path, max_mode: int = OWNER_ONLY) -> bytes:
    """Return the bytes of a key file. `max_mode` holds all permissions that it may have.

    Raises `ConfigError` that says what to do: the file is missing, no file, too large, owned by
    another user (neither this process' user nor root), or open to others.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(
            f"the key file cannot be read ({error.strerror}): check the path and its owner", str(path)
        ) from None
    with os.fdopen(fd, "rb") as file:
        _check(path, os.fstat(fd), max_mode)
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
    """Write a new key file with mode 0600, on stable storage: after a crash it is whole or missing.

    Raises `FileExistsError` where something has that name, `OSError`.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # unlike a rename it replaces nothing
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    sync_folder(path.parent)


def _check(path: Path, status: os.stat_result, max_mode: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError("this is no file: a key is expected here", str(path))
    if status.st_uid not in {0, os.geteuid()}:
        raise ConfigError(
            f"the key file belongs to user {status.st_uid}: it must be root's or that of the user"
            f" of this process (chown {os.geteuid()})",
            str(path),
        )
    mode = stat.S_IMODE(status.st_mode)
    if mode & ~(max_mode | 0o100):
        raise ConfigError(
            f"others may touch the key file (mode {mode:04o}): run `chmod {max_mode:04o}` on it",
            str(path),
        )
