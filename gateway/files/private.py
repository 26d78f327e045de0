"""The whole files of this process that only handlers of `APIGW.OnFileReceived` read."""

from __future__ import annotations

import contextlib
import io
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

    Each is here while a handler runs, and no longer: afterwards its path may lead to nothing.
    """

    def __init__(self) -> None:
        self._files: dict[str, PrivateFile] = {}

    def register(self, upload_id: str, file: PrivateFile) -> None:
        """Let handlers of an upload read its body."""
        self._files[upload_id] = file

    def forget(self, upload_id: str) -> None:
        """Let nobody read it any more. A second call does nothing."""
        self._files.pop(upload_id, None)

    def path_of(self, upload_id: str | None) -> Path | None:
        """Return where the private file of an upload lies, None where it is none on this disk."""
        file = None if upload_id is None else self._files.get(upload_id)
        return None if file is None else file.path

    def of_event(self, event: Mapping[str, Any]) -> PrivateFile:
        """Return the file of an event of OnFileReceived. Raises `Superseded` where it is gone."""
        upload_id = str(event["upload_id"])
        file = self._files.get(upload_id)
        if file is None:
            raise _gone(upload_id)
        return file


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
