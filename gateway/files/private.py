"""The whole files of this process that only handlers of `APIGW.OnFileReceived` read."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.domain.event_bodies import received_id
from gateway.domain.held import PrivateFile
from gateway.errors import Refusal, Superseded
from gateway.files.local_copy import fetch
from gateway.storage.protocols import PrivateStorage, Storage
from gateway.storage.waiting import finish_in_thread


class PrivateFiles:
    """The private files that handlers may read now, by upload id. Callable from any thread.

    Each is here while a handler runs, and no longer: afterwards its path may lead to nothing. Shadows
    read them for longer, see `Loan`.
    """

    def __init__(self) -> None:
        self._files: dict[str, PrivateFile] = {}
        self._loans: dict[str, Loan] = {}

    def register(self, upload_id: str, file: PrivateFile) -> None:
        """Let handlers of an upload read its body."""
        self._files[upload_id] = file

    def forget(self, upload_id: str) -> None:
        """Let nobody read it any more. A second call does nothing."""
        self._files.pop(upload_id, None)

    async def lend(self, upload_id: str, file: PrivateFile) -> Loan:
        """Let shadows read the private file of an upload until the loan ends. Raises `OSError`."""
        fd = None
        if file.path is not None:
            fd = await finish_in_thread(os.open, file.path, os.O_RDONLY | os.O_CLOEXEC)
        return self._lend(upload_id, file, fd)

    def lend_stored(self, upload_id: str) -> Loan:
        """Let shadows read the file of an upload that is stored until the loan ends."""
        return self._lend(upload_id, None, None)

    def _lend(self, upload_id: str, file: PrivateFile | None, fd: int | None) -> Loan:
        loan = self._loans[upload_id] = Loan(self._loans, upload_id, file, fd)
        return loan

    async def open(
        self, storage: Storage, event: Mapping[str, Any], stack: contextlib.ExitStack
    ) -> io.BufferedReader | None:
        """Open the file of an event of OnFileReceived, until `stack` is closed; fetch what is an object.

        None for a shadow whose file is stored or removed by now. Raises `Superseded` where it is gone.
        """
        try:
            return await open_private(storage, self.of_event(event), stack)
        except Superseded:
            if str(event["upload_id"]) in self._loans:
                return None
            raise

    def path_of(self, upload_id: str | None) -> Path | None:
        """Return where the private file of an upload lies, None where it is none on this disk."""
        file = None if upload_id is None else self._files.get(upload_id)
        return None if file is None else file.path

    def of_event(self, event: Mapping[str, Any]) -> PrivateFile:
        """Return the file of an event of OnFileReceived. Raises `Superseded` where it is gone."""
        upload_id = str(event["upload_id"])
        loan = self._loans.get(upload_id)
        file = self._files.get(upload_id) if loan is None else loan.file
        if file is None:
            raise _gone(upload_id)
        return file


class Loan:
    """The body of an upload while shadows read it, however it is decided about meanwhile.

    A file is kept open: its path in `/proc` leads to it after it was renamed or removed.
    """

    def __init__(
        self, loans: dict[str, Loan], upload_id: str, file: PrivateFile | None, fd: int | None
    ) -> None:
        self._loans = loans
        self._upload_id = upload_id
        self._fd = fd
        self.path = None if fd is None else Path(f"/proc/{os.getpid()}/fd/{fd}")
        self.file = file if file is None or fd is None else file._replace(path=self.path)

    def end(self) -> None:
        """Let nobody read it any more. A second call does nothing."""
        if self._loans.get(self._upload_id) is self:
            del self._loans[self._upload_id]
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def is_received_event(event: Mapping[str, Any]) -> bool:
    """Tell whether an event is one of OnFileReceived: its file has no name yet."""
    upload_id = event.get("upload_id")
    return upload_id is not None and event.get("id") == received_id(upload_id)


async def open_private(
    storage: Storage, file: PrivateFile, stack: contextlib.ExitStack
) -> io.BufferedReader:
    """Return a private file, open for reading until `stack` is closed; fetch what is an object.

    Raises `Superseded` where it is gone.
    """
    path, key = file.path, file.key
    if path is not None:
        try:
            return await finish_in_thread(lambda: stack.enter_context(path.open("rb")))
        except FileNotFoundError:
            raise _gone(path.name) from None
    if key is None or not isinstance(storage, PrivateStorage):
        raise RuntimeError("this storage has no private objects")
    try:
        async with storage.open_private(key) as opened:
            return await fetch(opened, stack)
    except Refusal as refusal:
        if refusal.code != "not_found":
            raise
        raise _gone(key.rpartition("/")[2]) from None


def _gone(upload_id: str) -> Superseded:
    return Superseded(f"the upload {upload_id} is not waiting for a decision (any more)")
